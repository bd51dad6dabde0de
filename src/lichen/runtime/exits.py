"""Why a tenant's process ended."""

from __future__ import annotations

from typing import Literal

import msgspec

ExitKind = Literal["memory", "pids", "crash", "stopped", "unresponsive", "output"]

_HEAP_EXHAUSTED = ("JavaScript heap out of memory", "Out of memory", "exceeded memory limit")


class ExitReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a tenant's process ended, in one word and one sentence for its owner.

    `memory`: over its memory limit. `pids`: too many threads or processes. `output`: a flood of log
    output. `unresponsive`: its event loop did not turn. `stopped`: the node wanted it so. `crash`:
    anything else.
    """

    kind: ExitKind
    detail: str
    exit_code: int


_DETAILS: dict[ExitKind, str] = {
    "memory": "the function used more memory than its memory_mb allows",
    "pids": "the function started more threads or processes than are allowed",
    "output": "the function wrote far more log output than is kept",
    "unresponsive": "the function kept the CPU without ever yielding (an endless loop?)",
    "stopped": "stopped by the node",
    "crash": "the process ended by itself",
}


def explain(
    requested: ExitKind | None,
    *,
    exit_code: int,
    last_words: str,
    oom_killed: bool,
    pids_refused: bool,
) -> ExitReason:
    """Decide the reason of an exit from what is known about it; what was asked for comes first."""
    kind = requested or _infer(last_words, oom_killed=oom_killed, pids_refused=pids_refused)
    detail = _DETAILS[kind]
    if kind == "crash" and last_words:
        detail = f"{detail}: {last_words}"
    return ExitReason(kind=kind, detail=detail, exit_code=exit_code)


def _infer(last_words: str, *, oom_killed: bool, pids_refused: bool) -> ExitKind:
    if oom_killed or any(mark in last_words for mark in _HEAP_EXHAUSTED):
        return "memory"
    return "pids" if pids_refused else "crash"
