"""The protobuf wire format (https://protobuf.dev), as far as dag-pb and UnixFS use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5
UINT64_MAX = 2**64 - 1
_VARINT_BYTES_MAX = 10
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


def uvarint(number: int) -> bytes:
    """Return the shortest varint of a number of 64 bits."""
    if not 0 <= number <= UINT64_MAX:
        raise ValueError(f"{number} does not fit 64 bits")
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_uvarint(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Read a 64-bit varint: the number and the offset behind it; only the shortest form counts."""
    if offset < len(data) and (first := data[offset]) < 0x80:
        return first, offset + 1
    number = shift = 0
    for position in range(offset, min(offset + _VARINT_BYTES_MAX, len(data))):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or number > UINT64_MAX:
                raise UserError("a protobuf varint is not in its shortest form")
            return number, position + 1
        shift += 7
    raise UserError("a protobuf varint is cut off or too long")


def varint_field(field: int, number: int) -> bytes:
    """Return one varint field."""
    return uvarint(field << 3 | VARINT) + uvarint(number)


def bytes_field(field: int, data: bytes) -> bytes:
    """Return one length-delimited field."""
    return uvarint(field << 3 | BYTES) + uvarint(len(data)) + data


def fixed32_field(field: int, number: int) -> bytes:
    """Return one fixed 32-bit field."""
    return uvarint(field << 3 | FIXED32) + number.to_bytes(4, "little")


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Walk the fields of a message: number, wire type, value; raise UserError on malformed bytes.

    Length-delimited values are views of the input, not copies.
    """
    view, offset, end = memoryview(data), 0, len(data)
    while offset < end:
        tag = view[offset]  # of one byte, as nearly all are: no call
        offset += 1
        if tag > 0x7F:
            tag, offset = read_uvarint(view, offset - 1)
        kind = tag & 7
        if kind == VARINT:
            number, offset = read_uvarint(view, offset)
            yield tag >> 3, kind, number
            continue
        if kind == BYTES:
            size, offset = read_uvarint(view, offset)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise UserError(f"protobuf wire type {kind} is not known")
        if size > end - offset:
            raise UserError("a protobuf field is cut off")
        value = view[offset : offset + size]
        offset += size
        yield tag >> 3, kind, value if kind == BYTES else int.from_bytes(value, "little")
