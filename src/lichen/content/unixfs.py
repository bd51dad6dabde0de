"""UnixFS (https://specs.ipfs.tech/unixfs): what a dag-pb node says about a file or directory."""

from __future__ import annotations

import enum

import msgspec

from lichen.content import protobuf
from lichen.errors import UserError

CHILDREN_MAX = 1 << 16
MODE_MAX = 2**32 - 1
HAMT_MURMUR3 = 0x22


class Kind(enum.IntEnum):
    """The type of a UnixFS node."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


class Mtime(msgspec.Struct, frozen=True):
    """A modification time: whole seconds since 1970, which may be negative, and nanoseconds."""

    seconds: int
    nanoseconds: int | None = None


class UnixFS(msgspec.Struct, frozen=True):
    """The message of one node; `file_bytes` covers the node's own data and its children."""

    kind: Kind
    data: bytes | None = None
    file_bytes: int | None = None
    child_bytes: tuple[int, ...] = ()
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime: Mtime | None = None


def encode(node: UnixFS) -> bytes:
    """Return the message with its fields in ascending order."""
    parts = [protobuf.varint_field(1, node.kind)]
    if node.data is not None:
        parts.append(protobuf.bytes_field(2, node.data))
    if node.file_bytes is not None:
        parts.append(protobuf.varint_field(3, node.file_bytes))
    parts.extend(protobuf.varint_field(4, size) for size in node.child_bytes)
    for field, value in ((5, node.hash_type), (6, node.fanout), (7, node.mode)):
        if value is not None:
            parts.append(protobuf.varint_field(field, value))
    if node.mtime is not None:
        parts.append(protobuf.bytes_field(8, _encode_mtime(node.mtime)))
    return b"".join(parts)


def decode(data: bytes | memoryview) -> UnixFS:
    """Read a message; raise UserError when it is malformed.

    Child sizes are read packed or not, and unknown fields are passed over: writers differ, and the
    block's hash already says that these bytes are the ones that were meant.
    """
    single: dict[int, int | memoryview] = {}
    child_bytes: list[int] = []
    for field, kind, value in protobuf.fields(data):
        if field == 4:
            child_bytes.extend(_child_bytes(value))
            if len(child_bytes) > CHILDREN_MAX:
                raise UserError(f"a UnixFS node has over {CHILDREN_MAX} children")
        elif field in _WIRE_TYPES:
            if kind != _WIRE_TYPES[field] or field in single:
                raise UserError(f"UnixFS field {field} has a wrong type or stands twice")
            single[field] = value
    return _build(single, tuple(child_bytes))


_WIRE_TYPES = {1: 0, 2: 2, 3: 0, 5: 0, 6: 0, 7: 0, 8: 2}


def _build(single: dict[int, int | memoryview], child_bytes: tuple[int, ...]) -> UnixFS:
    kind = _number(single, 1)
    if kind is None or kind > max(Kind):
        raise UserError(f"UnixFS type {kind} is not known")
    mode = _number(single, 7)
    if mode is not None and mode > MODE_MAX:
        raise UserError("a UnixFS mode has over 32 bits")
    data, mtime = single.get(2), single.get(8)
    return UnixFS(
        Kind(kind),
        bytes(data) if isinstance(data, memoryview) else None,
        _number(single, 3),
        child_bytes,
        _number(single, 5),
        _number(single, 6),
        mode,
        _decode_mtime(mtime) if isinstance(mtime, memoryview) else None,
    )


def _number(single: dict[int, int | memoryview], field: int) -> int | None:
    value = single.get(field)
    return value if isinstance(value, int) else None


def _child_bytes(value: int | memoryview) -> list[int]:
    if isinstance(value, int):
        return [value]
    sizes, offset = [], 0
    while offset < len(value):
        size, offset = protobuf.read_uvarint(value, offset)
        sizes.append(size)
    return sizes


def _encode_mtime(mtime: Mtime) -> bytes:
    out = protobuf.varint_field(1, mtime.seconds & protobuf.UINT64_MAX)
    if mtime.nanoseconds is not None:
        out += protobuf.fixed32_field(2, mtime.nanoseconds)
    return out


def _decode_mtime(data: memoryview) -> Mtime:
    seconds: int | None = None
    nanoseconds: int | None = None
    for field, kind, value in protobuf.fields(data):
        if (field, kind) == (1, protobuf.VARINT) and isinstance(value, int):
            seconds = value - 2**64 if value >> 63 else value
        elif (field, kind) == (2, protobuf.FIXED32) and isinstance(value, int):
            nanoseconds = value
    if seconds is None or (nanoseconds or 0) > 999_999_999:
        raise UserError("a UnixFS modification time is malformed")
    return Mtime(seconds, nanoseconds)


def wrap_leaf(length: int) -> tuple[bytes, bytes]:
    """Return what stands before and behind a file chunk in its dag-pb leaf block.

    So a wrapped leaf is hashed, stored and rebuilt from the bare chunk without a copy of it.
    """
    before = protobuf.varint_field(1, Kind.FILE)
    if length:
        before += protobuf.uvarint(2 << 3 | protobuf.BYTES) + protobuf.uvarint(length)
    behind = protobuf.varint_field(3, length)
    message_bytes = len(before) + length + len(behind)
    head = protobuf.uvarint(1 << 3 | protobuf.BYTES) + protobuf.uvarint(message_bytes)
    return head + before, behind
