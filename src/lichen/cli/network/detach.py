"""Starting the supervisor in the background, and showing its progress until it serves.

The supervisor writes its steps as JSON lines to a pipe: `{"step", "seconds"}`, then either
`{"serving": true}` or `{"failed": {...}}`. The end of the pipe without either means that it died.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from lichen.cli import console
from lichen.cli.network.service import last_lines
from lichen.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = "LICHEN_READY_FD"
LINE_BYTES_MAX = 64 * 1024
STOP_S_MAX = 60.0


class SupervisorFailedError(MachineError):
    """The supervisor in the background could not start the network."""

    code = "start-failed"


class Progress:
    """The supervisor's end of the pipe; without a pipe the steps go to the terminal."""

    def __init__(self) -> None:
        text = os.environ.pop(ENVIRONMENT, "")
        self._descriptor = int(text) if text.isdecimal() else None
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, False)

    @property
    def is_detached(self) -> bool:
        """Whether another process shows the steps."""
        return self._descriptor is not None

    def step(self, text: str, seconds: float) -> None:
        """Tell of a finished step."""
        if self._descriptor is None:
            console.finished(text, seconds)
        else:
            self._send({"step": text, "seconds": seconds})

    def serving(self) -> None:
        """Tell that the network serves; the starter goes away and steps go to the log."""
        self._send({"serving": True})
        self._close()

    def failed(self, what: str, hint: str) -> None:
        """Tell why the network does not start."""
        self._send({"failed": {"what": what, "hint": hint}})
        self._close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:  # the starter was interrupted: go on, with steps in the log
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def start(arguments: list[str], log: Path) -> None:
    """Start `lichen ARGUMENTS` in a session of its own and wait until it serves or fails."""
    read_end, write_end = os.pipe()
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lichen", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, ENVIRONMENT: str(write_end)},
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    try:
        _follow(read_end, process, log)
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)
        raise


def _follow(read_end: int, process: subprocess.Popen[bytes], log: Path) -> None:
    with open(read_end, "rb") as pipe:
        while line := pipe.readline(LINE_BYTES_MAX):
            message = json.loads(line)
            if "step" in message:
                console.finished(message["step"], message["seconds"])
            elif "failed" in message:
                process.wait(STOP_S_MAX)
                raise SupervisorFailedError(**_failure(message["failed"]))
            else:
                return
    raise SupervisorFailedError(
        f"the supervisor ended: {last_lines(log)}", hint=f"its log is {log}"
    )


def _failure(message: dict[str, str]) -> dict[str, Any]:
    return {"what": message["what"], "hint": message["hint"]}
