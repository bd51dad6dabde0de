"""The subset of structured fields (RFC 9651) that signature headers are written in, strictly.

A `Signature-Input` is a dictionary of inner lists of strings with parameters, a `Signature` one of
byte sequences. Only the canonical serialisation is accepted: no optional whitespace, no bare items,
no parameters on components. Whatever parses here serialises to the same text again, so what is
signed is never open to interpretation.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TypeVar

import msgspec

from lichen.errors import UserError

T = TypeVar("T")
FIELD_BYTES_MAX = 4096
MEMBERS_MAX = 4
ITEMS_MAX = 32
PARAMETERS_MAX = 8
_KEY = r"[a-z*][a-z0-9_.*-]{0,63}"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_INTEGER = r"-?(?:0|[1-9][0-9]{0,14})"
_PARAMETER = re.compile(rf";({_KEY})=({_STRING}|{_INTEGER})")
_LIST_MEMBER = re.compile(
    rf"({_KEY})=\(((?:{_STRING}(?: {_STRING})*)?)\)((?:;{_KEY}=(?:{_STRING}|{_INTEGER}))*)"
)
_BYTES_MEMBER = re.compile(rf"({_KEY})=:([A-Za-z0-9+/]*={{0,2}}):")
_ANY_STRING = re.compile(_STRING)
_PRINTABLE = re.compile(r"[ -~]*")


class InnerList(msgspec.Struct, frozen=True):
    """Strings in parentheses, followed by ordered parameters (strings or integers)."""

    items: tuple[str, ...]
    parameters: tuple[tuple[str, str | int], ...] = ()

    def serialise(self) -> str:
        """Return the canonical text (RFC 9651, 4.1.1.1)."""
        items = " ".join(_quote(item) for item in self.items)
        return f"({items})" + "".join(
            f";{name}={_quote(value) if isinstance(value, str) else value}"
            for name, value in self.parameters
        )


def parse_lists(field: str) -> dict[str, InnerList]:
    """Read a dictionary of inner lists; raise UserError for anything outside of the subset."""
    members: dict[str, InnerList] = {}
    for match in _members(field, _LIST_MEMBER):
        items = tuple(_unquote(item) for item in _ANY_STRING.findall(match.group(2)))
        parameters = tuple(
            (name, _unquote(value) if value.startswith('"') else int(value))
            for name, value in _PARAMETER.findall(match.group(3))
        )
        if len(items) > ITEMS_MAX or len(parameters) > PARAMETERS_MAX:
            raise UserError("a signature covers too many components or has too many parameters")
        if len(set(items)) < len(items) or len(dict(parameters)) < len(parameters):
            raise UserError("a component or parameter is named twice")
        _add(members, match.group(1), InnerList(items, parameters))
    return members


def parse_byte_sequences(field: str) -> dict[str, bytes]:
    """Read a dictionary of byte sequences; raise UserError for anything outside of the subset."""
    members: dict[str, bytes] = {}
    for match in _members(field, _BYTES_MEMBER):
        try:
            value = base64.b64decode(match.group(2), validate=True)
        except binascii.Error as error:
            raise UserError(f"a byte sequence is not base64: {error}") from error
        _add(members, match.group(1), value)
    return members


def serialise_bytes(value: bytes) -> str:
    """Return a byte sequence: base64 between colons."""
    return f":{base64.b64encode(value).decode()}:"


def _members(field: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    if len(field) > FIELD_BYTES_MAX:
        raise UserError(f"a signature header of {len(field)} bytes is over {FIELD_BYTES_MAX}")
    matches: list[re.Match[str]] = []
    position = 0
    while True:
        match = pattern.match(field, position)
        if match is None or len(matches) == MEMBERS_MAX:
            raise UserError(f"malformed signature header at column {position + 1}")
        matches.append(match)
        position = match.end()
        if position == len(field):
            return matches
        if not field.startswith(", ", position):
            raise UserError(f"malformed signature header at column {position + 1}")
        position += 2


def _add(members: dict[str, T], key: str, value: T) -> None:
    if key in members:
        raise UserError(f"the label {key} is used twice")
    members[key] = value


def _quote(text: str) -> str:
    if not _PRINTABLE.fullmatch(text):
        raise UserError("a structured field string is printable ASCII")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
