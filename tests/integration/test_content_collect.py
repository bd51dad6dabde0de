"""Collecting while others go on: at whatever step somebody comes to need content, it stays."""

import io
import random
import threading
import time

import msgspec
import pytest

from lichen.content import (
    V1_2025,
    BlockStore,
    MissingBlockError,
    import_bytes,
    import_directory,
    read_file,
    resolve,
    walk,
)
from lichen.content import collect as collecting
from lichen.content import recent as recently
from lichen.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from lichen.content.keeps import Keeps

GIB = 1 << 30
STEPS_MAX = 10_000


@pytest.fixture
def store(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=GIB) as opened:
        yield opened


@pytest.fixture
def tiny_steps(monkeypatch):
    """Let each step do the least it can."""
    for name in ("ROOTS_PER_STEP", "FILES_PER_STEP", "BLOCKS_UNTIL_LOOK", "BLOCKS_PER_STEP"):
        monkeypatch.setattr(collecting, name, 1)
    monkeypatch.setattr(collecting, "BLOCKS_SEEN_PER_STEP", 2)


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


CHUNKED = msgspec.structs.replace(V1_2025, chunk_bytes=1 << 15)
BIG, SMALL = noise(80_000), b"small"


def folder_in(blocks):
    """A folder of a large and a small file, and one more folder around the small one."""
    large = import_bytes(BIG, CHUNKED, blocks.__setitem__)
    small = import_bytes(SMALL, V1_2025, blocks.__setitem__)
    inner = import_directory([small.link("small")], V1_2025, blocks.__setitem__)
    outer = [large.link("large"), inner.link("inner")]
    return import_directory(outer, V1_2025, blocks.__setitem__).cid


BLOCKS = {}
ROOT = folder_in(BLOCKS)


def put_all(store):
    store.put_blocks(BLOCKS.items())


def is_whole(store):
    try:
        return [cid for cid, block in walk(store, ROOT) if not cid.matches(block)] == []
    except MissingBlockError:
        return False


def reads_back(store):
    large = resolve(store, ROOT, "large").cid
    flat = store.flat_file(large)
    return b"".join(map(bytes, read_file(store, large))) == BIG and (
        flat is None or flat.pread(flat.size) == BIG
    )


def steps(store, collection, count):
    """Take up to `count` steps; tell whether that was all of them."""
    return not all(store.collect_step(collection, 0) for _ in range(count))


def pin_it(store):
    if is_whole(store):
        store.pin(ROOT)
        return True
    return False


def hold_it(store):
    if not is_whole(store):
        return False
    store.hold(ROOT).__enter__()  # let go of by the end of the store
    return is_whole(store)


def add_it_again(store):
    """What is there of it is relied on, the rest is written again."""
    with store.ingest() as ingest:
        for cid, block in BLOCKS.items():
            ingest.put_block(cid, block)
        ingest.commit([ROOT])
    return True


def add_its_root_alone(store):
    """As an incremental upload does: what is below is here already, and is not named."""
    if not is_whole(store):
        return False
    with store.ingest() as ingest:
        wrapped = {}
        folder = import_directory([Around("it")], V1_2025, wrapped.__setitem__).cid
        ingest.put_block(folder, wrapped[folder])
        ingest.commit([folder])
    return is_whole(store)


def Around(name):  # noqa: N802 - reads as what it makes: a link
    from lichen.content import Link

    return Link(ROOT, name, 1)


def add_the_file_again(store):
    with store.ingest() as ingest:
        ingest.add_file(io.BytesIO(BIG), CHUNKED)
        for cid, block in BLOCKS.items():
            if cid.codec != RAW or block == SMALL:
                ingest.put_block(cid, block)
        ingest.commit([ROOT])
    return True


