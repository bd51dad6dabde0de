"""Looks at every tenant's memory many times a second and kills what is over its limit.

It is a thread and not a task, because a limit must hold while the event loop is busy too. Where
the kernel keeps the same limit by cgroup, this comes a little earlier and is sure of the reason.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

POLL_S: Final = 0.025


class Watched(Protocol):
    """Something with limits of its own."""

    def check(self) -> None:
        """Measure, and stop whatever is over its limit. Called from the watchdog's thread."""
        ...


class Watchdog:
    """One thread that checks all that is added to it."""

    def __init__(self, poll_s: float = POLL_S) -> None:
        self._poll_s = poll_s
        self._watched: set[Watched] = set()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lichen-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, watched: Watched) -> None:
        """Check this from now on."""
        with self._lock:
            self._watched.add(watched)
        self._wanted.set()

    def discard(self, watched: Watched) -> None:
        """Check this no more."""
        with self._lock:
            self._watched.discard(watched)
            if not self._watched:
                self._wanted.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            with self._lock:
                watched = tuple(self._watched)
            for one in watched:
                one.check()
            self._closed.wait(self._poll_s)
