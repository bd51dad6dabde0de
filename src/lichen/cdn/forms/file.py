"""UnixFS as browsers have it: files with ranges, directories as their index page or a listing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from lichen.cdn.formats import file_headers, listing_headers, shared_headers
from lichen.cdn.forms.base import Conditions, Place, Plan, nothing_at, plan_ranges, plan_stream
from lichen.cdn.listing import list_html, list_json
from lichen.cdn.site import (
    NO_RULES,
    Directory,
    Found,
    Moved,
    Rules,
    find,
    find_otherwise,
    find_page,
    load_rules,
)
from lichen.content import CID, read_file
from lichen.errors import PeerUnavailableError

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted
    from lichen.content import Blocks


def plan_file(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan what a visitor sees at a path."""
    found = _find(blocks, place)
    if isinstance(found, Directory):
        return _plan_listing(blocks, place, found, wanted, conditions)
    if isinstance(found, Moved):
        return _plan_moved(place, found)
    return _plan_found(blocks, place, found, conditions)


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
        rules = load_rules(blocks, place.root)
        found = find_otherwise(blocks, place.root, place.path, rules)
    if found is None:
        raise nothing_at(place.root, place.path)
    return found


def _plan_moved(place: Place, moved: Moved) -> Plan:
    location = location_of(moved, place.prefix)
    lines = b"location: %b\r\ncache-control: %b\r\n" % (location, place.cache)
    return Plan(moved.status, lines, length=0)


def _plan_found(blocks: Blocks, place: Place, found: Found, conditions: Conditions) -> Plan:
    cid, size = found.entry.cid, found.entry.file_bytes
    rules = NO_RULES if place.kind == "content" else load_rules(blocks, place.root)
    shared = bool(place.prefix)
    headers = headers_of(found, place.root, place.cache, rules, is_shared=shared)
    if found.status != 200:
        return Plan(found.status, headers, read_file(blocks, cid), size, whole=True)
    return plan_ranges(
        etag_of(cid),
        headers,
        size,
        conditions,
        lambda start, end: read_file(blocks, cid, start, end),
    )


def _plan_listing(
    blocks: Blocks, place: Place, found: Directory, wanted: Wanted, conditions: Conditions
) -> Plan:
    if not place.path.endswith("/") and not wanted.as_json:
        return _plan_moved(place, Moved(place.path + "/"))
    cid, path = found.entry.cid, place.content_path
    kind = b"json" if wanted.as_json else b"html"
    etag = b'W/"%b.%b.%d"' % (str(cid).encode(), kind, wanted.start)
    headers = listing_headers(path, found.roots, as_json=wanted.as_json)
    if wanted.as_json:
        pieces = list_json(blocks, cid, wanted.start)
    else:
        pieces = list_html(blocks, cid, path, wanted.start)
    return plan_stream(etag, headers, conditions, pieces)


def headers_of(
    found: Found, root: CID, cache: bytes, rules: Rules = NO_RULES, *, is_shared: bool
) -> bytes:
    """Return the header lines of a file found below a root.

    `is_shared` tells that it is sent from an origin that is not its own.
    """
    name = found.path or f"/{root}"
    fields = file_headers(name, f"/ipfs/{root}{found.asked}", cache, found.roots)
    lines = rules.headers.apply(found.asked, fields)
    return shared_headers(lines) if is_shared else lines


def etag_of(cid: CID) -> bytes:
    """Return the entity tag of a file: its CID."""
    return b'"%b"' % str(cid).encode()


def location_of(moved: Moved, prefix: str) -> bytes:
    """Spell out where something has moved; `prefix` is the path that stands for the root."""
    if moved.is_location:
        return (prefix + moved.to if moved.to.startswith("/") else moved.to).encode()
    return quote(f"{prefix}/{moved.to.lstrip('/')}").encode()