@pytest.mark.parametrize(
    "need", [pin_it, hold_it, add_it_again, add_its_root_alone, add_the_file_again]
)
@pytest.mark.usefixtures("tiny_steps")
def test_at_whatever_step_content_comes_to_be_needed_all_of_it_stays(store, need):
    other = {}
    links = [import_bytes(b"%d" % n, V1_2025, other.__setitem__).link(f"{n}") for n in range(12)]
    pinned = import_directory(links, V1_2025, other.__setitem__).cid
    stayed = gone = at = 0
    while True:
        store.put_blocks(other.items())
        store.pin(pinned)  # takes some steps to mark
        put_all(store)
        with store.collecting() as collection:
            ended = steps(store, collection, at)
            needed = need(store)
            assert not ended or not needed or is_whole(store)
            steps(store, collection, STEPS_MAX)
            if needed:
                assert is_whole(store), (need, at)
                assert reads_back(store)
        stayed += needed
        gone += not needed
        store._keeps._held.clear()
        assert all(store.has(cid) for cid in other)
        for pin in store.pins():
            store.unpin(pin)
        store.collect()
        assert store.usage_bytes == 0
        assert store._index.dropped == frozenset()
        if ended:
            break
        at += 1 + at // 12
    assert stayed > 5
    assert gone > 0 or need in {add_it_again, add_the_file_again}


def test_what_is_needed_between_marking_and_deleting_is_not_deleted(store):
    put_all(store)
    with store.collecting() as collection:
        while not collection.mark(time.monotonic() + 1):
            pass
        store.pin(ROOT)
        store._sweeper.sweep(collection)
        assert is_whole(store)
        steps(store, collection, STEPS_MAX)
    assert is_whole(store)


def test_what_is_being_deleted_is_not_relied_on():
    keeps, relied_on = Keeps(), {}
    block, file = CID.of(RAW, b"x"), CID.of(RAW, b"file").encode()
    keeps.begin_collection()
    assert keeps.doom(frozenset((block.multihash,)))
    assert not keeps.rely(relied_on, block, lambda _: b"")
    assert keeps.doom(frozenset((file,)))
    assert not keeps.rely(relied_on, block, lambda _: file)
    assert keeps.is_doomed(file)
    keeps.spare()
    assert keeps.rely(relied_on, block, lambda _: file)
    assert not keeps.doom(frozenset((file,)))
    assert keeps.take_post() == [block]
    assert keeps.doom(frozenset((file,)))


@pytest.mark.usefixtures("tiny_steps")
def test_an_addition_begun_before_and_committed_during_a_collection_is_whole(store):
    for at in range(40):
        put_all(store)
        with store.ingest() as ingest:
            ingest.add_file(io.BytesIO(BIG), CHUNKED)
            for cid, block in BLOCKS.items():
                ingest.put_block(cid, block)
            with store.collecting() as collection:
                steps(store, collection, at)
                ingest.commit([ROOT])
                steps(store, collection, STEPS_MAX)
        assert is_whole(store)
        assert reads_back(store)
        store.unpin(ROOT)
        store.collect()


def test_a_block_reached_by_a_codec_without_links_first_still_keeps_what_is_below_it(store):
    inner = b"inner"
    blocks = {}
    folder = import_directory(
        [import_bytes(inner, V1_2025, blocks.__setitem__).link("f")], V1_2025, blocks.__setitem__
    ).cid
    store.put_blocks(blocks.items())
    store.pin(CID(RAW, folder.digest))
    store.pin(CID(DAG_CBOR, folder.digest))
    store.pin(folder)
    store.collect()
    assert all(store.has(cid) for cid in blocks)


def test_a_directory_that_is_also_the_content_of_a_file_keeps_what_is_below_it(store):
    """Its block lies in a flat file, and is read from there to find its links."""
    blocks = {}
    small = import_bytes(b"x", V1_2025, blocks.__setitem__)
    links = [small.link(f"{number:04}-{'n' * 60}") for number in range(1000)]
    folder = import_directory(links, V1_2025, blocks.__setitem__).cid
    as_file, _ = store.add_file(io.BytesIO(blocks[folder]))
    assert as_file == CID(RAW, folder.digest)
    store.put_blocks(blocks.items())
    store.pin(CID(DAG_PB, folder.digest))
    store.collect()
    assert store.get_block(small.cid) == b"x"


