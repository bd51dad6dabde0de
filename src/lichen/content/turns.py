"""One writer at a time; who does little things again and again gives way to others."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GIVE_WAY_S = 0.001


class Turns:
    """A lock that counts who waits for it. Locks are not fair: who waits would be overtaken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and have it."""
        with self._counting:
            self._waiting += 1
        try:
            self._lock.acquire()
        finally:
            with self._counting:
                self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()

    def give_way(self) -> None:
        """Wait a moment, if anybody else is waiting for a turn."""
        if self._waiting:
            time.sleep(GIVE_WAY_S)
