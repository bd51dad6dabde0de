"""dag-pb, UnixFS, DAG-CBOR links and murmur3: round trips, vectors, and hostile bytes."""

import contextlib

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import dag_cbor, dag_pb, hamt, protobuf, unixfs
from lichen.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from lichen.content.dag import links_of
from lichen.content.dag_pb import Link
from lichen.content.murmur3 import murmur3_x64_64
from lichen.content.unixfs import Kind, Mtime, UnixFS
from lichen.errors import UserError

uint64 = st.integers(0, 2**64 - 1)
cids = st.builds(
    lambda data, codec, v0: CID.of(DAG_PB if v0 else codec, data).as_version(0 if v0 else 1),
    st.binary(max_size=8),
    st.sampled_from([RAW, DAG_PB, DAG_CBOR]),
    st.booleans(),
)
names = st.none() | st.text(st.characters(codec="utf-8"), max_size=30)
links = st.builds(Link, cids, names, st.none() | uint64)
nodes = st.builds(
    UnixFS,
    st.sampled_from(Kind),
    st.none() | st.binary(max_size=50),
    st.none() | uint64,
    st.lists(uint64, max_size=5).map(tuple),
    st.none() | uint64,
    st.none() | uint64,
    st.none() | st.integers(0, 2**32 - 1),
    st.none()
    | st.builds(Mtime, st.integers(-(2**63), 2**63 - 1), st.none() | st.integers(0, 999_999_999)),
)


@given(st.lists(links, max_size=6), st.none() | st.binary(max_size=60))
def test_a_dag_pb_node_reads_back(some_links, data):
    block = dag_pb.encode(some_links, data)
    assert dag_pb.decode(block) == dag_pb.Node(tuple(some_links), data)
    assert links_of(CID.of(DAG_PB, block), block) == [link.cid for link in some_links]


@given(nodes)
def test_a_unixfs_message_with_mode_and_mtime_reads_back(node):
    assert unixfs.decode(unixfs.encode(node)) == node


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_a_user_error(data):
    for decode in (dag_pb.decode, unixfs.decode, dag_cbor.links):
        with contextlib.suppress(UserError):
            decode(data)


@given(st.lists(links, max_size=3), st.binary(max_size=30), st.data())
def test_a_damaged_node_is_read_or_refused(some_links, data, draw):
    block = bytearray(dag_pb.encode(some_links, data))
    position = draw.draw(st.integers(0, len(block) - 1))
    block[position] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        dag_pb.decode(bytes(block))


def test_data_before_links_is_read_and_interleaving_is_not():
    link = dag_pb.encode_link(Link(CID.of(RAW, b"x"), "x", 1))
    data = protobuf.bytes_field(1, b"d")
    assert dag_pb.decode(data + link) == dag_pb.decode(link + data)
    for block in (link + data + link, data + data, data + link + data):
        with pytest.raises(UserError):
            dag_pb.decode(block)


def test_link_fields_out_of_order_or_twice_or_without_a_hash_are_refused():
    cid = protobuf.bytes_field(1, CID.of(RAW, b"x").encode())
    name, size = protobuf.bytes_field(2, b"n"), protobuf.varint_field(3, 7)
    for link in (name + cid, size + name, cid + cid, name + size, cid + size + name):
        with pytest.raises(UserError):
            dag_pb.decode(protobuf.bytes_field(2, link))


def test_a_number_not_in_its_shortest_form_is_refused():
    with pytest.raises(UserError):
        dag_pb.decode(b"\x0a\x81\x00d")


def test_packed_child_sizes_are_read():
    packed = protobuf.varint_field(1, 2) + protobuf.bytes_field(4, b"\x05\x80\x01")
    assert unixfs.decode(packed).child_bytes == (5, 128)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 5000, 262144])
def test_a_wrapped_leaf_is_the_dag_pb_block_of_its_chunk(length):
    before, behind = unixfs.wrap_leaf(length)
    chunk = b"c" * length
    message = UnixFS(Kind.FILE, data=chunk or None, file_bytes=length)
    assert before + chunk + behind == dag_pb.encode((), unixfs.encode(message))


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", "0000000000000000"),
        (b"foo", "e271865701f54561"),
        (b"The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c"),
        (b"0123456789abcdef", "4be06d94cf4ad1a7"),
    ],
)
def test_murmur3_gives_the_reference_digests(text, digest):
    assert murmur3_x64_64(text).hex() == digest


def test_hamt_positions_take_the_hash_from_its_most_significant_bit():
    name_hash = bytes.fromhex("e34bbc7bbc071b6c")
    assert [hamt.position(name_hash, depth) for depth in range(8)] == list(name_hash)
    assert [hamt.position(name_hash, depth, 16) for depth in range(3)] == [0xE, 0x3, 0x4]
    with pytest.raises(UserError):
        hamt.position(name_hash, 8)


@given(st.recursive(st.none() | st.integers(-5, 2**40) | st.text(max_size=5) | cids, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=4), x, max_size=4), max_leaves=12))  # fmt: skip
def test_links_of_dag_cbor_are_found_in_order(value):
    found = []

    def plain(item):
        if isinstance(item, CID):
            found.append(item)
            return item.encode()
        if isinstance(item, list):
            return [plain(each) for each in item]
        if isinstance(item, dict):
            keys = sorted(item, key=lambda key: (len(key.encode()), key.encode()))
            return {key: plain(item[key]) for key in keys}
        return item

    block = bytes(libipld.encode_dag_cbor(plain(value)))
    assert dag_cbor.links(block) == found


@pytest.mark.parametrize(
    "block",
    [b"", b"\x9f\xff", b"\x81" * 5000, b"\x9b" + b"\xff" * 8, b"\xd8\x2a\x01", b"\xd8\x2a\x41\x01",
     b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", b"\x01\x01", b"\xc1\x00"],
)  # fmt: skip
def test_malformed_cbor_is_refused_at_once(block):
    with pytest.raises(UserError):
        dag_cbor.links(block)
