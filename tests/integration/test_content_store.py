"""The block store: what goes in comes out, whole or not at all, and stays while it is needed."""

import errno
import io
import os
import random
import threading

import msgspec
import pytest

from lichen.content import (
    PROFILES,
    V0_2015,
    V1_2025,
    BlockStore,
    CarReader,
    DiskFullError,
    dag_pb,
    export_car,
    import_bytes,
    import_directory,
    list_directory,
    read_file,
    resolve,
    stat,
    write_car,
)
from lichen.content.cid import CID, DAG_PB, IDENTITY, RAW
from lichen.content.dag_pb import Link
from lichen.content.disk import StoreBusyError
from lichen.errors import (
    LichenError,
    LimitError,
    MachineError,
    NotFoundError,
    PeerUnavailableError,
    UserError,
    VerificationError,
)

GIB = 1 << 30
MIB = 1 << 20
profiles = pytest.mark.parametrize("profile", PROFILES.values(), ids=str)


@pytest.fixture
def store(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=GIB) as opened:
        yield opened


def noise(size, seed=1):
    """Return bytes without a short period, the same for the same arguments."""
    return random.Random(f"{seed}/{size}").randbytes(size)


def blocks_of(data, profile):
    blocks = {}
    root = import_bytes(data, profile, blocks.__setitem__)
    return root.cid, blocks


def content(store, cid):
    return b"".join(read_file(store, cid))


def leftovers(store):
    return os.listdir(store.temporary_folder)


def flat_names(tmp_path):
    return [name for _, _, names in os.walk(tmp_path / "store" / "flat") for name in names]


@profiles
@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 262145, MIB, MIB + 1, 5 * MIB + 7])
def test_an_added_file_is_there_as_blocks_and_as_content(store, profile, size):
    data = noise(size)
    cid, length = store.add_file(io.BytesIO(data), profile)
    expected, blocks = blocks_of(data, profile)
    assert (cid, length) == (expected, size)
    for each, block in blocks.items():
        assert store.has(each)
        assert store.get_block(each) == block
        assert store.size(each) == len(block)
    assert content(store, cid) == data
    flat, small = store.flat_file(cid), store.small_file(cid)
    if size <= 65536:
        assert (flat, small) == (None, data)
    else:
        assert small is None
        assert (flat.size, flat.offset, flat.pread(size)) == (size, 0, data)
    assert leftovers(store) == []


@profiles
def test_ranges_of_the_store_equal_slices(store, profile):
    data = noise(3 * MIB)
    cid, _ = store.add_file(io.BytesIO(data), profile)
    for start, end in [(0, 1), (MIB - 1, MIB + 1), (5, 3 * MIB), (MIB, 2 * MIB), (9 * MIB, None)]:
        assert b"".join(map(bytes, read_file(store, cid, start, end))) == data[start:end]


def test_a_stream_without_readinto_that_gives_little_at_a_time_is_added_whole(store):
    class Trickle:
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def read(self, size):
            return self.data.read(min(size, 7001))

    data = noise(2 * MIB + 5)
    cid, _ = store.add_file(Trickle(data))
    assert cid == blocks_of(data, V1_2025)[0]
    assert store.flat_file(cid).pread(len(data)) == data


def test_both_versions_and_every_codec_name_the_same_bytes(store):
    cid, _ = store.add_file(io.BytesIO(noise(2 * MIB)), V0_2015)
    assert store.get_block(cid.as_v1()) == store.get_block(cid)
    assert store.flat_file(cid.as_v1()).size == store.flat_file(cid).size
    as_raw = CID(RAW, cid.digest)
    assert store.get_block(as_raw) == store.get_block(cid)
    assert store.flat_file(as_raw) is None
    assert store.small_file(as_raw) == store.get_block(cid)


