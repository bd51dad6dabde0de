"""`_headers` of a site, as on Cloudflare Pages: a path, then indented `Name: value` lines. Pure.

`! Name` takes a field away. All rules that match apply, in order; what two of them give the same
field is joined by a comma.
"""

from __future__ import annotations

import re

import msgspec

from lichen.cdn.sites.patterns import Pattern, parse_pattern
from lichen.cdn.sites.redirects import Fault, lines_of
from lichen.errors import UserError

RULES_MAX = 100
ADDED_BYTES_MAX = 1024  # per response: all header fields of content stay under 2 KiB
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = frozenset(
    {
        "accept-ranges", "connection", "content-length", "content-range", "date", "etag",
        "keep-alive", "location", "proxy-authenticate", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-ipfs-path", "x-ipfs-roots",
    }
)  # fmt: skip


class _Field(msgspec.Struct, frozen=True):
    name: str
    value: str | None  # None takes the field away


class _Rule(msgspec.Struct, frozen=True):
    pattern: Pattern
    fields: tuple[_Field, ...]


class Headers:
    """The header rules of one site."""

    def __init__(self, rules: tuple[_Rule, ...] = ()) -> None:
        self._rules = rules

    def apply(self, path: str, block: bytes) -> bytes:
        """Return header lines (each with CRLF) as the rules for a decoded path have them."""
        set_by_rules: dict[str, str | None] = {}
        for rule in self._rules:
            if rule.pattern.match(path) is not None:
                for field in rule.fields:
                    before = set_by_rules.get(field.name)
                    joined = before is not None and field.value is not None
                    set_by_rules[field.name] = f"{before}, {field.value}" if joined else field.value
        if not set_by_rules:
            return block
        lines = [line for line in block.split(b"\r\n") if line]
        kept = [line for line in lines if line.partition(b":")[0].decode() not in set_by_rules]
        added, left = [], ADDED_BYTES_MAX
        for name, value in set_by_rules.items():
            line = f"{name}: {value}".encode()
            left -= len(line) + 2
            if value is not None and left >= 0:
                added.append(line)
        return b"".join(line + b"\r\n" for line in kept + added)


def parse_headers(data: bytes) -> tuple[Headers, tuple[Fault, ...]]:
    """Read the file: the rules of its good lines, and what is wrong with the others."""
    faults: list[Fault] = []
    rules: list[tuple[Pattern, list[_Field]]] = []
    fields: list[_Field] = []
    for number, line in lines_of(data, faults):
        try:
            if not line[0].isspace():
                fields = []
                pattern = _parse_path(line, len(rules))
                rules.append((pattern, fields))
            else:
                fields.append(_parse_field(line.strip(), fields, is_below_path=bool(rules)))
        except UserError as error:
            faults.append(Fault(number, error.what, error.hint))
    return Headers(tuple(_Rule(pattern, tuple(found)) for pattern, found in rules)), tuple(faults)


def _parse_path(line: str, rules: int) -> Pattern:
    if rules >= RULES_MAX:
        raise UserError(f"over {RULES_MAX} paths", hint="join paths by * or :name")
    if len(line.split()) != 1:
        raise UserError(
            f"{line[:80]!r} is no path", hint="a path stands alone; indent the headers below it"
        )
    return parse_pattern(line)


def _parse_field(line: str, before: list[_Field], *, is_below_path: bool) -> _Field:
    if not is_below_path:
        raise UserError("a header before any path", hint="write the path above it")
    if line.startswith("!"):
        return _Field(_parse_name(line[1:].strip()), None)
    name, colon, value = line.partition(":")
    if not colon:
        raise UserError(f"{line[:80]!r} has no colon", hint="write Name: value, or ! Name")
    field = _Field(_parse_name(name.strip()), value.strip())
    if not _VALUE.fullmatch(value):
        raise UserError(f"the value of {field.name} is not plain ASCII", hint="spell it in ASCII")
    size = sum(len(f.name) + len(f.value or "") + 4 for f in (*before, field))
    if size > ADDED_BYTES_MAX:
        raise UserError(f"over {ADDED_BYTES_MAX} bytes for one path", hint="send fewer headers")
    return field


def _parse_name(text: str) -> str:
    name = text.lower()
    if not _NAME.fullmatch(name):
        raise UserError(f"{text[:80]!r} is no header name", hint="letters, digits and -")
    if name in _OURS or name.startswith("lichen-"):
        raise UserError(f"{name} is set by the gateway", hint="take it out")
    return name
