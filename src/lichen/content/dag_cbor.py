"""DAG-CBOR (https://ipld.io/specs/codecs/dag-cbor/spec): the data model as canonical CBOR.

Read strictly: one spelling per value, because another spelling of the same value has another CID.
Where strictness is not asked for, what the specification lets older writers do is read as well:
keys in any order, short floats, long integers.
"""

from __future__ import annotations

import math
import struct

from lichen.content.cid import CID
from lichen.content.value import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN, ITEMS_MAX, Value
from lichen.errors import UserError

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_CID_TAG = 42
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
_CONSTANTS: dict[int, Value] = {0xF4: False, 0xF5: True, 0xF6: None}
_FLOAT = 0xFB
_FLOATS = {0xF9: struct.Struct(">e"), 0xFA: struct.Struct(">f"), _FLOAT: struct.Struct(">d")}


def decode(block: bytes, *, strict: bool = True) -> Value:
    """Read a block; raise UserError unless it is spelt canonically and within the bounds.

    Without `strict`, all that the specification lets a reader tolerate is read.
    """
    value, end = _Reader(block, strict=strict).read(0, 0)
    if end != len(block):
        raise UserError("bytes follow a DAG-CBOR value")
    return value


def encode(value: Value) -> bytes:
    """Write a value; raise UserError where it is not of the data model or over the bounds."""
    parts: list[bytes] = []
    _write(value, parts, 0)
    return b"".join(parts)


def links(block: bytes) -> list[CID]:
    """Return the links (tag 42) of a DAG-CBOR block in order; raise UserError when malformed.

    At any depth: what a link leads to is kept, so none may be missed for a bound.
    """
    found: list[CID] = []
    offset, expect_link = 0, False
    open_items = [1]
    while open_items:
        if not open_items[-1]:
            open_items.pop()
            continue
        open_items[-1] -= 1
        major, argument, offset = _head(block, offset, strict=False)
        if expect_link and major != _BYTES:
            raise UserError("a DAG-CBOR link is not a byte string")
        if major in (_BYTES, _TEXT):
            if argument > len(block) - offset:
                raise UserError("a DAG-CBOR string is cut off")
            if expect_link:
                found.append(_link(block[offset : offset + argument]))
            offset += argument
        elif major in (_ARRAY, _MAP):
            _check_count(argument, len(block) - offset)
            open_items.append(argument * (2 if major == _MAP else 1))
        expect_link = major == _TAG
        if expect_link:
            _check_tag(argument)
            open_items[-1] += 1
    if offset != len(block):
        raise UserError("bytes follow a DAG-CBOR value")
    return found


class _Reader:
    """Reads one block, and counts what it makes of it."""

    def __init__(self, block: bytes, *, strict: bool) -> None:
        self._block = block
        self._strict = strict
        self._items = 0

    def read(self, offset: int, depth: int) -> tuple[Value, int]:
        """Return the value at an offset, and the offset behind it."""
        self._items += 1
        if depth > DEPTH_MAX or self._items > ITEMS_MAX:
            raise UserError(f"a DAG-CBOR value is over {DEPTH_MAX} deep or {ITEMS_MAX} long")
        start = offset
        major, argument, offset = self._head(offset)
        if major == _UNSIGNED:
            return argument, offset
        if major == _NEGATIVE:
            return -1 - argument, offset
        if major in (_BYTES, _TEXT):
            data, offset = self._string(argument, offset)
            return data if major == _BYTES else _text(data), offset
        if major == _SIMPLE:
            return self._simple(start)
        if major == _TAG:
            return self._tagged(argument, offset)
        _check_count(argument, len(self._block) - offset)
        read = self._list if major == _ARRAY else self._map
        return read(argument, offset, depth + 1)

    def _head(self, offset: int) -> tuple[int, int, int]:
        return _head(self._block, offset, strict=self._strict)

    def _string(self, size: int, offset: int) -> tuple[bytes, int]:
        if size > len(self._block) - offset:
            raise UserError("a DAG-CBOR string is cut off")
        return self._block[offset : offset + size], offset + size

    def _simple(self, start: int) -> tuple[Value, int]:
        first = self._block[start]
        if first in _CONSTANTS:
            return _CONSTANTS[first], start + 1
        if first not in _FLOATS or (self._strict and first != _FLOAT):
            raise UserError("DAG-CBOR has false, true, null and 64-bit floats, nothing alike")
        layout = _FLOATS[first]
        number: float = layout.unpack_from(self._block, start + 1)[0]
        if not math.isfinite(number):
            raise UserError("DAG-CBOR has neither NaN nor infinity")
        return number, start + 1 + layout.size

    def _tagged(self, tag: int, offset: int) -> tuple[Value, int]:
        _check_tag(tag)
        major, size, offset = self._head(offset)
        if major != _BYTES:
            raise UserError("a DAG-CBOR link is not a byte string")
        data, offset = self._string(size, offset)
        return _link(data), offset

    def _list(self, count: int, offset: int, depth: int) -> tuple[Value, int]:
        items: list[Value] = []
        for _ in range(count):
            item, offset = self.read(offset, depth)
            items.append(item)
        return items, offset

    def _map(self, count: int, offset: int, depth: int) -> tuple[Value, int]:
        entries: dict[str, Value] = {}
        last = (-1, b"")
        for _ in range(count):
            major, size, offset = self._head(offset)
            if major != _TEXT:
                raise UserError("the keys of a DAG-CBOR map are text")
            data, offset = self._string(size, offset)
            key = _text(data)
            if key in entries or (self._strict and (size, data) <= last):
                raise UserError("the keys of a DAG-CBOR map are not in order, or stand twice")
            last = (size, data)
            entries[key], offset = self.read(offset, depth)
        return entries, offset


