"""UnixFS as browsers have it: files with ranges, directories as their index page or a listing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from lichen.cdn.disposition import disposition
from lichen.cdn.formats import (
    file_headers,
    fit_headers,
    listing_headers,
    moved_headers,
    shared_headers,
)
from lichen.cdn.forms.base import (
    Conditions,
    Links,
    Place,
    Plan,
    nothing_at,
    plan_bytes,
    plan_ranges,
    plan_stream,
)
from lichen.cdn.forms.listing import Frame, Page, list_html, list_json, listing_etag
from lichen.cdn.media import SNIFFED_BYTES, SYMLINK, media_type, type_of_name
from lichen.cdn.sites.redirects import with_query
from lichen.cdn.sites.site import (
    NO_RULES,
    Directory,
    Found,
    Moved,
    Rules,
    find,
    find_otherwise,
    find_page,
    load_headers,
    load_redirects,
    load_rules,
)
from lichen.content import read_file
from lichen.errors import NotFoundError, PeerUnavailableError
from lichen.wire.content import byte_range

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted
    from lichen.content import Blocks

_ENCODED = re.compile(r"%[89A-F][0-9A-F]")


def plan_file(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan what a visitor sees at a path."""
    found = _find(blocks, place)
    if isinstance(found, Directory):
        return _plan_listing(blocks, place, found, wanted, conditions)
    if isinstance(found, Moved):
        return _plan_moved(place, found, wanted)
    return _plan_found(blocks, place, found, wanted, conditions)


def _find(blocks: Blocks, place: Place) -> Found | Directory | Moved:
    look = find_page if place.kind == "site" else find
    found = look(blocks, place.root, place.path)
    if found is not None:
        return found
    if place.has_function:
        raise PeerUnavailableError(
            f"the site {place.root} was being fetched", hint="repeat the request"
        )
    if place.kind != "content":
        load = load_redirects if place.kind == "host" else load_rules
        rules = load(blocks, place.root)
        found = find_otherwise(blocks, place.root, place.path, rules)
    if found is None:
        raise nothing_at(place.root, place.path)
    return found


def _plan_moved(place: Place, moved: Moved, wanted: Wanted) -> Plan:
    return Plan(moved.status, moved_lines(moved, place.prefix, place.cache, wanted.query), length=0)


def _plan_found(
    blocks: Blocks, place: Place, found: Found, wanted: Wanted, conditions: Conditions
) -> Plan:
    cid, size = found.entry.cid, found.entry.file_bytes
    rules = NO_RULES if place.kind == "content" else load_headers(blocks, place.root)
    start = None if found.target is not None else _start(blocks, found, wanted, conditions)
    headers = headers_of(
        found,
        place.content_root,
        place.cache,
        rules,
        is_shared=bool(place.prefix),
        start=start,
        filename=filename_of(wanted.filename),
        is_download=wanted.is_download,
    )
    etag = etag_of(found)
    if found.target is not None:
        return plan_bytes(etag, headers, found.target, conditions)
    if found.status != 200:
        headers = b"etag: %b\r\n%b" % (etag, headers)
        return Plan(found.status, headers, read_file(blocks, cid), size, whole=True)
    return plan_ranges(
        etag, headers, size, conditions, lambda start, end: read_file(blocks, cid, start, end)
    )


def _start(blocks: Blocks, found: Found, wanted: Wanted, conditions: Conditions) -> bytes | None:
    """Return the first bytes of a file whose name tells no type; None for a range without them.

    What was not asked for is not fetched: it may be far away, or nowhere.
    """
    size = found.entry.file_bytes
    if type_of_name(filename_of(wanted.filename) or found.path) is not None:
        return None
    asked = byte_range(conditions.range, size)
    if asked is not None and asked[0] >= SNIFFED_BYTES:
        return None
    try:
        return b"".join(read_file(blocks, found.entry.cid, 0, min(SNIFFED_BYTES, size)))
    except NotFoundError:  # sending says so, if these bytes are to be sent
        return None


def _plan_listing(
    blocks: Blocks, place: Place, found: Directory, wanted: Wanted, conditions: Conditions
) -> Plan:
    if not place.path.endswith("/") and not wanted.as_json:
        return _plan_moved(place, Moved(place.path + "/"), wanted)
    cid = found.entry.cid
    page = Page(wanted.start, wanted.after)
    etag = listing_etag(cid, page, as_json=wanted.as_json)
    headers = listing_headers(place.content_path, found.roots, place.cache, as_json=wanted.as_json)
    if wanted.as_json:
        pieces = list_json(blocks, cid, page)
    else:
        links = place.links or Links(place.prefix or place.content_root)
        frame = Frame(cid, place.content_root, place.path, place.prefix, links)
        pieces = list_html(blocks, frame, page)
    return plan_stream(etag, headers, conditions, pieces)


def headers_of(
    found: Found,
    content_root: str,
    cache: bytes,
    rules: Rules = NO_RULES,
    *,
    is_shared: bool,
    start: bytes | None = None,
    filename: str | None = None,
    is_download: bool = False,
) -> bytes:
    """Return the header lines of a file found below a root.

    `content_root` is the path that names the root (`/ipfs/{cid}`). `is_shared` tells that it is
    sent from an origin that is not its own. `start` is how the file begins, for one whose name
    tells no type; `filename` and `is_download` are the client's wishes.
    """
    kind = media_type(filename or found.path, start, is_shared=is_shared)
    if found.target is not None:
        kind = SYMLINK
    fields = file_headers(kind, content_root + found.asked, cache, found.roots)
    if is_download:
        fields += disposition("attachment", filename or found.path.rpartition("/")[2])
    elif filename:
        fields += disposition("inline", filename)
    lines = rules.headers.apply(found.asked, fields)
    return fit_headers(shared_headers(lines) if is_shared else lines)


def filename_of(asked: str | None) -> str | None:
    """Return the name that `?filename=` stands for.

    Listings of gateways percent-encode names twice in their links, so a name that is still encoded,
    and not ASCII, is decoded once more.
    """
    if asked is None or not _ENCODED.search(asked):
        return asked
    try:
        return unquote(asked, errors="strict")
    except UnicodeDecodeError:
        return asked


def etag_of(found: Found) -> bytes:
    """Return the entity tag of a file: its CID, or that of the directory whose index page it is."""
    return b'"%b"' % str(found.tag).encode()


def moved_lines(moved: Moved, prefix: str, cache: bytes, query: str = "") -> bytes:
    """Return the header lines of a redirect, the query passed on; raise LocationTooLongError."""
    location = with_query(location_of(moved, prefix).decode(), query)
    return moved_headers(location.encode("ascii", "replace"), cache)


def location_of(moved: Moved, prefix: str) -> bytes:
    """Spell out where something has moved; `prefix` is the path that stands for the root."""
    if moved.is_location:
        return (prefix + moved.to if moved.to.startswith("/") else moved.to).encode()
    return quote(f"{prefix}/{moved.to.lstrip('/')}").encode()
