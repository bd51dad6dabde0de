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
from lichen.cdn.forms.page import STYLE, top
from lichen.cdn.wanted import AFTER_BYTES_MAX
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


class Page(msgspec.Struct, frozen=True):
    """Which entries: from number `start` on, quickly found where the name `after` it is known."""

    start: int = 0
    after: str | None = None

    def following(self, last: DirectoryEntry) -> Page:
        """Return the page behind this one, which ended with `last`."""
        is_short = len(last.name.encode("utf-8", "replace")) <= AFTER_BYTES_MAX
        return Page(self.start + LISTING_ENTRIES, last.name if is_short else None)

    @property
    def query(self) -> str:
        """Return how this page is asked for."""
        after = "" if self.after is None else f"&after={quote(self.after, safe='')}"
        return f"?from={self.start}{after}"


def list_html(blocks: Blocks, frame: Frame, page: Page) -> Iterator[bytes]:
    """Yield a page of the entries, with a link to the next ones."""
    yield _top(frame).encode()
    entries = _Entries(blocks, frame.cid, page)
    base = frame.base
    for entry in entries:
        yield _row(base, frame.links, entry).encode()
    yield _bottom(entries.following()).encode()


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


def _bottom(following: Page | None) -> str:
    more = ""
    if following is not None:
        more = f'<p><a href="{_text(following.query)}">next entries</a></p>'
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
    page = _top(frame) + "".join(entries) + _bottom(Page(1, "c"))
    return hashlib.sha256(page.encode()).hexdigest()[:8]


VERSION = _version()


def listing_etag(cid: CID, page: Page, *, as_json: bool) -> bytes:
    """Return the entity tag of a listing: of its look, the entry it begins with, and the CID."""
    kind = "DirJson" if as_json else "DirIndex"
    place = f".{page.start}" if page.start else ""
    if page.after is not None:
        place += "." + hashlib.sha256(page.after.encode("utf-8", "replace")).hexdigest()[:16]
    return f'"{kind}-{VERSION}{place}_CID-{cid}"'.encode()


def list_json(blocks: Blocks, cid: CID, page: Page) -> Iterator[bytes]:
    """Yield `{"cid", "entries": [...], "next", "after"}`; the last two are null at the end.

    They are the parameters `from` and `after` of the next page.
    """
    yield b'{"cid":"%b","entries":[' % str(cid).encode()
    entries = _Entries(blocks, cid, page)
    comma = b""
    for entry in entries:
        line = {"name": entry.name, "cid": str(entry.cid), "bytes": entry.total_bytes}
        yield comma + msgspec.json.encode(line)
        comma = b","
    following = entries.following()
    start = None if following is None else following.start
    after = None if following is None else following.after
    yield b'],"next":%b,"after":%b}\n' % (msgspec.json.encode(start), msgspec.json.encode(after))


class _Entries:
    """The entries of one page; once they are read, `following` tells the next one, if any."""

    def __init__(self, blocks: Blocks, cid: CID, page: Page) -> None:
        self._page = page
        self._found = list_directory(blocks, cid, page.start, page.after)
        self._last: DirectoryEntry | None = None

    def __iter__(self) -> Iterator[DirectoryEntry]:
        for entry in itertools.islice(self._found, LISTING_ENTRIES):
            self._last = entry
            yield entry

    def following(self) -> Page | None:
        """Read one entry further."""
        if self._last is None or next(self._found, None) is None:
            return None
        return self._page.following(self._last)
