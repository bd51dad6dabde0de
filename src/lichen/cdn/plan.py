"""What to answer a request for content: decided by reading, blocking, from any source of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from lichen.cdn.export import export_path
from lichen.cdn.formats import (
    IMMUTABLE,
    Form,
    Wanted,
    block_headers,
    car_headers,
    listing_headers,
)
from lichen.cdn.listing import list_html, list_json
from lichen.cdn.serve import etag_of, headers_of, location_of, nothing_at
from lichen.cdn.site import (
    NO_RULES,
    Directory,
    Found,
    Moved,
    find,
    find_otherwise,
    find_page,
    load_rules,
)
from lichen.content import CID, Blocks, need_block, read_file, resolve
from lichen.errors import PeerUnavailableError
from lichen.wire.content import byte_range, etag_matches


class Place(msgspec.Struct, frozen=True):
    """What a request is for: a decoded path below a root, and how paths to the root begin.

    `content` is a path `/ipfs/...`; `host` an origin of its own, where `_headers` and `_redirects`
    hold; `site` an app, which lists nothing besides. `cache` says how long a file may be kept,
    `has_function` that a function answers where the site has nothing.
    """

    root: CID
    path: str
    kind: Literal["content", "host", "site"] = "content"
    prefix: str = ""
    cache: bytes = IMMUTABLE
    has_function: bool = False


class Conditions(msgspec.Struct, frozen=True):
    """The conditional fields of a request."""

    if_none_match: bytes = b""
    if_range: bytes = b""
    range: bytes = b""


class Plan(msgspec.Struct, frozen=True):
    """A response: status, header lines (each with CRLF), and the bytes, read when iterated.

    `length` is None where it is not known before. `whole` tells that iterating reads all of a DAG.
    """

    status: int
    headers: bytes
    pieces: Iterator[bytes | memoryview] | None = None
    length: int | None = None
    whole: bool = False


def plan(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Decide what to answer; raise NotFoundError, MissingBlockError and what `blocks` raises."""
    if wanted.form is Form.CAR:
        return _plan_car(blocks, place, wanted, conditions)
    if wanted.form is Form.RAW:
        return _plan_raw(blocks, place, conditions)
    found = _find(blocks, place)
    if isinstance(found, Directory):
        return _plan_listing(blocks, place, found, wanted, conditions)
    if isinstance(found, Moved):
        return _plan_moved(place, found)
    return _plan_file(blocks, place, found, conditions)


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


def _plan_file(blocks: Blocks, place: Place, found: Found, conditions: Conditions) -> Plan:
    cid, size = found.entry.cid, found.entry.file_bytes
    rules = NO_RULES if place.kind == "content" else load_rules(blocks, place.root)
    shared = bool(place.prefix)
    headers = headers_of(found, place.root, place.cache, rules, is_shared=shared)
    if found.status != 200:
        return Plan(found.status, headers, read_file(blocks, cid), size, whole=True)
    etag = etag_of(cid)
    headers = b"etag: %b\r\naccept-ranges: bytes\r\n%b" % (etag, headers)
    part = _part(etag, size, headers, conditions)
    if isinstance(part, Plan):
        return part
    if part is None:
        return Plan(200, headers, read_file(blocks, cid), size, whole=True)
    first, last = part
    pieces = read_file(blocks, cid, first, last + 1)
    return Plan(206, headers + _content_range(part, size), pieces, last + 1 - first)


def _plan_raw(blocks: Blocks, place: Place, conditions: Conditions) -> Plan:
    cid = place.root
    if place.path.strip("/"):
        cid = resolve(blocks, cid, place.path).cid
    data = need_block(blocks, cid)
    etag = b'"%b.raw"' % str(cid).encode()
    headers = b"etag: %b\r\naccept-ranges: bytes\r\n%b" % (etag, block_headers(cid))
    part = _part(etag, len(data), headers, conditions)
    if isinstance(part, Plan):
        return part
    if part is None:
        return Plan(200, headers, iter((data,)), len(data))
    first, last = part
    headers += _content_range(part, len(data))
    return Plan(206, headers, iter((data[first : last + 1],)), last + 1 - first)


def _plan_car(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    cid, pieces = export_path(blocks, place.root, place.path, wanted.scope)
    headers = car_headers(cid, f"/ipfs/{place.root}{place.path}", wanted.scope)
    if etag_matches(_etag_in(headers), conditions.if_none_match):
        return Plan(304, headers)
    return Plan(200, headers, pieces, whole=wanted.scope == "all")


def _plan_listing(
    blocks: Blocks, place: Place, found: Directory, wanted: Wanted, conditions: Conditions
) -> Plan:
    if not place.path.endswith("/") and not wanted.as_json:
        return _plan_moved(place, Moved(place.path + "/"))
    cid, path = found.entry.cid, f"/ipfs/{place.root}{place.path}"
    kind = b"json" if wanted.as_json else b"html"
    etag = b'W/"%b.%b.%d"' % (str(cid).encode(), kind, wanted.start)
    headers = listing_headers(etag, path, as_json=wanted.as_json)
    if etag_matches(etag, conditions.if_none_match):
        return Plan(304, headers)
    if wanted.as_json:
        return Plan(200, headers, list_json(blocks, cid, wanted.start))
    return Plan(200, headers, list_html(blocks, cid, path, wanted.start))


def _part(
    etag: bytes, size: int, headers: bytes, conditions: Conditions
) -> Plan | tuple[int, int] | None:
    """Return what the conditions leave: an answer without content, a range, or the whole."""
    if etag_matches(etag, conditions.if_none_match):
        return Plan(304, headers)
    part = byte_range(conditions.range, size)
    if part is None or (conditions.if_range and conditions.if_range != etag):
        return None
    if part[0] > part[1]:
        return Plan(416, b"content-range: bytes */%d\r\n" % size, length=0)
    return part


def _content_range(part: tuple[int, int], size: int) -> bytes:
    return b"content-range: bytes %d-%d/%d\r\n" % (*part, size)


def _etag_in(headers: bytes) -> bytes:
    return headers.partition(b"\r\netag: ")[2].partition(b"\r\n")[0]