def test_a_raw_leaf_can_be_sent_from_inside_its_file(store):
    data = noise(3 * MIB)
    store.add_file(io.BytesIO(data))
    leaf = CID.of(RAW, data[MIB : 2 * MIB])
    flat = store.flat_file(leaf)
    assert (flat.offset, flat.size, flat.pread(MIB)) == (MIB, MIB, data[MIB : 2 * MIB])


def test_blocks_are_verified_before_they_are_stored(store):
    with pytest.raises(VerificationError):
        store.put_block(CID.of(RAW, b"right"), b"wrong")
    with pytest.raises(LimitError):
        store.put_block(CID.of(RAW, bytes(5 * MIB)), bytes(5 * MIB))
    assert store.usage_bytes == 0


@pytest.mark.parametrize("size", [0, 10, 65537, MIB])
def test_a_block_put_is_there(store, size):
    data = noise(size)
    cid = CID.of(RAW, data)
    store.put_block(cid, data)
    store.put_block(cid, data)
    assert store.get_block(cid) == data
    assert store.usage_bytes == size


def test_an_identity_cid_is_always_here_and_never_stored(store):
    cid = CID(RAW, b"inline", IDENTITY)
    store.put_block(cid, b"inline")
    assert (store.get_block(cid), store.size(cid), store.usage_bytes) == (b"inline", 6, 0)


def test_a_dag_pb_block_that_is_no_unixfs_is_kept_as_a_block(store):
    for block in (b"garbage", dag_pb.encode([Link(CID.of(RAW, b"x"))], None)):
        cid = CID.of(DAG_PB, block)
        store.put_block(cid, block)
        assert store.get_block(cid) == block
        assert store.small_file(cid) is None


def test_everything_is_there_after_reopening(tmp_path):
    data = noise(3 * MIB)
    with BlockStore.open(tmp_path, capacity_bytes=GIB) as store:
        big, _ = store.add_file(io.BytesIO(data), pin=True)
        small, _ = store.add_file(io.BytesIO(b"small"))
        used = store.usage_bytes
    with BlockStore.open(tmp_path, capacity_bytes=GIB) as store:
        assert store.flat_file(big).pread(len(data)) == data
        assert store.small_file(small) == b"small"
        assert store.usage_bytes == used
        assert store.pins() == [big]


def test_a_second_process_is_told_that_the_store_is_open(tmp_path):
    with BlockStore.open(tmp_path, capacity_bytes=GIB), pytest.raises(StoreBusyError) as caught:
        BlockStore.open(tmp_path, capacity_bytes=GIB)
    assert caught.value.hint
    BlockStore.open(tmp_path, capacity_bytes=GIB).close()


# Trees


def make_tree(folder):
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "index.html").write_bytes(b"<h1>hello</h1>")
    (folder / "sub" / "big.bin").write_bytes(noise(2 * MIB))
    (folder / "sub" / "same").write_bytes(b"<h1>hello</h1>")
    (folder / ".secret").write_bytes(b"hidden")
    (folder / "link").symlink_to("sub/big.bin")
    (folder / "outside").symlink_to("/etc")
    return folder


@profiles
def test_a_tree_is_added_without_hidden_files_and_without_following_symlinks(
    store, tmp_path, profile
):
    folder = make_tree(tmp_path / "site")
    heard = []
    added = store.add_tree(folder, profile, progress=heard.append)
    assert (added.files, added.bytes) == (3, 2 * MIB + 28)
    assert [each.files for each in heard] == [1, 2, 3]
    names = [entry.name for entry in list_directory(store, added.cid)]
    assert names == ["index.html", "link", "outside", "sub"]
    assert resolve(store, added.cid, "link").target == "sub/big.bin"
    assert resolve(store, added.cid, "outside").target == "/etc"
    big = resolve(store, added.cid, "sub/big.bin")
    assert store.flat_file(big.cid).pread(big.file_bytes) == (folder / "sub/big.bin").read_bytes()
    assert resolve(store, added.cid, "sub/empty").is_directory
    with_hidden = store.add_tree(folder, profile, hidden=True)
    assert resolve(store, with_hidden.cid, ".secret").file_bytes == 6


