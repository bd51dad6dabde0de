"""How a child notices that its supervisor is gone, even by kill -9.

The supervisor holds the one write end of a pipe and hands the read end to each child. The kernel
closes the write end when the supervisor dies, however it dies; the child's read then ends. Unlike
a parent-death signal this works on every POSIX system and does not depend on threads.
"""

from __future__ import annotations

import os
import signal
import threading
import time

ENVIRONMENT = "LICHEN_LIFELINE_FD"
ORPHAN_STOP_S_MAX = 10.0


class Lifeline:
    """The supervisor's side of the pipe."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def environment(self) -> dict[str, str]:
        """Return the variable that tells a child which descriptor to watch."""
        return {ENVIRONMENT: str(self.read_end)}

    def close(self) -> None:
        """Let go: whoever still watches will stop."""
        os.close(self.read_end)
        os.close(self._write_end)


def watch() -> None:
    """Stop this process when its supervisor dies; does nothing when it has none."""
    text = os.environ.pop(ENVIRONMENT, "")
    if not text.isdecimal():
        return
    descriptor = int(text)
    os.set_inheritable(descriptor, False)  # what this process starts is its own business
    threading.Thread(target=_wait, args=(descriptor,), name="lifeline", daemon=True).start()


def _wait(descriptor: int) -> None:
    os.read(descriptor, 1)  # nobody ever writes: returns at end of file only
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_STOP_S_MAX)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
