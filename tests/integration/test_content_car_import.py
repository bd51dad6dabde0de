"""Hostile CARs into a real store: what they cost in memory, and what of them stays."""

import io
import os
import tracemalloc

import pytest

from lichen.content import (
    CID,
    DAG_PB,
    RAW,
    BlockStore,
    Link,
    dag_pb,
    ingest,
    unixfs,
    write_car,
)
from lichen.content.car import CarError
from lichen.content.unixfs import Kind, UnixFS
from lichen.errors import LimitError, VerificationError

BYTES_PER_BLOCK_MAX = 700  # of memory, while a block is staged


class Made:
    """A stream of pieces that are made as they are read, and nowhere kept."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size):
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@pytest.fixture
def store(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=1 << 30) as opened:
        yield opened


def peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def tiny(count):
    return ((CID.of(RAW, b"%d" % number), b"%d" % number) for number in range(count))


def test_very_many_tiny_blocks_take_a_bounded_part_of_memory_each(store):
    count = 5_000
    car = Made(write_car([CID.of(RAW, b"0")], tiny(count)))
    assert peak_bytes(lambda: store.import_car(car)) < count * BYTES_PER_BLOCK_MAX + (2 << 20)
    assert all(store.get_block(cid) == block for cid, block in tiny(count))


def test_more_blocks_than_one_addition_may_bring_are_refused_whole(store, monkeypatch):
    monkeypatch.setattr(ingest, "STAGED_BLOCKS_MAX", 100)
    with pytest.raises(LimitError):
        store.import_car(Made(write_car([], tiny(101))))
    assert store.usage_bytes == 0
    store.import_car(Made(write_car([], tiny(100))))


def wide_files(count, links):
    """Make nodes of files that link to very much, none of which ever comes."""
    message = unixfs.encode(UnixFS(Kind.FILE, None, links, (1,) * links))
    for _ in range(count):
        children = [Link(CID(RAW, os.urandom(32)), "", 1) for _ in range(links)]
        block = dag_pb.encode(children, message)
        yield CID.of(DAG_PB, block), block


def test_files_that_link_to_very_much_take_no_more_memory_than_one_of_them(store, monkeypatch):
    monkeypatch.setattr(ingest, "STAGED_BLOCKS_MAX", 1500)
    one = peak_bytes(lambda: store.import_car(Made(write_car([], wide_files(1, 1000)))))
    many = peak_bytes(lambda: store.import_car(Made(write_car([], wide_files(40, 1000)))))
    assert many < one + (3 << 20)  # of which the spool may keep two


@pytest.mark.parametrize("damage", ["cut", "flip", "behind"])
def test_a_damaged_car_leaves_nothing(store, tmp_path, damage):
    car = b"".join(write_car([CID.of(RAW, b"0")], tiny(300)))
    broken = {"cut": car[:-1], "flip": car[:-1] + b"x", "behind": car + b"\0"}[damage]
    with pytest.raises((CarError, VerificationError)):
        store.import_car(io.BytesIO(broken))
    assert store.usage_bytes == 0
    assert not any(store.has(cid) for cid, _ in tiny(300))
    assert os.listdir(tmp_path / "store" / "tmp") == []
    store.import_car(io.BytesIO(car))
    assert all(store.has(cid) for cid, _ in tiny(300))
