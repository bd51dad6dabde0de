"""Directories as pages for people (HTML) and programs (JSON), a bounded number of entries each.

Nothing but the directory's own blocks is read. Names come from anybody: they are escaped in text
and percent-encoded in links.
"""

from __future__ import annotations

import html
import itertools
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from lichen.cdn.formats import LISTING_ENTRIES
from lichen.content import CID, Blocks, list_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.content import DirectoryEntry

_STYLE = (
    ":root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}"
    "body{max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}"
    "td{padding:.2rem .8rem .2rem 0;border-bottom:1px solid #8884;overflow-wrap:anywhere}"
    "td+td{text-align:right;white-space:nowrap}"
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Line(msgspec.Struct, frozen=True):
    """One entry as JSON; `bytes` are those of all blocks below it, as its link claims."""

    name: str
    cid: CID
    bytes: int | None


def list_html(blocks: Blocks, cid: CID, path: str, start: int) -> Iterator[bytes]:
    """Yield a page of the entries from number `start` on, with a link to the next ones."""
    title = html.escape(path)
    yield (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p><code>{cid}</code></p><table>"
        "<tr><td><a href='../'>..</a></td><td></td></tr>"
    ).encode()
    entries, more = _entries(blocks, cid, start)
    for entry in entries:
        link = html.escape("./" + quote(entry.name, safe=""))
        name = html.escape(entry.name)
        size = _size(entry.total_bytes)
        yield f"<tr><td><a href='{link}'>{name}</a></td><td>{size}</td></tr>\n".encode()
    yield b"</table>"
    if more():
        yield f"<p><a href='?from={start + LISTING_ENTRIES}'>next entries</a></p>".encode()


def list_json(blocks: Blocks, cid: CID, start: int) -> Iterator[bytes]:
    """Yield `{"cid", "entries": [...], "next"}`; `next` is null at the end."""
    yield b'{"cid":"%b","entries":[' % str(cid).encode()
    entries, more = _entries(blocks, cid, start)
    comma = b""
    for entry in entries:
        line = {"name": entry.name, "cid": str(entry.cid), "bytes": entry.total_bytes}
        yield comma + msgspec.json.encode(line)
        comma = b","
    following = b"%d" % (start + LISTING_ENTRIES) if more() else b"null"
    yield b'],"next":%b}\n' % following


def _entries(blocks: Blocks, cid: CID, start: int) -> tuple[Iterator[DirectoryEntry], More]:
    found = itertools.islice(list_directory(blocks, cid), start, None)
    return itertools.islice(found, LISTING_ENTRIES), More(found)


class More:
    """Tells, once the entries of a page are read, whether there is another one."""

    def __init__(self, rest: Iterator[DirectoryEntry]) -> None:
        self._rest = rest

    def __call__(self) -> bool:
        """Read one entry further."""
        return next(self._rest, None) is not None


def _size(size: int | None) -> str:
    if size is None:
        return ""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
