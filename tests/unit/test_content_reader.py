"""Reading any UnixFS DAG: ranges equal slices, listings are complete, hostile DAGs are bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import (
    V0_2015,
    V1_2025,
    CheckedBlocks,
    MissingBlockError,
    dag_cbor,
    dag_json,
    dag_pb,
    follow,
    hamt,
    import_bytes,
    import_directory,
    import_symlink,
    list_directory,
    lookup,
    read_file,
    resolve,
    stat,
    unixfs,
    walk,
)
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.importer import FileBuilder, leaf_block, leaf_digest
from lichen.content.ipld import PartOfBlockError
from lichen.content.murmur3 import murmur3_x64_64
from lichen.content.profile import DirectoryMeasure, Profile
from lichen.content.unixfs import Kind, UnixFS
from lichen.errors import NotFoundError, UserError, VerificationError


class Memory(dict):
    """Blocks in memory that count how often they are read."""

    reads = 0

    def get_block(self, cid):
        self.reads += 1
        return self.get(cid)

    def add(self, codec, block):
        cid = CID.of(codec, block)
        self[cid] = block
        return cid

    def file(self, children, data=None, **changes):
        """Store a file node over (cid, claimed bytes) children."""
        sizes = tuple(size for _, size in children)
        fields = {"file_bytes": sum(sizes) + len(data or b""), "child_bytes": sizes, **changes}
        message = unixfs.encode(UnixFS(Kind.FILE, data=data, **fields))
        return self.add(DAG_PB, dag_pb.encode([Link(cid) for cid, _ in children], message))

    def shard(self, links, fanout=256, hash_type=unixfs.HAMT_MURMUR3):
        message = UnixFS(Kind.HAMT_SHARD, data=b"", fanout=fanout, hash_type=hash_type)
        return self.add(DAG_PB, dag_pb.encode(links, unixfs.encode(message)))


def read(blocks, cid, start=0, end=None):
    return b"".join(bytes(part) for part in read_file(blocks, cid, start, end))


tiny_profiles = st.builds(
    Profile,
    st.just("tiny"),
    st.integers(1, 9),
    st.integers(2, 4),
    st.booleans(),
    st.just(1),
    st.just(DirectoryMeasure.BLOCK_BYTES),
)


@given(tiny_profiles, st.binary(max_size=120), st.integers(0, 130), st.integers(0, 130))
def test_a_range_equals_the_slice(profile, data, start, end):
    blocks = Memory()
    root = import_bytes(data, profile, blocks.__setitem__)
    assert stat(blocks, root.cid).file_bytes == len(data)
    assert read(blocks, root.cid) == data
    assert read(blocks, root.cid, start, end) == data[start:end]


@given(st.binary(min_size=1, max_size=30), st.integers(0, 70), st.integers(0, 70))
def test_nodes_with_data_of_their_own_and_uneven_depth_are_read_in_order(piece, start, end):
    blocks = Memory()
    leaf = blocks.add(RAW, piece)
    inner = blocks.file([(leaf, len(piece))], data=b"inner")
    root = blocks.file([(leaf, len(piece)), (inner, len(piece) + 5)], data=b"root")
    whole = b"root" + piece + b"inner" + piece
    assert read(blocks, root) == whole
    assert read(blocks, root, start, end) == whole[start:end]


def test_a_range_reads_only_the_blocks_it_needs():
    blocks = Memory()
    profile = Profile("tiny", 10, 4, True, 1, DirectoryMeasure.BLOCK_BYTES)
    data = bytes(range(256)) * 10
    root = import_bytes(data, profile, blocks.__setitem__)
    blocks.reads = 0
    assert read(blocks, root.cid, 2000, 2005) == data[2000:2005]
    assert blocks.reads <= 6


def test_a_missing_block_is_named():
    blocks = Memory()
    root = import_bytes(bytes(3 << 20), V1_2025, blocks.__setitem__)
    leaf = CID.of(RAW, bytes(1 << 20))
    del blocks[leaf]
    with pytest.raises(MissingBlockError) as caught:
        read(blocks, root.cid)
    assert caught.value.cid == leaf
    with pytest.raises(MissingBlockError):
        list(walk(blocks, root.cid))


def test_sizes_that_contradict_the_children_are_refused():
    blocks = Memory()
    leaf = blocks.add(RAW, b"12345")
    hostile = [
        blocks.file([(leaf, 4)]),
        blocks.file([(leaf, 5)], file_bytes=6),
        blocks.file([(leaf, 5)], child_bytes=(5, 1)),
        blocks.file([(blocks.file([(leaf, 5)]), 50)]),
    ]
    for cid in hostile:
        with pytest.raises(UserError):
            read(blocks, cid)


def test_a_bomb_without_bytes_is_not_entered():
    blocks = Memory()
    cid = blocks.add(RAW, b"")
    for _ in range(20):
        cid = blocks.file([(cid, 0)] * 100)
    blocks.reads = 0
    assert read(blocks, cid) == b""
    assert blocks.reads <= 2


def test_a_bomb_of_bytes_is_read_no_further_than_asked():
    blocks = Memory()
    cid, size = blocks.add(RAW, b"x" * 100), 100
    for _ in range(7):
        cid, size = blocks.file([(cid, size)] * 100), size * 100
    blocks.reads = 0
    assert read(blocks, cid, size - 150, size - 20) == b"x" * 130
    assert blocks.reads <= 20


def test_a_file_deeper_than_the_bound_is_refused():
    blocks = Memory()
    cid = blocks.add(RAW, b"x")
    for _ in range(200):
        cid = blocks.file([(cid, 1)])
    with pytest.raises(UserError):
        read(blocks, cid)


@pytest.mark.parametrize("profile", [V1_2025, V0_2015])
@pytest.mark.parametrize("count", [0, 3, 5000])
def test_every_entry_is_listed_and_found(profile, count):
    blocks = Memory()
    file = import_bytes(b"x", profile, blocks.__setitem__)
    names = [f"{i:04}-{'n' * 60}-é" for i in range(count)]
    put = blocks.__setitem__
    root = import_directory([file.link(name) for name in names], profile, put)
    kind = Kind.HAMT_SHARD if count == 5000 else Kind.DIRECTORY
    assert stat(blocks, root.cid).kind is kind
    assert sorted(entry.name for entry in list_directory(blocks, root.cid)) == names
    for name in names[::97]:
        assert lookup(blocks, root.cid, name).cid == file.cid
        assert lookup(blocks, root.cid, name + "x") is None
    assert lookup(blocks, root.cid, "absent") is None


def test_a_large_directory_is_listed_from_its_first_shards():
    blocks = Memory()
    file = import_bytes(b"x", V1_2025, blocks.__setitem__)
    links = [file.link(f"{i:05}-{'n' * 60}") for i in range(8000)]
    root = import_directory(links, V1_2025, blocks.__setitem__)
    blocks.reads = 0
    listing = list_directory(blocks, root.cid)
    for _ in range(20):
        next(listing)
    assert blocks.reads <= 5


def test_a_path_leads_through_folders_and_hamts_to_files_and_symlinks():
    blocks = Memory()
    put = blocks.__setitem__
    file = import_bytes(b"hello", V1_2025, put)
    many = [file.link(f"{i:05}-{'n' * 60}") for i in range(5000)]
    inner = import_directory(many, V1_2025, put)
    link = import_symlink("../elsewhere", V1_2025, put)
    root = import_directory([inner.link("many"), link.link("link")], V1_2025, put)
    found = resolve(blocks, root.cid, f"/many/{many[4321].name}/")
    assert (found.cid, found.kind, found.file_bytes) == (file.cid, Kind.RAW, 5)
    assert resolve(blocks, root.cid, "link").target == "../elsewhere"
    assert resolve(blocks, root.cid).is_directory
    for path in ("absent", "link/x", f"many/{many[0].name}/x", "many/absent", ".."):
        with pytest.raises(NotFoundError):
            resolve(blocks, root.cid, path)
    with pytest.raises(UserError):
        resolve(blocks, root.cid, ["a"] * 1000)


def test_a_path_leads_through_the_links_of_dag_cbor_and_dag_json_into_unixfs():
    blocks = Memory()
    file = blocks.add(RAW, b"deep")
    folder = import_directory([Link(file, "a b")], V1_2025, lambda c, b: blocks.update({c: b}))
    inner = blocks.add(DAG_JSON, dag_json.encode({"list": [1, {"unix": folder.cid}], "/": True}))
    top = blocks.add(DAG_CBOR, dag_cbor.encode({"next": inner, "": {"0": inner}}))
    alone = blocks.add(DAG_CBOR, dag_cbor.encode(top))
    assert follow(blocks, top, "next") == (top, inner)
    whole = "/next/list/1/unix/a b"
    assert follow(blocks, top, whole) == (top, inner, folder.cid, file)
    assert follow(blocks, alone, whole) == (alone, top, inner, folder.cid, file)
    for inside in ("list", "list/0", "list/1"):
        with pytest.raises(PartOfBlockError) as caught:
            follow(blocks, top, f"next/{inside}")
        assert caught.value.status == 501
    for nowhere in ("nope", "next/list/2", "next/list/01", "next/list/-1", "next/list/0/x"):
        with pytest.raises(NotFoundError):
            follow(blocks, top, nowhere)


def test_blocks_that_are_but_a_link_are_followed_a_bounded_way():
    blocks = Memory()
    cid = blocks.add(RAW, b"")
    for _ in range(300):
        cid = blocks.add(DAG_JSON, dag_json.encode(cid))
    with pytest.raises(UserError):
        follow(blocks, cid, "x")


def test_hostile_hamts_are_refused():
    blocks = Memory()
    file = blocks.add(RAW, b"x")
    place = murmur3_x64_64(b"name").hex().upper()
    good = blocks.shard([Link(file, place[:2] + "name")])
    assert [entry.name for entry in list_directory(blocks, good)] == ["name"]
    elsewhere = "00" if place[:2] != "00" else "01"
    hostile = [
        blocks.shard([Link(file, elsewhere + "name")]),
        blocks.shard([Link(file, "zzname")]),
        blocks.shard([Link(file, "")]),
        blocks.shard([Link(file, place[:2] + "name")], fanout=257),
        blocks.shard([Link(file, place[:2] + "name")], fanout=1 << 40),
        blocks.shard([Link(file, place[:2] + "name")], hash_type=0x12),
        blocks.shard([Link(file, place[:2])]),
    ]
    for cid in hostile:
        with pytest.raises(UserError):
            list(list_directory(blocks, cid))


def test_a_hamt_that_links_one_shard_everywhere_is_refused_early():
    blocks = Memory()
    cid = blocks.shard([])
    for _ in range(7):
        cid = blocks.shard([Link(cid, f"{slot:02X}") for slot in range(256)])
    blocks.reads = 0
    with pytest.raises(UserError):
        list(list_directory(blocks, cid))
    assert blocks.reads < 20


def test_wrong_bytes_from_an_untrusted_source_are_never_read():
    cid = CID.of(RAW, b"right")
    with pytest.raises(VerificationError):
        read(CheckedBlocks(lambda _: b"wrong"), cid)
    assert read(CheckedBlocks(lambda _: b"right"), cid) == b"right"


def test_what_is_not_unixfs_says_so():
    blocks = Memory()
    for block in (b"", dag_pb.encode((), None), dag_pb.encode((), b"\xff"), b"garbage"):
        with pytest.raises(UserError):
            stat(blocks, blocks.add(DAG_PB, block))
    with pytest.raises(UserError):
        list(list_directory(blocks, blocks.add(RAW, b"x")))
    with pytest.raises(UserError):
        read(blocks, import_directory([], V1_2025, blocks.__setitem__).cid)


def test_a_leaf_hashes_as_its_block():
    for profile in (V1_2025, V0_2015):
        for size in (0, 1, 200, 70000):
            block = leaf_block(b"x" * size, profile)
            assert CID.of(RAW, block).digest == leaf_digest(b"x" * size, profile)
    assert FileBuilder(V1_2025, print).leaf(bytes(32), 1) == CID(RAW, bytes(32))
    assert hamt.prefix_letters(256) == 2
