"""Blocks: protobuf, dag-pb, UnixFS and DAG-CBOR, each held against another way to read it."""

from __future__ import annotations

import json

import libipld

from lichen.content import dag_cbor, dag_json, dag_pb, protobuf, unixfs
from lichen.content.cid import CID, DAG_CBOR, RAW
from lichen.content.dag import links_of
from lichen.content.dag_pb import Link
from lichen.content.unixfs import Kind, UnixFS
from lichen.errors import LichenError
from tests.fuzz.kit import refusals, require, target

LEAF = CID.of(RAW, b"leaf")
FILE = unixfs.encode(UnixFS(Kind.FILE, file_bytes=8, child_bytes=(4, 4)))
SHARD = unixfs.encode(UnixFS(Kind.HAMT_SHARD, b"\1", hash_type=0x22, fanout=256))
NODE = dag_pb.encode([Link(LEAF, "", 4), Link(LEAF, "name", None)], FILE)


@target("protobuf", NODE, FILE, b"\x0d\0\0\0\0")
def protobuf_fields(data: bytes) -> None:
    with refusals():
        size = 0
        for field, kind, value in protobuf.fields(data):
            require(field >= 0)
            require(kind in {0, 1, 2, 5})
            size += len(value) if kind == protobuf.BYTES else 1
        require(size <= len(data))


@target("dag-pb", NODE, dag_pb.encode([], b""), dag_pb.encode([Link(LEAF, None, None)], None))
def dag_pb_node(data: bytes) -> None:
    with refusals():
        node = dag_pb.decode(data)
        again = dag_pb.encode(node.links, node.data)
        if again != data:  # the one deviation that is read: data before links
            require(node.data is not None)
            parts = protobuf.bytes_field(1, node.data), dag_pb.encode(node.links, None)
            require(b"".join(parts) == data, "another spelling of the same node")
        require(dag_pb.decode(again) == node)
        require(
            len(node.links) * 36 <= len(data) or any(len(x.cid.digest) < 32 for x in node.links)
        )


@target("unixfs", FILE, SHARD, unixfs.encode(UnixFS(Kind.RAW, b"x", 1, mode=0o644)))
def unixfs_message(data: bytes) -> None:
    with refusals():
        message = unixfs.decode(data)
        require(unixfs.decode(unixfs.encode(message)) == message)
        require(len(message.child_bytes) <= len(data))


VALUE = dag_cbor.encode({"a": [LEAF, 1, -1, 2.5, None, True], "bb": b"bytes", "c": {"d": "e"}})
SPELT = dag_json.encode({"a": [LEAF, 1, -1, 2.5, None, True], "bb": b"bytes", "c": {"d": "e"}})


@target("dag-cbor", VALUE, b"\xd8\x2a\x58\x25\0" + LEAF.encode(), b"\x81" * 300)
def dag_cbor_value(data: bytes) -> None:
    value = _decoded(dag_cbor, data)
    if isinstance(value, _Nothing):
        with refusals():
            require(links_of(CID.of(DAG_CBOR, data), data) is not None)
        return
    require(dag_cbor.encode(value) == data, "another spelling of the same value")
    require(dag_cbor.links(data) == _links_in(value))
    libipld.decode_dag_cbor(data)
    _translates(value, dag_cbor, dag_json)


@target("dag-json", SPELT, b'{"/":{"bytes":"AA"}}', b'{"/":"%b"}' % str(LEAF).encode(), b"[" * 300)
def dag_json_value(data: bytes) -> None:
    value = _decoded(dag_json, data)
    if isinstance(value, _Nothing):
        with refusals():
            require(dag_json.links(data) is not None)
        return
    require(_same(json.loads(data), value), "the standard library reads something else")
    require(sorted(map(str, dag_json.links(data))) == sorted(map(str, _links_in(value))))
    with refusals():
        again = dag_json.encode(value)
        require(_equal(dag_json.decode(again), value))
        require(dag_json.encode(dag_json.decode(again)) == again)
    _translates(value, dag_json, dag_cbor)


class _Nothing:
    """What a refused block holds; None is a value."""


def _decoded(codec, data: bytes) -> object:
    try:
        return codec.decode(data)
    except LichenError as error:
        require(error.status < 500, repr(error))
        return _Nothing()


def _translates(value, codec, other) -> None:
    """What one codec reads, the other writes (if it can say it at all) and reads back."""
    with refusals():
        there = other.encode(value)
        require(_equal(other.decode(there), value))
        require(codec.encode(other.decode(there)) == codec.encode(value))


def _links_in(value) -> list[CID]:
    if isinstance(value, CID):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [link for item in items for link in _links_in(item)]


def _equal(one, other) -> bool:
    """Compare values by their types too: True is not 1, and 1.0 is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _same(plain, value) -> bool:
    """Compare what plain JSON says with a value of the data model."""
    if isinstance(value, CID | bytes):
        return isinstance(plain, dict) and set(plain) == {"/"}
    if isinstance(value, dict):
        return plain.keys() == value.keys() and all(_same(plain[key], value[key]) for key in value)
    if isinstance(value, list):
        return len(plain) == len(value) and all(map(_same, plain, value))
    return type(plain) is type(value) and plain == value
