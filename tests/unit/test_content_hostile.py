"""Content made to waste time or memory: what reading it costs is bounded by what it is."""

from __future__ import annotations

import itertools

import pytest

from lichen.content import dag_pb, hamt, list_directory, lookup, stat, unixfs
from lichen.content.cid import CID, DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.murmur3 import murmur3_x64_64
from lichen.content.unixfs import HAMT_MURMUR3, Kind, UnixFS
from lichen.errors import UserError

LEAF = CID.of(RAW, b"leaf")
FANOUT = 8
LEVELS = 3
WIDTH = 100


class Blocks(dict):
    """Blocks in memory, the reads counted."""

    reads = 0

    def get_block(self, cid: CID) -> bytes | None:
        self.reads += 1
        return self.get(cid)

    def shard(self, links: list[Link], fanout: int = FANOUT) -> CID:
        message = UnixFS(Kind.HAMT_SHARD, b"", hash_type=HAMT_MURMUR3, fanout=fanout)
        block = dag_pb.encode(links, unixfs.encode(message))
        cid = CID.of(DAG_PB, block)
        self[cid] = block
        return cid


def _name() -> tuple[str, list[int]]:
    """Find a name whose hash leads through slot 0 on every level."""
    for number in itertools.count():
        slots = [
            hamt.position(murmur3_x64_64(b"%d" % number), depth, FANOUT) for depth in range(LEVELS)
        ]
        if not any(slots):
            return str(number), slots
    raise AssertionError


def test_a_few_shards_that_repeat_a_slot_are_no_endless_directory() -> None:
    blocks = Blocks()
    name, _ = _name()
    cid = blocks.shard([Link(LEAF, "0" + name, 1)])
    for _ in range(LEVELS - 1):
        cid = blocks.shard([Link(cid, "0", 1)] * WIDTH)
    with pytest.raises(UserError, match="two links in one slot"):
        list(list_directory(blocks, cid))
    with pytest.raises(UserError, match="two links in one slot"):
        lookup(blocks, cid, name)
    assert blocks.reads <= 2 * LEVELS


@pytest.mark.parametrize("position", ["+1", " 1", "1_", "0a", "1", ""])
def test_a_position_in_a_hamt_is_hexadecimal_of_one_spelling(position: str) -> None:
    blocks = Blocks()
    cid = blocks.shard([Link(LEAF, position, 1)], fanout=256)
    with pytest.raises(UserError, match="without a position"):
        list(list_directory(blocks, cid))


def test_a_file_is_no_longer_than_http_can_say() -> None:
    blocks = Blocks()
    message = unixfs.encode(UnixFS(Kind.FILE, child_bytes=(2**64 - 1,) * 9))
    block = dag_pb.encode([Link(LEAF, "", 1)] * 9, message)
    cid = CID.of(DAG_PB, block)
    blocks[cid] = block
    with pytest.raises(UserError, match="bytes, over"):
        stat(blocks, cid)
