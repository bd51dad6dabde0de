"""A stream cut into chunks of one size, read into a few buffers that are used in turn."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lichen.content.importer import leaf_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from lichen.content.car import Readable
    from lichen.content.profile import Profile

HASHES_AHEAD_MAX = 2
_BUFFERS = HASHES_AHEAD_MAX + 2


def read_head(stream: Readable, size: int) -> bytes:
    """Return the first `size` bytes of a stream, fewer only where it ends."""
    head = stream.read(size)
    while head and len(head) < size:
        more = stream.read(size - len(head))
        if not more:
            break
        head += more
    return head


def chunks(head: bytes, stream: Readable, chunk_bytes: int) -> Iterator[memoryview]:
    """Yield `head` and the rest of the stream as full chunks and a shorter last one.

    `head` is no longer than a chunk. A chunk is valid until `HASHES_AHEAD_MAX` more are taken.
    """
    buffers: deque[memoryview] = deque()
    while True:
        fresh = len(buffers) < _BUFFERS
        buffer = memoryview(bytearray(chunk_bytes)) if fresh else buffers.popleft()
        buffers.append(buffer)
        buffer[: len(head)] = head
        size = len(head) + _fill(stream, buffer[len(head) :])
        head = b""
        if size:
            yield buffer[:size]
        if size < chunk_bytes:
            return


def _fill(stream: Readable, buffer: memoryview) -> int:
    readinto = getattr(stream, "readinto", None)
    have = 0
    while have < len(buffer):
        if readinto is not None:
            size = readinto(buffer[have:]) or 0
        else:
            data = stream.read(len(buffer) - have)
            size = len(data)
            buffer[have : have + size] = data
        if not size:
            break
        have += size
    return have


class Hasher:
    """Hashes leaves in another thread while the caller writes them; digests come back in order."""

    def __init__(self, executor: Executor, profile: Profile) -> None:
        self._executor = executor
        self._profile = profile
        self._pending: deque[tuple[Future[bytes], int]] = deque()

    def submit(self, chunk: memoryview) -> None:
        """Start on a chunk."""
        self._pending.append((self._executor.submit(leaf_digest, chunk, self._profile), len(chunk)))

    def due(self) -> Iterator[tuple[bytes, int]]:
        """Yield (digest, length) of chunks whose buffers are about to be used again."""
        while len(self._pending) > HASHES_AHEAD_MAX:
            yield self._next()

    def finish(self) -> Iterator[tuple[bytes, int]]:
        """Yield the rest."""
        while self._pending:
            yield self._next()

    def _next(self) -> tuple[bytes, int]:
        future, length = self._pending.popleft()
        return future.result(), length