def test_additions_and_readers_do_not_wait_for_a_collection_to_end(store):
    with store.ingest() as ingest:
        for number in range(3000):
            ingest.add_file(io.BytesIO(b"doomed %d" % number))
        ingest.commit()
    with store.collecting() as collection:
        while collection.phase is not collecting.Phase.BLOCKS:
            assert store.collect_step(collection, 0)
        added, _ = store.add_file(io.BytesIO(b"while it collects"))
        read = store.small_file(added)
        assert store.collect_step(collection, 0)
        assert collection.phase is collecting.Phase.BLOCKS
        steps(store, collection, STEPS_MAX)
    assert read == b"while it collects"
    assert store.small_file(added) == read  # what was added meanwhile stays


def test_what_was_used_lately_goes_last(store, monkeypatch):
    monkeypatch.setattr(store, "_recent", recently.Recent(64))
    files = [store.add_file(io.BytesIO(noise(100_000, seed)))[0] for seed in range(6)]
    small = [store.add_file(io.BytesIO(b"%d" % n))[0] for n in range(200)]  # forgets the files
    assert store.flat_file(files[2]) is not None
    with store.collecting(spare_recent=True) as collection:
        steps(store, collection, STEPS_MAX)
    assert [store.has(cid) for cid in files] == [False, False, True, False, False, False]
    assert store.has(small[-1])
    assert not store.has(small[0])


def test_a_collection_ends_when_enough_is_free(store):
    files = [store.add_file(io.BytesIO(noise(100_000, seed)))[0] for seed in range(10)]
    with store.collecting(bytes_min=250_000) as collection:
        steps(store, collection, STEPS_MAX)
        assert collection.freed_bytes == 300_000
    assert sum(store.has(cid) for cid in files) == 7
    assert store._index.dropped == frozenset()


@pytest.mark.usefixtures("tiny_steps")
def test_a_collection_broken_off_at_any_step_leaves_a_store_that_opens_whole(tmp_path):
    kept = noise(70_000, 1)
    for at in range(0, 60, 3):
        with BlockStore.open(tmp_path / "store", capacity_bytes=GIB) as store:
            put_all(store)
            pinned, _ = store.add_file(io.BytesIO(kept), pin=True)
            with store.collecting() as collection:
                steps(store, collection, at)
        with BlockStore.open(tmp_path / "store", capacity_bytes=GIB) as store:
            assert store.flat_file(pinned).pread(70_000) == kept
            for cid, block in BLOCKS.items():
                assert store.get_block(cid) in (block, None)
            if at % 2:
                put_all(store)  # what is gone comes back, whatever of it was left
                assert is_whole(store)
                assert reads_back(store)
            store.collect()
            assert store.usage_bytes == len(kept)
            assert store._index.dropped == frozenset()


def test_closing_a_store_ends_a_collection_under_way(tmp_path):
    store = BlockStore.open(tmp_path / "store", capacity_bytes=GIB)
    with store.ingest() as ingest:
        for number in range(2000):
            ingest.add_file(io.BytesIO(b"doomed %d" % number))
        ingest.commit()
    begun, ended = threading.Event(), threading.Event()

    def collect():
        with store.collecting() as collection:
            while store.collect_step(collection, 0):
                begun.set()
        ended.set()

    thread = threading.Thread(target=collect)
    thread.start()
    assert begun.wait(10)
    store.close()
    assert ended.wait(10)
    thread.join()


def test_a_collection_larger_than_its_memory_goes_on_disk(store, monkeypatch):
    monkeypatch.setattr(collecting.ScratchTable.__init__, "__defaults__", (10,))
    files = []
    with store.ingest() as ingest:
        for number in range(400):
            files.append(ingest.add_file(io.BytesIO(b"file %d" % number)))
            ingest.add_file(io.BytesIO(b"doomed %d" % number))
        links = [root.link(f"f{number}") for number, root in enumerate(files)]
        folder = import_directory(links, V1_2025, ingest.stage_node).cid
        ingest.commit([folder])
    store.collect()
    assert all(store.has(root.cid) for root in files)
    assert not store.has(CID.of(RAW, b"doomed 1"))
