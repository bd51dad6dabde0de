"""What runs in a network folder: a lock that says whether, and a file that says what and where."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from lichen.cli.network.processes import ProcessId
from lichen.encoding import from_json, to_pretty_json
from lichen.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


class Running(msgspec.Struct, frozen=True):
    """The supervisor, the processes it started, and the addresses they serve."""

    supervisor: ProcessId
    processes: tuple[ProcessId, ...] = ()
    urls: dict[str, str] = {}
    serving: bool = False


class RunLock:
    """An exclusive flock, held for as long as a supervisor lives; the kernel lets go with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting; tell whether it is ours."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_running(lock_path: Path) -> bool:
    """Tell whether a supervisor holds the lock."""
    if not lock_path.exists():
        return False
    lock = RunLock(lock_path)
    free = lock.acquire()
    lock.release()
    return not free


def read(path: Path) -> Running | None:
    """Read the state file; None when there is none or a crash cut it off."""
    try:
        return from_json(path.read_bytes(), Running)
    except (FileNotFoundError, UserError):
        return None


def write(path: Path, running: Running) -> None:
    """Replace the state file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(to_pretty_json(running))
    fresh.replace(path)
