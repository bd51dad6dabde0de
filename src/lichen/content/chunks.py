"""A stream cut into groups of chunks, read into a few buffers that are used in turn."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lichen.content.importer import leaf_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from lichen.content.car import Readable
    from lichen.content.profile import Profile

GROUP_BYTES = 1 << 20  # enough for one hand-over between threads to cost next to nothing
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


def groups(head: bytes, stream: Readable, chunk_bytes: int) -> Iterator[memoryview]:
    """Yield `head` and the rest of the stream in groups of whole chunks; the last may be shorter.

    `head` is no longer than a chunk. A group is valid until `HASHES_AHEAD_MAX` more are taken.
    """
    group_bytes = chunk_bytes * max(1, GROUP_BYTES // chunk_bytes)
    buffers: deque[memoryview] = deque()
    while True:
        fresh = len(buffers) < _BUFFERS
        buffer = memoryview(bytearray(group_bytes)) if fresh else buffers.popleft()
        buffers.append(buffer)
        buffer[: len(head)] = head
        size = len(head) + _fill(stream, buffer[len(head) :])
        head = b""
        if size:
            yield buffer[:size]
        if size < group_bytes:
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
        self._pending: deque[Future[list[tuple[bytes, int]]]] = deque()

    def submit(self, group: memoryview) -> None:
        """Start on a group of chunks."""
        self._pending.append(self._executor.submit(_digests, group, self._profile))

    def due(self) -> Iterator[tuple[bytes, int]]:
        """Yield (digest, length) of chunks whose buffers are about to be used again."""
        while len(self._pending) > HASHES_AHEAD_MAX:
            yield from self._pending.popleft().result()

    def finish(self) -> Iterator[tuple[bytes, int]]:
        """Yield the rest."""
        while self._pending:
            yield from self._pending.popleft().result()


def _digests(group: memoryview, profile: Profile) -> list[tuple[bytes, int]]:
    starts = range(0, len(group), profile.chunk_bytes)
    parts = [group[start : start + profile.chunk_bytes] for start in starts]
    return [(leaf_digest(part, profile), len(part)) for part in parts]
