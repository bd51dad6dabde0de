"""HAMT (https://specs.ipfs.tech/unixfs/#dag-pb-hamtdirectory): large directories in many blocks.

An entry's place is read from the murmur3 hash of its name, from the most significant bit on,
log2(fanout) bits for each level. A link's name is the position in hexadecimal, followed by the
entry's name; a link to a deeper shard has the position alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lichen.content import dag_pb, unixfs
from lichen.content.cid import CID
from lichen.content.dag_pb import Link
from lichen.content.murmur3 import murmur3_x64_64
from lichen.content.profile import HAMT_FANOUT
from lichen.errors import UserError

HASH_BITS = 64
FANOUT_MIN = 8
FANOUT_MAX = 1024
Put = Callable[[bytes], CID]


def position(name_hash: bytes, depth: int, fanout: int = HAMT_FANOUT) -> int:
    """Return an entry's slot in the shard at `depth`; raise UserError below the last level."""
    bits = fanout.bit_length() - 1
    shift = HASH_BITS - bits * (depth + 1)
    if shift < 0:
        raise UserError(
            "a HAMT directory is deeper than its hash", hint="rename entries whose hashes collide"
        )
    return int.from_bytes(name_hash, "big") >> shift & (fanout - 1)


def prefix_letters(fanout: int) -> int:
    """Return how many hexadecimal digits stand before a name."""
    return len(f"{fanout - 1:x}")


def check_fanout(node: unixfs.UnixFS) -> int:
    """Return a shard's fanout; raise UserError where it or the hash function is not usable."""
    fanout = node.fanout or 0
    if node.hash_type != unixfs.HAMT_MURMUR3:
        raise UserError(f"HAMT hash function {node.hash_type} is not known")
    if not FANOUT_MIN <= fanout <= FANOUT_MAX or fanout & (fanout - 1):
        raise UserError(f"a HAMT fanout of {fanout} is not a power of two in 8 .. 1024")
    return fanout


def build(links: Iterable[Link], put: Put) -> tuple[CID, int]:
    """Write the shards of a directory: the root's CID and the bytes of all blocks below it."""
    entries = [(murmur3_x64_64((link.name or "").encode()), link) for link in links]
    return _build_shard(entries, 0, put)


def _build_shard(entries: list[tuple[bytes, Link]], depth: int, put: Put) -> tuple[CID, int]:
    slots: dict[int, list[tuple[bytes, Link]]] = {}
    for name_hash, link in entries:
        slots.setdefault(position(name_hash, depth), []).append((name_hash, link))
    links = [_build_slot(slot, slots[slot], depth, put) for slot in sorted(slots)]
    message = unixfs.UnixFS(
        unixfs.Kind.HAMT_SHARD,
        data=_bitfield(slots),
        hash_type=unixfs.HAMT_MURMUR3,
        fanout=HAMT_FANOUT,
    )
    block = dag_pb.encode(links, unixfs.encode(message))
    return put(block), len(block) + sum(link.total_bytes or 0 for link in links)


def _build_slot(slot: int, entries: list[tuple[bytes, Link]], depth: int, put: Put) -> Link:
    prefix = f"{slot:0{prefix_letters(HAMT_FANOUT)}X}"
    if len(entries) == 1:
        link = entries[0][1]
        return Link(link.cid, prefix + (link.name or ""), link.total_bytes)
    cid, total_bytes = _build_shard(entries, depth + 1, put)
    return Link(cid, prefix, total_bytes)


def _bitfield(slots: Iterable[int]) -> bytes:
    bits = sum(1 << slot for slot in slots)
    return bits.to_bytes((bits.bit_length() + 7) // 8, "big")
