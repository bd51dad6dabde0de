"""DAG-JSON (https://ipld.io/specs/codecs/dag-json/spec): the data model as JSON.

A link is `{"/": "CID"}`, bytes are `{"/": {"bytes": "base64"}}`. Written canonically: keys in the
order of their bytes, no white space. Any spelling is read, as the specification asks, but nothing
that it reserves or that JSON leaves open: no key twice, no NaN, no integer beyond 64 bits.
"""

from __future__ import annotations

import base64
import json
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, NoReturn

from lichen.content.cid import CID
from lichen.content.value import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN, ITEMS_MAX, Value
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Pairs = list[tuple[str, Value]]

INTEGER_LETTERS_MAX = 21
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)  # or cut off: linear
_LINK_OR_STRING = re.compile(
    rb'\{[ \t\r\n]*+"(?:/|\\/|\\u002[fF])"[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")'
    rb"[ \t\r\n]*+(.?)|" + _STRING.pattern,
    re.DOTALL,
)
_PLAIN_POWERS = range(-7, 21)  # of ten: floats that ECMAScript writes without an exponent
_RESERVED = 'DAG-JSON reserves maps that begin with "/": such a map has more keys'
_NOT_UTF8 = "half a surrogate pair is no text"


def decode(block: bytes) -> Value:
    """Read a block; raise UserError where it is not DAG-JSON, or over the bounds."""
    _check_items(block)
    try:
        value: Value = json.loads(
            block.decode(),
            object_pairs_hook=_value_of,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        _check(value)
    except UnicodeEncodeError as error:
        raise UserError(_NOT_UTF8) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"not DAG-JSON: {error}") from error
    return value


def encode(value: Value) -> bytes:
    """Write a value; raise UserError where DAG-JSON cannot say it, or over the bounds."""
    parts: list[str] = []
    _write(value, parts, 0)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError as error:
        raise UserError(_NOT_UTF8) from error


def links(block: bytes) -> list[CID]:
    """Return the links of a DAG-JSON block in order; raise UserError where one is malformed.

    No more is read than that takes, whatever the size and depth: what a link leads to is kept, so
    none may be missed for a bound.
    """
    if b'"/"' not in block and b"\\" not in block:
        return []
    found: list[CID] = []
    for match in _LINK_OR_STRING.finditer(block):
        if match[1] is not None:
            if match[2] != b"}":
                raise UserError(_RESERVED)
            found.append(_link(_text(match[1])))
    return found


def _text(literal: bytes) -> str:
    try:
        return str(json.loads(literal))
    except ValueError as error:
        raise UserError(f"not DAG-JSON: {error}") from error


def _check_items(block: bytes) -> None:
    """Bound what parsing makes of a block, before it is parsed."""
    if _items(block) > ITEMS_MAX and _items(_STRING.sub(b"", block)) > ITEMS_MAX:
        raise UserError(f"a DAG-JSON block of over {ITEMS_MAX} values")


def _items(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _check(value: Value) -> None:
    """Look for what only shows in the whole: depth, and texts that no UTF-8 can hold."""
    level: list[Value] = [value]
    depth = 0
    while level:
        below: list[Value] = []
        for item in level:
            if isinstance(item, str):
                item.encode()
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
        depth += 1
        if below and depth > DEPTH_MAX:
            raise UserError(f"a DAG-JSON value is over {DEPTH_MAX} deep")
        level = below


def _value_of(pairs: Pairs) -> Value:
    """Make a map, or the link or bytes that the reserved key stands for."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise UserError("a DAG-JSON map has a key twice")
    if pairs and pairs[0][0] == "/":
        inner = pairs[0][1]
        if isinstance(inner, str):
            _check_alone(pairs)
            return _link(inner)
        if isinstance(inner, dict) and _first(inner) == "bytes" and isinstance(inner["bytes"], str):
            _check_alone(pairs)
            _check_alone(inner)
            return _bytes(inner["bytes"])
    return entries


def _first(entries: dict[str, Value]) -> str | None:
    return next(iter(entries), None)


def _check_alone(entries: Pairs | dict[str, Value]) -> None:
    if len(entries) != 1:
        raise UserError(_RESERVED)


def _link(text: str) -> CID:
    try:
        return CID.from_wire(text)
    except ValueError as error:
        raise UserError(f"a DAG-JSON link: {error}") from error


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise UserError("DAG-JSON bytes are not base64") from error
    if _base64(data) != text:
        raise UserError("DAG-JSON bytes are base64 without padding, in its one spelling")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _integer(text: str) -> int:
    if len(text) > INTEGER_LETTERS_MAX or not INTEGER_MIN <= int(text) <= INTEGER_MAX:
        raise UserError(f"{text[:24]} is beyond 64 bits and a sign")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UserError(f"{text[:24]} is beyond 64-bit floats")
    return number


def _constant(text: str) -> NoReturn:
    raise UserError(f"DAG-JSON has no {text}")


def _write(value: Value, parts: list[str], depth: int) -> None:
    if depth > DEPTH_MAX or len(parts) > 4 * ITEMS_MAX:
        raise UserError(f"a value is over {DEPTH_MAX} deep or {ITEMS_MAX} long for DAG-JSON")
    if isinstance(value, dict):
        _write_map(value, parts, depth + 1)
    elif isinstance(value, list):
        parts.append("[")
        for number, item in enumerate(value):
            if number:
                parts.append(",")
            _write(item, parts, depth + 1)
        parts.append("]")
    else:
        parts.append(_scalar(value))


def _write_map(entries: dict[str, Value], parts: list[str], depth: int) -> None:
    keys = _sorted(entries)
    if keys[:1] == ["/"] and _is_reserved(entries["/"]):
        raise UserError(
            'DAG-JSON reserves maps that begin with "/" for links and bytes',
            hint="name the key otherwise, or use DAG-CBOR",
        )
    parts.append("{")
    for number, key in enumerate(keys):
        parts.append(("," if number else "") + json.dumps(key, ensure_ascii=False) + ":")
        _write(entries[key], parts, depth)
    parts.append("}")


def _is_reserved(inner: Value) -> bool:
    if isinstance(inner, dict):
        return _sorted(inner)[:1] == ["bytes"] and isinstance(inner["bytes"], str)
    return isinstance(inner, str)


def _sorted(keys: Iterable[str]) -> list[str]:
    """Sort by bytes: code points, in Python, have the order of their UTF-8."""
    return sorted(keys)


def _scalar(value: float | str | bytes | CID | None) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return f'{{"/":{{"bytes":"{_base64(value)}"}}}}'
    if isinstance(value, CID):
        return f'{{"/":"{value}"}}'
    if isinstance(value, float):
        return _float_text(value)
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise UserError("an integer is beyond 64 bits and a sign")
    return str(value)


def _float_text(number: float) -> str:
    """Write a float as ECMAScript does, but never without a sign that it is one."""
    if not math.isfinite(number):
        raise UserError("DAG-JSON has neither NaN nor infinity")
    text = repr(number)
    digits, letter, power = text.partition("e")
    if not letter:
        return text
    if int(power) not in _PLAIN_POWERS:
        return f"{digits}e{int(power):+d}"
    plain = format(Decimal(text), "f")
    return plain if "." in plain else plain + ".0"
