"""Blocking reads off the event loop: a bounded pool of threads, a bounded number of streams."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from lichen.wire.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

THREADS = 16
STREAMS_MAX = 256
STALLED_S = 2.0  # who has not read for so long makes room when all streams are taken
PIECE_BYTES = 256 * 1024

T = TypeVar("T")


class Source:
    """Something to read, at which threads take turns; `cleanup` is what has to be closed after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self.stalled_since: float | None = None  # while it is the client's turn to read
        self.pieces: Iterator[bytes | memoryview] = iter(())
        self.on_end: Callable[[], None] | None = None
        self.length: int | None = None
        self._first = b""
        self._rest: bytes | memoryview = b""
        self._taken = 0
        self.cleanup = contextlib.ExitStack()

    def take(self) -> bytes:
        """Return the next bytes, at most PIECE_BYTES of them; nothing at the end.

        `on_end` is called when all was read, not when reading broke off: before the last bytes of
        `length` are handed out, because a client that has them all may leave at once.
        """
        with self._lock:
            parts: list[bytes | memoryview] = []
            size = 0
            while size < PIECE_BYTES and not self._closed:
                part = self._rest or next(self.pieces, None)
                if part is None:
                    break
                self._rest = b""
                if size + len(part) > PIECE_BYTES:  # a client that is slow holds no more
                    view, left = memoryview(part), PIECE_BYTES - size
                    part, self._rest = view[:left], view[left:]
                parts.append(part)
                size += len(part)
            self._taken += size
            on_end = self.on_end
            if on_end is not None and not self._closed and (not size or self._taken == self.length):
                self.on_end = None
                on_end()
            return b"".join(parts)

    def open(self, begin: Callable[[Source], T]) -> T:
        """Let `begin` prepare this, and read the first bytes; return what `begin` returns."""
        with self._lock:
            begun = begin(self)
        self._first = self.take()
        return begun

    def take_first(self) -> bytes:
        """Return what was read when this was opened; nobody keeps it here."""
        first, self._first = self._first, b""
        return first

    def close(self) -> None:
        """Let go, once a read under way has ended."""
        self._closed = True
        with self._lock:
            if isinstance(self.pieces, Generator):
                self.pieces.close()
            self.cleanup.close()


class Pump:
    """The threads that read content for answers."""

    def __init__(self, *, threads: int = THREADS, streams_max: int = STREAMS_MAX) -> None:
        self._threads = ThreadPoolExecutor(threads, "content-read")
        self._streams_max = streams_max
        self._cuts: dict[Source, Callable[[], None]] = {}
        self.streams = 0

    def close(self) -> None:
        """End the threads; what they do now is finished first."""
        self._threads.shutdown()

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Do blocking work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Count an answer under way; raise BusyError when there are too many that go on."""
        if self.streams >= self._streams_max and not self._cut_stalled():
            raise BusyError(
                f"{self._streams_max} reads of content are under way here",
                hint="try again shortly",
            )
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def _cut_stalled(self) -> bool:
        """Cut the reader that has stalled longest; False when none has for STALLED_S."""
        before = time.monotonic() - STALLED_S
        stalled = [
            (source.stalled_since, number, source)
            for number, source in enumerate(self._cuts)
            if source.stalled_since is not None and source.stalled_since < before
        ]
        if not stalled:
            return False
        self._cuts.pop(min(stalled)[2])()
        return True

    @contextlib.contextmanager
    def source(self, cut: Callable[[], None] | None = None) -> Iterator[Source]:
        """Lend a source; it is closed at the end, in a thread that nobody waits for.

        `cut` ends the answer at once, when its reader stalls and others want to read.
        """
        source = Source()
        if cut is not None:
            self._cuts[source] = cut
        try:
            yield source
        finally:
            self._cuts.pop(source, None)
            self._threads.submit(source.close)

    async def stream(self, source: Source) -> AsyncIterator[bytes]:
        """Yield the first piece, which is read already, then the others."""
        piece = source.take_first()
        while piece:
            source.stalled_since = time.monotonic()
            yield piece
            source.stalled_since = None
            piece = b""  # it is the client's now: hold one less while the next one is read
            piece = await self.run(source.take)
