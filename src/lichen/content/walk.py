"""Walks over DAGs, depth first and parents before children: over all of one, or a part of it.

What is below a block is decided by a function: all that it links to, or what makes up the file, the
range of a file or the directory there. A DAG may be hostile: it can repeat itself a million times a
million times, and link to more than memory holds. So a block is entered once, except on the edges
of a range, of which there are two on each level; a walk has a bound on its blocks, and all walks of
the process share one on what they remember.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.content import reader
from lichen.content.blocks import Blocks, need_block
from lichen.content.cid import CID, IDENTITY
from lichen.content.dag import links_of
from lichen.errors import LimitError
from lichen.wire.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BLOCKS_MAX: Final = 1 << 20
MEMORY_BYTES_MAX: Final = 256 << 20  # of all walks under way
SEEN_BYTES: Final = 128  # that remembering a block takes
STEP_BYTES: Final = 256  # that a step not yet taken takes
FREE_BYTES: Final = 1 << 20  # that each walk may remember anyway, whatever others do
_ON_EDGE: Final = -1  # no codec: entered for a part of what is below


class Step(msgspec.Struct, frozen=True, gc=False):
    """A block to come to. `size` is that of its file's bytes, where only some of them count.

    `name` is its CID in bytes, a quarter of what the object takes. `on_edge` tells that not all of
    its bytes count.
    """

    name: bytes
    offset: int = 0
    size: int | None = None
    on_edge: bool = False

    @property
    def cid(self) -> CID:
        """Return the block's CID."""
        return CID.decode(self.name)


class Memory:
    """What all walks may remember together; safe from any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self.used_bytes = 0

    def take(self, size: int) -> None:
        """Set bytes aside; raise BusyError when there are too few."""
        with self._lock:
            if self.used_bytes + size > self._bytes_max:
                raise BusyError(
                    "too many large DAGs are being read at once",
                    hint="try again shortly, or read a part of it",
                )
            self.used_bytes += size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.used_bytes -= size


MEMORY: Final = Memory(MEMORY_BYTES_MAX)


def all_below(step: Step, block: bytes) -> Iterable[Step]:
    """Go on to all that a block links to."""
    return [Step(cid.encode()) for cid in links_of(step.cid, block)]


def nothing_below(step: Step, block: bytes) -> Iterable[Step]:
    """Go on to nothing."""
    del step, block
    return ()


def shards_below(step: Step, block: bytes) -> Iterable[Step]:
    """Go on to the further blocks that list a HAMT directory, not to its entries."""
    return [Step(cid.encode()) for cid in reader.deeper_shards(step.cid, block)]


def range_below(start: int, end: int) -> Callable[[Step, bytes], Iterable[Step]]:
    """Go on to what holds the bytes `start` .. `end` (exclusive) of a file."""

    def below(step: Step, block: bytes) -> Iterable[Step]:
        part = reader.file_part(step.cid, block, step.size)
        offset = step.offset + part.own_bytes
        for cid, size in part.children:
            behind = offset + size
            if size and offset < end and behind > start:
                yield Step(cid.encode(), offset, size, on_edge=offset < start or behind > end)
            offset = behind

    return below


def walk(
    blocks: Blocks,
    root: CID,
    below: Callable[[Step, bytes], Iterable[Step]] = all_below,
    *,
    dups: bool = False,
    memory: Memory = MEMORY,
) -> Iterator[tuple[CID, bytes]]:
    """Yield the blocks from `root` on: each once, or (`dups`) as often as it is linked to.

    Blocks inside identity CIDs are followed, not yielded. Raises MissingBlockError, LimitError,
    and UserError for what is malformed.
    """
    seen: dict[bytes, int] = {}
    steps = [Step(root.encode())]
    yielded, taken_bytes = 0, 0
    try:
        while steps:
            step = steps.pop()
            cid = step.cid
            is_real = cid.hash_code != IDENTITY
            is_new, enters = True, True
            if is_real and not dups:
                is_new, enters = _enter(seen, cid, on_edge=step.on_edge)
            if not enters:
                continue
            block = need_block(blocks, cid)
            if is_new and is_real:
                if yielded == BLOCKS_MAX:
                    raise LimitError(f"over {BLOCKS_MAX} blocks at once", hint="read it in parts")
                yielded += 1
                yield cid, block
            steps.extend(reversed(list(below(step, block))))
            needed_bytes = len(seen) * SEEN_BYTES + len(steps) * STEP_BYTES
            if needed_bytes > taken_bytes + FREE_BYTES:
                memory.take(needed_bytes - taken_bytes)
                taken_bytes = needed_bytes
    finally:
        memory.give(taken_bytes)


def _enter(seen: dict[bytes, int], cid: CID, *, on_edge: bool) -> tuple[bool, bool]:
    """Tell whether a block is new, and whether to look at what is below it."""
    known = seen.get(cid.multihash)
    if known is None:
        seen[cid.multihash] = _ON_EDGE if on_edge else cid.codec
        return True, True
    if on_edge or known == _ON_EDGE:
        seen[cid.multihash] = known if on_edge else cid.codec
        return False, True
    if known == cid.codec:
        return False, False
    other = b"\0" + cid.as_v1().encode()  # the same bytes, read by another codec
    if other in seen:
        return False, False
    seen[other] = cid.codec
    return False, True