def test_a_tree_added_again_takes_no_more_space(store, tmp_path):
    folder = make_tree(tmp_path / "site")
    first = store.add_tree(folder)
    used = store.usage_bytes
    assert store.add_tree(folder) == first
    assert store.usage_bytes == used


def test_a_single_file_is_its_own_root(store, tmp_path):
    (tmp_path / "a").write_bytes(b"alone")
    assert store.add_tree(tmp_path / "a").cid == CID.of(RAW, b"alone")


def test_a_tree_with_something_that_is_no_file_is_refused_whole(store, tmp_path):
    folder = make_tree(tmp_path / "site")
    os.mkfifo(folder / "zz-pipe")
    with pytest.raises(UserError, match="zz-pipe"):
        store.add_tree(folder)
    assert (store.usage_bytes, leftovers(store)) == (0, [])
    with pytest.raises(NotFoundError):
        store.add_tree(tmp_path / "absent")


def test_a_name_that_is_not_utf8_is_refused(store, tmp_path):
    os.makedirs(os.fsencode(tmp_path / "site"))
    with open(os.fsencode(tmp_path / "site") + b"/\xff", "wb"):
        pass
    with pytest.raises(UserError, match="UTF-8"):
        store.add_tree(tmp_path / "site")


# CARs


def car_of(data, profile):
    root, blocks = blocks_of(data, profile)

    class Memory:
        get_block = staticmethod(blocks.get)

    return root, b"".join(export_car(Memory, root)), blocks


@profiles
@pytest.mark.parametrize("size", [1, 65536, 65537, MIB + 1, 5 * MIB])
def test_a_car_of_a_file_is_laid_out_flat(store, profile, size, tmp_path):
    data = noise(size)
    root, car, blocks = car_of(data, profile)
    assert store.import_car(io.BytesIO(car)) == (root,)
    for each, block in blocks.items():
        assert store.get_block(each) == block
    if size > 65536:
        assert store.flat_file(root).pread(size) == data
        assert flat_names(tmp_path) == [str(root.as_v1())]
        assert store.usage_bytes < size * 1.01 + 1000
    else:
        assert store.small_file(root) == data
    assert b"".join(export_car(store, root)) == car
    assert leftovers(store) == []


@profiles
def test_a_deployed_tree_travels_by_car_and_is_laid_out_flat(store, tmp_path, profile):
    folder = make_tree(tmp_path / "site")
    (folder / "second.bin").write_bytes(noise(MIB + 9))
    with BlockStore.open(tmp_path / "other", capacity_bytes=GIB) as other:
        added = other.add_tree(folder, profile)
        car = b"".join(export_car(other, added.cid))
    store.import_car(io.BytesIO(car), pin=True)
    for path in ("sub/big.bin", "second.bin"):
        cid = resolve(store, added.cid, path).cid
        assert store.flat_file(cid).pread(10 * MIB) == (folder / path).read_bytes()
    assert store.small_file(resolve(store, added.cid, "index.html").cid) == b"<h1>hello</h1>"
    assert b"".join(export_car(store, added.cid)) == car
    assert store.pins() == [added.cid.as_v1()]


def test_a_car_imported_again_writes_nothing(store, tmp_path):
    _, car, _ = car_of(noise(3 * MIB), V1_2025)
    store.import_car(io.BytesIO(car))
    used, names = store.usage_bytes, flat_names(tmp_path)
    store.import_car(io.BytesIO(car))
    assert (store.usage_bytes, flat_names(tmp_path)) == (used, names)


def test_a_dag_may_come_in_several_cars_in_any_order(store):
    data = noise(4 * MIB)
    root, car, _ = car_of(data, V1_2025)
    blocks = list(CarReader(io.BytesIO(car)))
    for part in ([blocks[3]], blocks[:2], [blocks[4], blocks[2]]):
        store.import_car(io.BytesIO(b"".join(write_car([root], part))))
    assert content(store, root) == data


