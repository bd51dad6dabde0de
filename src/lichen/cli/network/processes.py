"""Processes by pid and start time together, so that a recycled pid is never hit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec

POLL_S = 0.02
PS_S_MAX = 5.0


class ProcessId(msgspec.Struct, frozen=True):
    """A process of this machine. `started` is opaque text that no later process of the pid has."""

    name: str
    pid: int
    started: str


def identify(name: str, pid: int) -> ProcessId | None:
    """Return the identity of a running process, or None when there is none."""
    started = _start_time(pid)
    return None if started is None else ProcessId(name, pid, started)


def is_alive(process: ProcessId) -> bool:
    """Tell whether this very process still runs (a zombie does not)."""
    return _start_time(process.pid) == process.started


def send(process: ProcessId, number: signal.Signals) -> None:
    """Signal this very process; nothing happens when it is gone."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def kill_group(process: ProcessId) -> None:
    """Kill a process that leads its group, together with what it started in it."""
    if not is_alive(process):
        return
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)


def sweep_group(process: ProcessId) -> None:
    """Kill what a process that is gone left behind in the group it led.

    A pid is not given away while a group bears its number; and when the group is empty and the pid
    taken by somebody else, that somebody is seen here and left alone.
    """
    if _start_time(process.pid) is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_gone(processes: list[ProcessId], seconds_max: float) -> list[ProcessId]:
    """Wait until the processes are gone; return those that still run after the deadline."""
    deadline = time.monotonic() + seconds_max
    while True:
        processes = [process for process in processes if is_alive(process)]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(POLL_S)


def _start_time(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return _linux_start_time(pid)
    return _ps_start_time(pid)


def _linux_start_time(pid: int) -> str | None:
    """Read field 22 (clock ticks since boot) of /proc/PID/stat, see proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in {"Z", "X"} else started


def _ps_start_time(pid: int) -> str | None:
    """Ask ps, on systems without /proc (macOS)."""
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PS_S_MAX,
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
