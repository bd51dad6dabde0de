"""`_redirects` of a site (https://specs.ipfs.tech/http-gateways/web-redirects-file). Pure.

Each line is `from to [status]`. Rules apply, the first that matches, where the site has no file.
What a file says that cannot be read is a broken fault; the others are only likely to be mistakes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

import msgspec

from lichen.cdn.sites.patterns import Pattern, fill, parse_pattern, placeholders
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_BYTES_MAX = 64 * 1024
LINE_BYTES_MAX = 1000
STATIC_RULES_MAX = 2000
DYNAMIC_RULES_MAX = 100
MOVES = (301, 302, 303, 307, 308)
PAGES = (200, 404, 410, 451)
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_TARGET = re.compile(rf"(?:https?://{_HOST}(?=[/?#]|\Z)|/)[\x21-\x7e]*")


class Fault(msgspec.Struct, frozen=True):
    """A line that is not as it should be; `is_broken` tells that nothing can be made of it."""

    line: int
    what: str
    hint: str
    is_broken: bool = True


class RulesError(UserError):
    """A site has a `_redirects` that cannot be read, and was asked for what only it could tell."""

    code = "rules-broken"
    status = 500


class Target(msgspec.Struct, frozen=True):
    """Where a path leads: a redirect's location, or (a status of PAGES) the path of a file."""

    to: str
    status: int

    @property
    def moves(self) -> bool:
        """Tell whether the client is to ask elsewhere."""
        return self.status in MOVES


class _Rule(msgspec.Struct, frozen=True):
    order: int
    pattern: Pattern
    target: Target

    def apply(self, values: dict[str, str]) -> Target:
        """Fill a match's values in; a local target never turns into another host's."""
        target = self.target
        if target.moves:
            values = {name: quote(value, safe="/") for name, value in values.items()}
        to = fill(target.to, values) if values else target.to
        return Target("/" + to.lstrip("/\\") if to.startswith("/") else to, target.status)


class Redirects:
    """The rules of one site."""

    def __init__(self, rules: tuple[_Rule, ...] = ()) -> None:
        self._static: dict[str, _Rule] = {}
        for rule in rules:
            if rule.pattern.is_static:
                self._static.setdefault("/".join(rule.pattern.segments), rule)
        self._dynamic = [rule for rule in rules if not rule.pattern.is_static]

    def find(self, path: str) -> Target | None:
        """Return where a decoded path leads, by the first rule that matches it."""
        exact = self._static.get(path)
        for rule in self._dynamic:
            if exact is not None and exact.order < rule.order:
                break
            values = rule.pattern.match(path)
            if values is not None:
                return rule.apply(values)
        return None if exact is None else exact.apply({})


def parse_redirects(data: bytes) -> tuple[Redirects, tuple[Fault, ...]]:
    """Read the file: the rules of its good lines, and what is wrong with the others."""
    rules: list[_Rule] = []
    faults: list[Fault] = []
    left = {True: STATIC_RULES_MAX, False: DYNAMIC_RULES_MAX}
    for number, line in lines_of(data, faults):
        try:
            rule = _parse_rule(number, line)
            _count(left, rule)
            rules.append(rule)
            faults.extend(_doubts(rule))
        except UserError as error:
            faults.append(Fault(number, error.what, error.hint))
    return Redirects(tuple(rules)), tuple(faults)


def _count(left: dict[bool, int], rule: _Rule) -> None:
    left[rule.pattern.is_static] -= 1
    if left[rule.pattern.is_static] < 0:
        raise UserError(
            f"over {STATIC_RULES_MAX} plain rules or {DYNAMIC_RULES_MAX} with placeholders",
            hint="join rules by * or :name",
        )


def _parse_rule(number: int, line: str) -> _Rule:
    parts = line.split()
    if not 2 <= len(parts) <= 3:
        raise UserError("a rule is: from to [status]", hint="such as /old /new 301")
    status = int(parts[2]) if len(parts) == 3 and parts[2].isdecimal() else 301
    if status not in MOVES + PAGES or (len(parts) == 3 and not parts[2].isdecimal()):
        known = ", ".join(map(str, sorted(MOVES + PAGES)))
        raise UserError(f"the status {parts[2][:20]} is not one of {known}", hint="use one of them")
    pattern, to = parse_pattern(parts[0]), parts[1]
    if not _TARGET.fullmatch(to) or to.startswith("//"):
        raise UserError(
            f"{to[:80]!r} is neither a path nor a URL",
            hint="write /path or https://host/path, in ASCII",
        )
    if status in PAGES and not to.startswith("/"):
        raise UserError(
            f"a rule of status {status} shows a file of this site",
            hint="write its path, or redirect by 302",
        )
    return _Rule(number, pattern, Target(to, status))


def _doubts(rule: _Rule) -> Iterator[Fault]:
    to = rule.target.to
    local = to if to.startswith("/") else to.partition("://")[2].partition("/")[2]
    unknown = placeholders(local) - rule.pattern.names
    if unknown:
        yield Fault(
            rule.order, f"its path gives no :{min(unknown)}", "name it there too", is_broken=False
        )


def check_redirects(data: bytes) -> Redirects:
    """Read the file of a site on an IPFS gateway; raise RulesError for the first broken line."""
    redirects, faults = parse_redirects(data)
    for fault in faults:
        if fault.is_broken:
            raise RulesError(
                f"could not parse _redirects: line {fault.line}: {fault.what}", hint=fault.hint
            )
    return redirects


def too_large() -> RulesError:
    """Return the error for a file of over FILE_BYTES_MAX."""
    return RulesError(
        f"could not parse _redirects: redirects file size cannot exceed {FILE_BYTES_MAX} bytes",
        hint="join rules by * or :name",
    )


def with_query(location: str, query: str) -> str:
    """Pass a visitor's query on; it counts where the rule's own says something of the same name."""
    if not query:
        return location
    address, mark, fragment = location.partition("#")
    path, _, own = address.partition("?")
    named = {_name_of(part) for part in query.split("&")}
    kept = [part for part in own.split("&") if part and _name_of(part) not in named]
    return f"{path}?{'&'.join([*kept, query])}{mark}{fragment}"


def _name_of(parameter: str) -> str:
    return unquote_plus(parameter.partition("=")[0])


def lines_of(data: bytes, faults: list[Fault]) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that say something; note lines that cannot be read."""
    if len(data) > FILE_BYTES_MAX:
        faults.append(Fault(1, f"the file is over {FILE_BYTES_MAX} bytes", "make it smaller"))
        return
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if len(raw) > LINE_BYTES_MAX:
            faults.append(Fault(number, f"a line of over {LINE_BYTES_MAX} bytes", "shorten it"))
            continue
        try:
            line = raw.decode().rstrip()
        except UnicodeDecodeError:
            faults.append(Fault(number, "the line is not UTF-8", "save the file as UTF-8"))
            continue
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line
