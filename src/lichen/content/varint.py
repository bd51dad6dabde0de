"""Unsigned varints (https://github.com/multiformats/unsigned-varint): 7 bits a byte, low first."""

from __future__ import annotations

from lichen.errors import UserError

VARINT_BYTES_MAX = 9


def encode(number: int) -> bytes:
    """Return the shortest varint of a number below 2^63."""
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{number} does not fit a varint")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(data: bytes | memoryview, offset: int = 0) -> tuple[int, int]:
    """Read a varint at `offset`: the number and the offset behind it.

    Raises UserError where it is cut off, longer than 9 bytes or not the shortest spelling.
    """
    number = shift = 0
    for position in range(offset, min(offset + VARINT_BYTES_MAX, len(data))):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise UserError("a varint is not in its shortest form")
            return number, position + 1
        shift += 7
    raise UserError("a varint is cut off or too long")
