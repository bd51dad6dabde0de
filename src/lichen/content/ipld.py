"""Codecs of DAGs: blocks as values of the data model, and as blocks of another codec. Pure.

dag-pb has the form that its specification calls logical (https://ipld.io/specs/codecs/dag-pb/spec):
`{"Data": bytes, "Links": [{"Hash": link, "Name": text, "Tsize": integer}]}`.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from lichen.content import dag_cbor, dag_json, dag_pb
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW
from lichen.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.content.value import Value


class PartOfBlockError(UserError):
    """A path leads to something inside a block, which has no CID of its own."""

    code = "part-of-a-block"
    status = 501


CODEC_NAMES = {"dag-pb": DAG_PB, "dag-cbor": DAG_CBOR, "dag-json": DAG_JSON, "raw": RAW}
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_UINT64_MAX = 2**64 - 1


def decode(codec: int, block: bytes) -> Value:
    """Read a block of dag-pb, dag-cbor, dag-json or raw; raise UserError when malformed.

    What older writers spelt in other ways than the canonical one is read too.
    """
    read = _DECODERS.get(codec)
    if read is None:
        raise UserError(f"blocks of codec 0x{codec:x} have no known form", hint="fetch them raw")
    return read(block)


def encode(codec: int, value: Value) -> bytes:
    """Write a value, canonically; raise UserError where the codec cannot say it."""
    write = _ENCODERS.get(codec)
    if write is None:
        raise UserError(f"blocks of codec 0x{codec:x} cannot be written")
    return write(value)


def convert(block: bytes, codec: int, to: int) -> bytes:
    """Return what a block says as a block of another codec; raise UserError."""
    return block if codec == to else encode(to, decode(codec, block))


def next_link(cid: CID, block: bytes, segments: Sequence[str]) -> tuple[CID, int]:
    """Follow a path inside a dag-cbor or dag-json block to the first link.

    Returns the link and how many segments lead there. Raises NotFoundError where the block has no
    such field, PartOfBlockError where the path ends before there is a link.
    """
    value = decode(cid.codec, block)
    for count, segment in enumerate(segments):
        if isinstance(value, CID):
            return value, count
        value = _field(cid, value, segment)
    if isinstance(value, CID):
        return value, len(segments)
    raise PartOfBlockError(
        f"/{'/'.join(segments)[:80]} is a part of {cid}, not a block of its own",
        hint=f"ask for {cid} and take it from there",
    )


def _field(cid: CID, value: Value, segment: str) -> Value:
    if isinstance(value, dict) and segment in value:
        return value[segment]
    if isinstance(value, list) and _INDEX.fullmatch(segment) and int(segment) < len(value):
        return value[int(segment)]
    raise NotFoundError(f"no field {segment[:80]!r} in {cid}", hint="look at the whole block")


def _decode_dag_pb(block: bytes) -> Value:
    node = dag_pb.decode(block)
    value: dict[str, Value] = {} if node.data is None else {"Data": node.data}
    value["Links"] = [_link_value(link) for link in node.links]
    return value


def _link_value(link: dag_pb.Link) -> Value:
    value: dict[str, Value] = {"Hash": link.cid}
    if link.name is not None:
        value["Name"] = link.name
    if link.total_bytes is not None:
        value["Tsize"] = link.total_bytes
    return value


def _encode_dag_pb(value: Value) -> bytes:
    if not isinstance(value, dict) or not value.keys() <= {"Data", "Links"}:
        raise _not_dag_pb("a map of Links and Data")
    data, links = value.get("Data"), value.get("Links")
    if not isinstance(links, list) or not ("Data" not in value or isinstance(data, bytes)):
        raise _not_dag_pb("Links is a list, Data is bytes")
    nodes = dag_pb.sort_links(_link_of(link) for link in links)
    return dag_pb.encode(nodes, data if isinstance(data, bytes) else None)


def _link_of(value: Value) -> dag_pb.Link:
    if not isinstance(value, dict) or not value.keys() <= {"Hash", "Name", "Tsize"}:
        raise _not_dag_pb("a link is a map of Hash, Name and Tsize")
    cid, name, size = value.get("Hash"), value.get("Name"), value.get("Tsize")
    if not isinstance(cid, CID):
        raise _not_dag_pb("Hash is a link")
    if "Name" in value and not isinstance(name, str):
        raise _not_dag_pb("Name is text")
    if "Tsize" in value and (
        not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _UINT64_MAX
    ):
        raise _not_dag_pb("Tsize is an integer of 64 bits")
    return dag_pb.Link(
        cid, name if isinstance(name, str) else None, size if isinstance(size, int) else None
    )


def _not_dag_pb(what: str) -> UserError:
    return UserError(f"this is not the form of a dag-pb node: {what}", hint="use dag-cbor instead")


def _encode_raw(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise UserError("a raw block is bytes, and this is not", hint="use dag-cbor instead")
    return value


_DECODERS: dict[int, Callable[[bytes], Value]] = {
    DAG_PB: _decode_dag_pb,
    DAG_CBOR: functools.partial(dag_cbor.decode, strict=False),
    DAG_JSON: dag_json.decode,
    RAW: bytes,
}
_ENCODERS: dict[int, Callable[[Value], bytes]] = {
    DAG_PB: _encode_dag_pb,
    DAG_CBOR: dag_cbor.encode,
    DAG_JSON: dag_json.encode,
    RAW: _encode_raw,
}