def test_blocks_put_in_reverse_in_one_batch_still_become_a_flat_file(store):
    data = noise(4 * MIB)
    root, blocks = blocks_of(data, V1_2025)
    store.put_blocks(reversed(blocks.items()))
    assert store.flat_file(root).pread(len(data)) == data


def test_files_that_share_leaves_in_one_car_are_all_laid_out(store):
    parts = [noise(MIB, seed) for seed in range(4)]
    blocks, links = {}, []
    for name, chosen in {"a": parts[:2], "b": parts, "c": parts[2:], "d": parts[:1] * 2}.items():
        links.append(import_bytes(b"".join(chosen), V1_2025, blocks.__setitem__).link(name))
    root = import_directory(links, V1_2025, blocks.__setitem__)
    store.import_car(io.BytesIO(b"".join(write_car([root.cid], reversed(blocks.items())))))
    for link in links:
        flat = store.flat_file(link.cid)
        assert flat.pread(10 * MIB) == content(store, link.cid)
    assert content(store, links[1].cid) == b"".join(parts)


@pytest.mark.parametrize("cut", [1, 100, MIB + 500])
def test_a_car_that_breaks_off_leaves_nothing(store, tmp_path, cut):
    _, car, blocks = car_of(noise(3 * MIB), V1_2025)
    with pytest.raises(UserError):
        store.import_car(io.BytesIO(car[:-cut]))
    damaged = car[:-cut] + bytes([car[-cut] ^ 1]) + car[len(car) - cut + 1 :]
    with pytest.raises(LichenError):
        store.import_car(io.BytesIO(damaged))
    assert not any(store.has(cid) for cid in blocks)
    assert (store.usage_bytes, leftovers(store), flat_names(tmp_path)) == (0, [], [])


def test_a_bomb_in_a_car_is_not_blown_up_on_disk(store, tmp_path):
    leaf = bytes(MIB)
    data = leaf * 100
    root, car, blocks = car_of(data, V1_2025)
    assert len(blocks) == 2
    store.import_car(io.BytesIO(car))
    assert store.flat_file(root) is None
    assert stat(store, root).file_bytes == len(data)
    assert store.usage_bytes < 2 * MIB


@profiles
def test_a_file_that_is_a_leaf_of_a_larger_one_is_flat_too(store, profile):
    first, second = noise(profile.chunk_bytes), noise(70_000)
    store.add_file(io.BytesIO(first + second), profile)
    root, car, _ = car_of(second, profile)
    store.import_car(io.BytesIO(car))
    flat = store.flat_file(root)
    assert (flat.offset, flat.pread(flat.size)) == (len(first), second)


def test_many_small_bombs_in_a_car_are_together_bounded(store):
    blocks = {}
    leaf = noise(MIB)
    for repeats in range(2, 14):
        import_bytes(leaf * repeats, V1_2025, blocks.__setitem__)
    root = next(iter(blocks))
    store.import_car(io.BytesIO(b"".join(write_car([root], blocks.items()))))
    assert store.usage_bytes < 2 * MIB + 16 * MIB + 2 * MIB
    for cid in blocks:
        assert store.has(cid)


def test_a_file_of_very_many_tiny_leaves_stays_blocks(store):
    tiny = msgspec.structs.replace(V1_2025, chunk_bytes=1, width=2048)
    blocks = {}
    root = import_bytes(b"x" * 70_000, tiny, blocks.__setitem__).cid
    small = import_bytes(b"x" * 2_000, tiny, blocks.__setitem__).cid
    store.put_blocks(blocks.items())
    assert (store.flat_file(root), store.small_file(small)) == (None, None)
    assert content(store, root) == b"x" * 70_000
    assert content(store, small) == b"x" * 2_000


