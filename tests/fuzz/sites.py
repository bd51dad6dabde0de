"""`_redirects`, `_headers` and their patterns, and names for what is saved."""

from __future__ import annotations

import re

from lichen.cdn.disposition import disposition
from lichen.cdn.formats import CORS, shared_headers
from lichen.cdn.sites.headers import ADDED_BYTES_MAX, parse_headers
from lichen.cdn.sites.patterns import parse_pattern
from lichen.cdn.sites.redirects import MOVES, PAGES, parse_redirects
from tests.fuzz.kit import refusals, require, target

LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: ?[\t\x20-\x7e\x80-\xff]*\r\n")
RULES = (
    b"/old /new 301\n/a/:b/* /c/:b/:splat 200\n/x https://example.org/:splat 308\n/* /404.html 404"
)
FIELDS = b"/*\n  X-Site: yes\n  ! Cache-Control\n/a/:b\n  Set-Cookie: a=b\n"


def _split(data: bytes) -> tuple[bytes, str]:
    """Take the last line as the path that is asked for."""
    text, _, path = data.rpartition(b"\n")
    return text, "/" + path.decode("utf-8", "replace").replace("\0", "")


def check_fields(block: bytes) -> None:
    rest = LINE.sub(b"", block)
    require(rest == b"", f"not header lines: {rest[:80]!r}")


@target("redirects", RULES + b"\na/b/c", b"/*//:splat /x\n/:a /:a\nb", b"/* //evil 301\nx")
def redirects(data: bytes) -> None:
    text, path = _split(data)
    rules, faults = parse_redirects(text)
    require(len(faults) <= text.count(b"\n") + 1)
    found = rules.find(path)
    if found is None:
        return
    require(found.status in MOVES + PAGES)
    require(len(found.to) <= 1000 + 300 * (len(path) + 1), "it grows")
    if found.to.startswith("/"):
        require(not found.to.startswith(("//", "/\\")), "a path became another host's")
    else:
        origin = re.match(r"https?://[^/?#]+", found.to)
        require(origin and origin[0] in _origins(text), "another host than written")
    if found.moves:
        require(re.fullmatch(r"[\x21-\x7e]*", found.to), "not for a header field")


def _origins(text: bytes) -> set[str]:
    return set(re.findall(r"https?://[^/?#\s]+", text.decode("utf-8", "replace")))


@target("headers", FIELDS + b"a/b", b"/a\n  A: b\n  a: c\n/*\n  A: d\na", b"/a\n\tX:\ty\x7f\na")
def headers(data: bytes) -> None:
    text, path = _split(data)
    rules, faults = parse_headers(text)
    require(len(faults) <= text.count(b"\n") + 1)
    block = b"content-type: text/html\r\ncache-control: public\r\n" + CORS
    out = rules.apply(path, block)
    check_fields(out)
    require(len(out) <= len(block) + ADDED_BYTES_MAX)
    check_fields(shared_headers(out))
    names = [line.partition(b":")[0] for line in shared_headers(out).split(b"\r\n")]
    require(b"set-cookie" not in names, "a shared origin gets a cookie")
    require(b"content-length" not in names)


@target("pattern", b"/a/:b/*\n/a/x/y", b"/*.html\n/.html", b"/:a:b\n/x:b")
def pattern(data: bytes) -> None:
    text, path = _split(data)
    with refusals():
        found = parse_pattern(text.decode("utf-8", "replace"))
        values = found.match(path)
        if values is not None:
            require(values.keys() == found.names)
            if found.is_static:
                require("/".join(found.segments) == path)
        require(not found.is_static or not found.names)


@target("disposition", b"name.txt", "näme.txt".encode(), b'a"b\\c\r\n.txt', b"a" * 300 + b".tar.gz")
def dispositions(data: bytes) -> None:
    name = data.decode("utf-8", "surrogateescape")
    for kind in ("inline", "attachment"):
        line = disposition(kind, name)
        check_fields(line)
        require(len(line) < 1024, len(line))
        quoted = line.partition(b'filename="')[2].partition(b'"')[0]
        require(not set(b"\\/") & set(quoted))
