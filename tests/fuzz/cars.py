"""CARs: read in any pieces, and imported into a real store, which holds only what is whole and true."""

from __future__ import annotations

import contextlib
import functools
import io

import libipld

from lichen.content import CID, BlockStore, CarReader, reader, varint, write_car
from lichen.content.cid import DAG_PB, IDENTITY, RAW
from lichen.content.dag import links_of
from lichen.errors import LichenError
from tests.fuzz.graphs import BEGIN, Graph
from tests.fuzz.kit import Counted, Dice, outcome, refusals, require, scratch, target

LEAF = CID.of(RAW, b"leaf")
SMALL = b"".join(write_car([LEAF], [(LEAF, b"leaf")]))
PRAGMA = bytes.fromhex("0aa16776657273696f6e02")
VERSION_2 = PRAGMA + bytes(16) + b"".join(
    number.to_bytes(8, "little") for number in (51, len(SMALL), 0)
) + SMALL  # fmt: skip
CAPACITY_BYTES = 1 << 26


class Trickle:
    """A stream that hands out as little as it likes."""

    def __init__(self, data: bytes, dice: Dice) -> None:
        self._stream = io.BytesIO(data)
        self._dice = dice

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, 1 + self._dice.byte()))


def _read(stream) -> tuple[tuple[CID, ...], list[tuple[CID, bytes]], type | None]:
    found: list[tuple[CID, bytes]] = []
    roots: tuple[CID, ...] = ()
    try:
        car = CarReader(stream)
        roots = car.roots
        found.extend(car)
    except LichenError as error:
        require(error.status < 500, repr(error))
        return roots, found, type(error)
    return roots, found, None


@target("car", SMALL, VERSION_2, SMALL[:-1], b"\xff\xff\xff\x7f")
def car(data: bytes) -> None:
    roots, found, error = _read(io.BytesIO(data))
    require(sum(len(block) for _, block in found) <= len(data))
    for cid, block in found:
        require(cid.matches(block), "a wrong block came out")
    require(_read(Trickle(data, Dice(data))) == (roots, found, error), "pieces decide")
    if error is None and data[:11] != PRAGMA:
        again = b"".join(write_car(roots, found))
        require(again == data, "another spelling of the same CAR")
        if all(len(cid.digest) <= 64 for cid in (*roots, *(cid for cid, _ in found))):
            with contextlib.suppress(ValueError):  # it wants a root at least
                require(len(libipld.decode_car(data)[1]) <= len(found))


@functools.cache
def _store() -> BlockStore:
    return BlockStore.open(scratch(), capacity_bytes=CAPACITY_BYTES)


def _mutated(car_bytes: bytes, dice: Dice) -> bytes:
    """Leave a CAR as it is, mostly; else cut it off, flip a byte, or repeat a part."""
    how, at = dice.byte(), dice.below(len(car_bytes) + 1)
    if how < 180:
        return car_bytes
    if how < 200:
        return car_bytes[:at]
    if how < 220:
        return car_bytes[:at] + bytes((dice.byte(),)) + car_bytes[at + 1 :]
    return car_bytes + car_bytes[at:]


@target("car-import", *BEGIN, *(item + b"\xc0\x40" for item in BEGIN))
def car_import(data: bytes) -> None:
    dice = Dice(data)
    how = dice.byte()
    blocks = Counted({})
    graph = Graph(dice, blocks)
    chosen = [
        cid for cid in graph.cids if cid.hash_code != IDENTITY and cid.multihash in blocks.blocks
    ]
    if how & 1:
        chosen.reverse()
    if how & 2:
        chosen += chosen[: how >> 4]
    named = [(cid, blocks.blocks[cid.multihash]) for cid in chosen]
    car_bytes = _mutated(b"".join(write_car([graph.root], named)), Dice(data[-3:]))
    store = _store()
    before = store.usage_bytes
    try:
        roots = store.import_car(io.BytesIO(car_bytes), pin=bool(how & 4))
    except LichenError as error:
        require(error.status < 500, repr(error))
        require(store.usage_bytes == before, "a refused CAR left something")
        return
    for cid, block in _read(io.BytesIO(car_bytes))[1]:
        require(store.get_block(cid) == block, "a block is not what came")
    for root in roots:
        _check_file(store, root)
        store.unpin(root)
    if store.usage_bytes > CAPACITY_BYTES // 2:
        store.collect()
        require(store.usage_bytes == 0, "a collection of all leaves something")


def _check_file(store: BlockStore, root: CID) -> None:
    """What is laid out flat is what reading the blocks gives."""
    content = outcome(lambda: b"".join(reader.read_file(store, root)))
    small, flat = store.small_file(root), store.flat_file(root)
    if small is not None:
        require(small == content)
    if flat is not None:
        require(flat.pread(flat.size) == content)
    if isinstance(content, bytes) and root.codec in (RAW, DAG_PB):
        with refusals():
            links_of(root, store.get_block(root) or b"")


@target("car-header", SMALL[1:59], b"\xa1\x67version\x01", bytes_max=512)
def car_header(data: bytes) -> None:
    """The header alone, with a length that fits: what a CAR of wrong roots does."""
    whole = varint.encode(len(data)) + data if data else b"\0"
    with refusals():
        roots = CarReader(io.BytesIO(whole)).roots
        require(b"".join(write_car(roots, ())) == whole)