def test_a_small_file_in_a_few_blocks_is_read_as_small(store):
    profile = msgspec.structs.replace(V1_2025, chunk_bytes=1000)
    blocks = {}
    root = import_bytes(noise(40_000), profile, blocks.__setitem__).cid
    store.put_blocks(blocks.items())
    assert store.small_file(root) == noise(40_000)


def test_a_changed_file_travels_in_full_and_is_laid_out_again(store):
    data = noise(40 * MIB)
    store.add_file(io.BytesIO(data))
    changed = data[:-1] + b"!"
    root, car, _ = car_of(changed, V1_2025)
    store.import_car(io.BytesIO(car))
    assert store.flat_file(root).pread(len(changed)) == changed


# Keeping and removing


def test_collecting_keeps_what_pins_reach_and_nothing_else(store, tmp_path):
    kept = store.add_tree(make_tree(tmp_path / "kept"), pin=True)
    before = store.usage_bytes
    doomed, _ = store.add_file(io.BytesIO(noise(2 * MIB, 5)))
    small, _ = store.add_file(io.BytesIO(b"doomed too"))
    freed = store.collect()
    assert freed >= 2 * MIB
    assert store.usage_bytes == before
    assert not store.has(doomed)
    assert not store.has(small)
    assert store.flat_file(doomed) is None
    big = resolve(store, kept.cid, "sub/big.bin").cid
    assert flat_names(tmp_path) == [str(big)]
    assert store.flat_file(big) is not None
    assert store.unpin(kept.cid)
    assert not store.unpin(kept.cid)
    store.collect()
    assert (store.usage_bytes, flat_names(tmp_path)) == (0, [])


def test_a_file_whose_leaves_another_needs_stays(store):
    shared, rest = noise(MIB, 1), noise(MIB, 2)
    first, _ = store.add_file(io.BytesIO(shared + rest))
    second, _ = store.add_file(io.BytesIO(shared + rest[:5000]), pin=True)
    store.collect()
    assert content(store, second) == shared + rest[:5000]
    assert content(store, first) == shared + rest


def test_removing_spares_pins_and_refuses_pinned_content(store):
    data = noise(2 * MIB)
    cid, _ = store.add_file(io.BytesIO(data), pin=True)
    other, _ = store.add_file(io.BytesIO(b"other"))
    with pytest.raises(UserError, match="pinned"):
        store.remove(cid)
    store.unpin(cid)
    assert store.remove(cid) >= 2 * MIB
    assert not store.has(cid)
    assert store.small_file(other) == b"other"
    assert store.remove(cid) == 0


def test_what_is_being_sent_or_held_survives_a_collection(store):
    data = noise(2 * MIB)
    cid, _ = store.add_file(io.BytesIO(data))
    flat = store.flat_file(cid)
    with store.hold(cid):
        assert store.collect() == 0
        assert content(store, cid) == data
    assert store.collect() > 0
    assert not store.has(cid)
    assert flat.pread(len(data)) == data


def test_what_an_addition_relies_on_survives_a_collection(store):
    data = noise(2 * MIB)
    cid, _ = store.add_file(io.BytesIO(data))
    with store.ingest() as ingest:
        ingest.add_file(io.BytesIO(data))
        assert store.collect() == 0
        ingest.commit([cid])
    store.collect()
    assert content(store, cid) == data


def test_an_addition_that_is_not_committed_leaves_nothing(store, tmp_path):
    with store.ingest() as ingest:
        root = ingest.add_file(io.BytesIO(noise(2 * MIB)))
        ingest.put_block(CID.of(RAW, b"x"), b"x")
        assert ingest.get_block(CID.of(RAW, b"x")) == b"x"
    assert not store.has(root.cid)
    assert (store.usage_bytes, leftovers(store), flat_names(tmp_path)) == (0, [], [])