def _head(block: bytes, offset: int, *, strict: bool) -> tuple[int, int, int]:
    if offset >= len(block):
        raise UserError("a DAG-CBOR value is cut off")
    major, low = block[offset] >> 5, block[offset] & 31
    offset += 1
    if low < 24:
        return major, low, offset
    size = _ARGUMENT_BYTES.get(low)
    if size is None or offset + size > len(block):
        raise UserError("a DAG-CBOR value is cut off or of indefinite length")
    argument = int.from_bytes(block[offset : offset + size], "big")
    if strict and major != _SIMPLE and argument < (24 if size == 1 else 1 << (size * 4)):
        raise UserError("a DAG-CBOR number is not in its shortest form")
    return major, argument, offset + size


def _check_count(count: int, bytes_left: int) -> None:
    if count > bytes_left:
        raise UserError("a DAG-CBOR value is cut off")


def _check_tag(tag: int) -> None:
    if tag != _CID_TAG:
        raise UserError(f"DAG-CBOR has no tag {tag}")


def _link(data: bytes) -> CID:
    if data[:1] != b"\0":
        raise UserError("a DAG-CBOR link does not begin with the identity multibase")
    return CID.decode(data[1:])


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError("a DAG-CBOR text is not UTF-8") from error


def _write(value: Value, parts: list[bytes], depth: int) -> None:
    if depth > DEPTH_MAX or len(parts) > 2 * ITEMS_MAX:
        raise UserError(f"a value is over {DEPTH_MAX} deep or {ITEMS_MAX} long for DAG-CBOR")
    if isinstance(value, dict):
        _write_map(value, parts, depth + 1)
    elif isinstance(value, list):
        parts.append(_start(_ARRAY, len(value)))
        for item in value:
            _write(item, parts, depth + 1)
    else:
        parts.append(_scalar(value))


def _write_map(entries: dict[str, Value], parts: list[bytes], depth: int) -> None:
    parts.append(_start(_MAP, len(entries)))
    keys = [(_utf8(key), key) for key in entries]
    keys.sort(key=lambda pair: (len(pair[0]), pair[0]))
    for data, key in keys:
        parts.append(_start(_TEXT, len(data)) + data)
        _write(entries[key], parts, depth)


def _scalar(value: float | str | bytes | CID | None) -> bytes:
    if value is None or isinstance(value, bool):
        return b"\xf6" if value is None else (b"\xf5" if value else b"\xf4")
    if isinstance(value, str):
        data = _utf8(value)
        return _start(_TEXT, len(data)) + data
    if isinstance(value, bytes):
        return _start(_BYTES, len(value)) + value
    if isinstance(value, CID):
        data = b"\0" + value.encode()
        return b"\xd8\x2a" + _start(_BYTES, len(data)) + data
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError("DAG-CBOR has neither NaN nor infinity")
        return bytes((_FLOAT,)) + _FLOATS[_FLOAT].pack(value)
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise UserError("an integer does not fit DAG-CBOR: 64 bits and a sign")
    return _start(_UNSIGNED, value) if value >= 0 else _start(_NEGATIVE, -1 - value)


def _start(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    width = next(width for width in range(4) if argument < 1 << (8 << width))
    return bytes((major << 5 | 24 + width,)) + argument.to_bytes(1 << width, "big")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError("a text holds half a surrogate pair, which UTF-8 has not") from error
