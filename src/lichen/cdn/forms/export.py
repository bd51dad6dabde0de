"""CARs of what stands at a path: the blocks that lead there, then those that were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from lichen.content import (
    CID,
    DAG_PB,
    RAW,
    Blocks,
    Kind,
    MissingBlockError,
    follow,
    need_block,
    stat,
    walk,
    write_car,
)
from lichen.content.walk import all_below, nothing_below, range_below, shards_below
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lichen.cdn.wanted_car import WantedCar
    from lichen.content.walk import Step

    Below = Callable[[Step, bytes], Iterable[Step]]


class Export(msgspec.Struct, frozen=True):
    """A CAR, made as it is read, and the CIDs along the path to its root.

    `is_whole` tells that it has all that is below.
    """

    roots: tuple[CID, ...]
    pieces: Iterator[bytes]
    is_whole: bool


class _Noted:
    """Notes which blocks were read, so that a client can walk the same way."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.cids: list[CID] = []

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block."""
        self.cids.append(cid)
        return self._blocks.get_block(cid)


def export_path(blocks: Blocks, root: CID, path: str, wanted: WantedCar) -> Export:
    """Find what a path leads to, and begin the CAR of it.

    Raises NotFoundError and MissingBlockError for the way there, UserError for a range outside of
    the file; what is missing or malformed further below is raised when the CAR is read.
    """
    noted = _Noted(blocks)
    roots = follow(noted, root, path)
    below = _below(blocks, roots[-1], wanted)
    found = _blocks(blocks, noted.cids, walk(blocks, roots[-1], below, dups=wanted.dups))
    return Export(roots, write_car(roots[-1:], found), below is all_below)


def _blocks(
    blocks: Blocks, way: list[CID], found: Iterator[tuple[CID, bytes]]
) -> Iterator[tuple[CID, bytes]]:
    """Yield the way first; it is read again, as its blocks together may be large.

    Every block of the way holds the hash of the next one, so none of them comes up again below.
    """
    for cid in way:
        yield cid, need_block(blocks, cid)
    yield from found


def _below(blocks: Blocks, cid: CID, wanted: WantedCar) -> Below:
    need_block(blocks, cid)  # of any codec: what is missing is said before the first byte
    if wanted.scope == "all":
        return all_below
    if wanted.scope == "block" or cid.codec not in {DAG_PB, RAW}:
        return nothing_below
    try:
        entry = stat(blocks, cid)
    except MissingBlockError:
        raise
    except UserError:  # no UnixFS: an entity of one block
        return nothing_below
    if entry.kind is Kind.HAMT_SHARD:
        return shards_below
    if not entry.is_file:
        return nothing_below
    if wanted.range is None:
        return all_below
    start, end = wanted.range.of(entry.file_bytes)
    return range_below(start, end) if start < end else nothing_below