def test_open_files_are_bounded_and_never_closed_under_a_transfer(store):
    store._flats._open_files_max = 4
    cids = [store.add_file(io.BytesIO(noise(70_000, seed)))[0] for seed in range(12)]
    in_use = [store.flat_file(cid) for cid in cids]
    assert len(store._flats._open) == 4
    assert all(len(flat.pread(flat.size)) == flat.size for flat in in_use)
    fds = {flat.fd for flat in in_use}
    del in_use
    assert sum(is_open(fd) for fd in fds) == 4


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_threads_may_add_read_and_collect_at_once(store):
    pinned = [store.add_file(io.BytesIO(noise(100_000, n)), pin=True)[0] for n in range(3)]
    failures = []

    def guarded(work):
        try:
            for turn in range(15):
                work(turn)
        except Exception as error:  # noqa: BLE001 - reported by the assertion below
            failures.append(error)

    def adding(turn):
        data = noise(90_000, turn)
        with store.ingest() as ingest:
            root = ingest.add_file(io.BytesIO(data))
            ingest.commit([root.cid])
        assert content(store, root.cid) == data
        store.unpin(root.cid)

    works = [adding, adding, lambda _: store.collect(), lambda n: content(store, pinned[n % 3])]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    store.collect()
    assert store.usage_bytes == sum(map(len, (content(store, cid) for cid in pinned)))


# No room


def test_beyond_its_capacity_the_store_refuses_and_stays_whole(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=3 * MIB) as store:
        cid, _ = store.add_file(io.BytesIO(noise(2 * MIB)))
        used = store.usage_bytes
        too_much = noise(2 * MIB, 2)
        _, car, _ = car_of(too_much, V1_2025)
        for attempt in (
            lambda: store.add_file(io.BytesIO(too_much)),
            lambda: store.import_car(io.BytesIO(car)),
            lambda: store.put_blocks(
                (CID.of(RAW, b"%d" % i * 9000), b"%d" % i * 9000) for i in range(500)
            ),
        ):
            with pytest.raises(DiskFullError) as caught:
                attempt()
            assert caught.value.hint
            assert (store.usage_bytes, leftovers(store)) == (used, [])
        assert flat_names(tmp_path) == [str(cid)]
        store.remove(cid)
        store.add_file(io.BytesIO(too_much))


def fill(store):
    for number in range(100):
        store.add_file(io.BytesIO(noise(50_000, number)))


def test_a_full_index_refuses_and_stays_whole(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=GIB, map_bytes=1 << 20) as store:
        kept, _ = store.add_file(io.BytesIO(b"kept"), pin=True)
        with pytest.raises(DiskFullError):
            fill(store)
        assert store.small_file(kept) == b"kept"
        assert store.collect() > 0
        assert store.small_file(kept) == b"kept"
        again, _ = store.add_file(io.BytesIO(b"room again"))
        assert store.small_file(again) == b"room again"


def test_a_failing_disk_is_told_apart_from_a_full_one(store, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(MachineError, match="Input/output") as caught:
        store.add_file(io.BytesIO(noise(2 * MIB)))
    assert not isinstance(caught.value, DiskFullError)
    monkeypatch.undo()
    assert (store.usage_bytes, leftovers(store)) == (0, [])
    store.add_file(io.BytesIO(noise(2 * MIB)))


def test_additions_together_keep_a_bounded_number_of_blocks_in_mind(tmp_path, monkeypatch):
    monkeypatch.setattr("lichen.content.store.NOTES_MAX", 10)
    blocks = [(CID.of(RAW, b"%d" % number), b"%d" % number) for number in range(20)]
    with BlockStore.open(tmp_path / "small", capacity_bytes=2**20) as store:
        with store.ingest() as first, store.ingest() as second:
            for cid, block in blocks[:8]:
                first.put_block(cid, block)
            second.put_block(*blocks[8])
            second.put_block(*blocks[9])
            with pytest.raises(PeerUnavailableError, match="at once"):
                second.put_block(*blocks[10])
            first.commit()
        store.put_blocks(blocks[8:16])
        assert all(store.has(cid) for cid, _ in blocks[:16])
