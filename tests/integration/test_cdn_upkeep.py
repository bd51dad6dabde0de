"""A store that fills up is collected by itself: what nobody keeps goes, the rest is untouched."""

import asyncio
import io
import random
import time

import pytest

from lichen.cdn import upkeep as upkeeping
from lichen.cdn.upkeep import HIGH_PERCENT, LOW_PERCENT, Upkeep
from lichen.content import BlockStore, DiskFullError
from lichen.content.pins import Pin
from lichen.content.recent import Recent

MIB = 1 << 20
ALICE = b"a" * 20


@pytest.fixture
def store(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=10 * MIB) as opened:
        yield opened


def add(store, seed, *, pin=False):
    return store.add_file(io.BytesIO(random.Random(seed).randbytes(MIB)), pin=pin)[0]


async def test_above_the_high_mark_what_nobody_keeps_goes_until_the_low_mark(store):
    kept = [add(store, seed, pin=True) for seed in range(3)]
    upkeep = Upkeep(store)
    cached = [add(store, seed) for seed in range(3, 7)]
    await upkeep.look()
    assert upkeep.collections == 0  # 70 % are below the mark
    cached.append(add(store, 7))
    assert store.filled_percent() >= HIGH_PERCENT
    await upkeep.look()
    assert store.filled_percent() <= LOW_PERCENT
    assert all(store.flat_file(cid) is not None for cid in kept)
    assert sum(store.has(cid) for cid in cached) == 3
    assert upkeep.freed_bytes == 2 * MIB
    assert upkeep.counters("x")["x_content_collected_bytes_total"] == 2 * MIB
    assert upkeep.counters("x")["x_content_collecting"] == 0


async def test_what_was_used_lately_goes_only_when_the_rest_is_not_enough(store):
    cached = [add(store, seed) for seed in range(8)]
    store._recent = Recent()  # as after a restart
    used = [cached[1], cached[6]]
    for cid in used:
        assert store.flat_file(cid) is not None
    upkeep = Upkeep(store)
    await upkeep.look()
    assert [cid for cid in used if not store.has(cid)] == []
    assert store.filled_percent() <= LOW_PERCENT
    assert upkeep.collections == 1
    for cid in cached:
        store.flat_file(cid)
    for seed in range(8, 11):
        add(store, seed)
    await upkeep.look()
    assert store.filled_percent() <= LOW_PERCENT
    assert upkeep.collections == 3  # a second pass took of what was used lately, too


async def test_what_is_needed_stays_without_a_pin(store):
    cached = [add(store, seed) for seed in range(8)]
    store._recent = Recent()
    upkeep = Upkeep(store, lambda: cached[:6])
    await upkeep.look()
    assert [store.has(cid) for cid in cached] == [True] * 6 + [False] * 2


async def test_an_addition_without_room_has_the_next_one_find_some(store):
    for seed in range(7):
        add(store, seed)
    with pytest.raises(DiskFullError):
        store.add_file(io.BytesIO(random.Random(0).randbytes(7 * MIB // 2)))
    upkeep = Upkeep(store)
    await upkeep.look()
    assert upkeep.collections == 0  # the refusal came before; what counts is what comes now
    with pytest.raises(DiskFullError):
        store.add_file(io.BytesIO(random.Random(0).randbytes(7 * MIB // 2)))
    await upkeep.look()
    store.add_file(io.BytesIO(random.Random(0).randbytes(7 * MIB // 2)))


async def test_a_store_full_of_pins_is_not_collected_again_and_again(store, monkeypatch):
    for seed in range(8):
        add(store, seed, pin=True)
    upkeep = Upkeep(store)
    await upkeep.look()
    await upkeep.look()
    assert upkeep.collections == 2  # both passes, once
    monkeypatch.setattr(upkeeping, "FRUITLESS_S", 0.0)
    upkeep = Upkeep(store)
    await upkeep.look()
    await upkeep.look()
    assert upkeep.collections == 4


async def test_pins_that_have_ended_are_let_go_of(store):
    cid, other = add(store, 1), add(store, 2)
    now_ms = time.time_ns() // 1_000_000
    store.pin_for(ALICE, Pin(cid, MIB, now_ms - 10, now_ms - 1))
    store.pin_for(ALICE, Pin(other, MIB, now_ms - 10, now_ms + 60_000))
    upkeep = Upkeep(store)
    await upkeep.look()
    assert upkeep.expired_pins == 1
    assert [pin.cid for pin in store.pins_of(ALICE)] == [other]
    assert store.pinned_bytes_of(ALICE) == MIB
    assert not store.is_pinned(cid)


async def test_a_collection_rests_most_of_the_time_and_ends_with_its_process(store):
    with store.ingest() as ingest:
        for number in range(6000):
            ingest.add_file(io.BytesIO(b"%d " % number * 300))
        ingest.commit()
    upkeep = Upkeep(store)
    cpu_s, started_s = time.process_time(), time.monotonic()
    task = asyncio.ensure_future(upkeep.look())
    turns = 0
    while not task.done() and turns < 2000:
        await asyncio.sleep(0.001)
        turns += 1
    assert store.filled_percent() <= LOW_PERCENT or not task.done()
    assert time.process_time() - cpu_s < (time.monotonic() - started_s) * 0.8
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not upkeep.is_collecting
