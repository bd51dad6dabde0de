"""Directories as pages for people (HTML) and programs (JSON), a bounded number of entries each.

Nothing but the directory's own blocks is read. Names come from anybody: they are escaped in text
and percent-encoded in links.
"""

from __future__ import annotations

import hashlib
import html
import itertools
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from lichen.cdn.formats import LISTING_ENTRIES
from lichen.cdn.forms.base import Links
from lichen.cdn.page import STYLE, top
from lichen.content import CID, RAW, Blocks, DirectoryEntry, list_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPLORER = "https://cid.ipfs.tech/#"
_STYLE = (
    STYLE
    + """
.ipfs-hash{font:.8125rem/1.6 ui-monospace,SFMono-Regular,Menlo,monospace}
table{border-collapse:collapse;width:100%;table-layout:fixed}
th{text-align:left;color:var(--dim);font-size:.75rem;font-weight:500;letter-spacing:.03em}
th,td{padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
tr:hover td{background:var(--row)}
.hash{width:9.5rem;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.hash a{color:var(--dim)}
.size{width:6rem;text-align:right;padding-right:0;white-space:nowrap;
font-variant-numeric:tabular-nums}
footer{margin-top:1.5rem}footer a{margin-right:1rem}
@media(max-width:40rem){.hash{display:none}}
"""
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Frame(msgspec.Struct, frozen=True):
    """What stands around the entries: the folder's CID, its path, and how links begin.

    `root` is the content path of the root (`/ipfs/{cid}`), `path` the decoded path below it,
    `prefix` stands for the root in the links of entries, `links` for what is outside.
    """

    cid: CID
    root: str
    path: str
    prefix: str
    links: Links

    @property
    def segments(self) -> list[str]:
        """Return the names of the folders from the root down to this one."""
        return [segment for segment in self.path.split("/") if segment]

    @property
    def base(self) -> str:
        """Return how the links of entries begin, without a final slash."""
        return self.prefix + "".join(f"/{quote(name, safe='')}" for name in self.segments)


def list_html(blocks: Blocks, frame: Frame, start: int) -> Iterator[bytes]:
    """Yield a page of the entries from number `start` on, with a link to the next ones."""
    yield _top(frame).encode()
    entries, more = _entries(blocks, frame.cid, start)
    base = frame.base
    for entry in entries:
        yield _row(base, frame.links, entry).encode()
    yield _bottom(start + LISTING_ENTRIES if more() else None).encode()


def _top(frame: Frame) -> str:
    page = (
        f"{top(f'Index of {frame.root}{frame.path}', _STYLE)}"
        f"<h1>Index of {_crumbs(frame)}</h1><p><code>{frame.cid}</code></p>"
        "<table><thead><tr><th>Name<th class=hash>CID<th class=size>Size</thead><tbody>\n"
    )
    if not frame.segments:
        return page
    return page + f'<tr><td><a href="{_text(frame.base)}/..">..</a><td class=hash><td class=size>\n'


def _crumbs(frame: Frame) -> str:
    """Return the path with a link to each folder on the way."""
    _, namespace, name = frame.root.split("/", 2)
    above = frame.links.above
    is_origin = above.startswith("//") and "/" not in above[2:]
    found = [f'<a href="{_text(above)}{"/" if is_origin else ""}">{_text(name)}</a>']
    for segment in frame.segments:
        above += "/" + quote(segment, safe="")
        found.append(f'<a href="{_text(above)}">{_text(segment)}</a>')
    return f"/{namespace}/" + "/".join(found)


def _row(base: str, links: Links, entry: DirectoryEntry) -> str:
    href, cid = f"{base}/{quote(entry.name, safe='')}", str(entry.cid)
    if links.other:  # gateways' listings encode the name twice here: see `wanted.filename`
        name = quote(quote(entry.name, safe=""), safe="")
        to = f'href="{_text(links.other)}{cid}?filename={name}"'
    else:
        to = f'href="{EXPLORER}{cid}" target="_blank" rel="noreferrer noopener"'
    return (
        f'<tr><td><a href="{_text(href)}">{_text(entry.name)}</a>'
        f'<td class=hash><a class="ipfs-hash" translate="no" {to}>{cid}</a>'
        f"<td class=size>{_size(entry.total_bytes)}\n"
    )


def _bottom(following: int | None) -> str:
    more = "" if following is None else f'<p><a href="?from={following}">next entries</a></p>'
    return (
        f"</tbody></table>{more}<footer>"
        '<a href="?format=car">CAR</a><a href="?format=tar">TAR</a>'
        "Sizes are those of all blocks, as their links claim. Served by Lichen.</footer>"
        "</body></html>\n"
    )


def _size(size: int | None) -> str:
    if size is None:
        return ""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _text(text: str) -> str:
    return html.escape(text)


def _version() -> str:
    """Return a short hash of how listings look, so that none outlives its look in a cache."""
    cid = CID.of(RAW, b"")
    frame = Frame(cid, "/ipfs/root", "/a/b/", "/ipfs/root", Links("/ipfs/root"))
    entries = (
        _row(frame.base, links, DirectoryEntry("c", cid, 1))
        for links in (frame.links, Links("", ""))
    )
    page = _top(frame) + "".join(entries) + _bottom(1)
    return hashlib.sha256(page.encode()).hexdigest()[:8]


VERSION = _version()


def listing_etag(cid: CID, start: int, *, as_json: bool) -> bytes:
    """Return the entity tag of a listing: of its look, the entry it begins with, and the CID."""
    kind = "DirJson" if as_json else "DirIndex"
    page = f".{start}" if start else ""
    return f'"{kind}-{VERSION}{page}_CID-{cid}"'.encode()


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
