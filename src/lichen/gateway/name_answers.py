"""What takes waiting to answer of a name: where it leads to now, and its record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import Response

from lichen.cdn.delivery import ReadOnlyError
from lichen.cdn.disposition import disposition
from lichen.cdn.formats import NotCachedError
from lichen.cdn.names.resolver import TTL_S_DEFAULT, TTL_S_MAX
from lichen.cdn.wanted import MEDIA_TYPES, Form, read_wanted
from lichen.content import CID, RAW
from lichen.content.ipns import Name
from lichen.content.ipns_time import NS_PER_S
from lichen.errors import UserError
from lichen.gateway.named import place_of
from lichen.wire.content import etag_matches

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.cdn.forms.base import Place
    from lichen.cdn.names.resolver import Names
    from lichen.content.ipns import Record
    from lichen.gateway.named import Asked


async def open_name(names: Names, asked: Asked, request: Request) -> Place | Response | None:
    """Return the content that a request for a name is for, or its answer.

    None when the name is a host that has no content of its own. Raises what `Names.resolve` raises,
    and UserError for a malformed request.
    """
    if asked.is_domain and not await names.find_link(asked.name):
        return None
    if request.method not in {"GET", "HEAD"}:
        raise ReadOnlyError("content is read by GET and HEAD", hint="use one of them")
    wanted = read_wanted(request.url.query, request.headers)
    if wanted.only_if_cached and names.ready(asked.name) is None:
        raise NotCachedError(f"{asked.name} is not at hand", hint="ask without only-if-cached")
    if wanted.form is Form.IPNS_RECORD:
        return await _record(names, asked, request, wanted.filename)
    return place_of(asked, await names.resolve(asked.name))


async def _record(names: Names, asked: Asked, request: Request, filename: str | None) -> Response:
    name = names.key(asked.name)
    if not isinstance(name, Name) or asked.path.strip(b"/"):
        raise UserError(
            "only an IPNS key has a record, and nothing below it",
            hint="ask for /ipns/KEY?format=ipns-record",
        )
    record = await names.record(name)
    etag = b'"%b.ipns-record"' % str(CID.of(RAW, record.encoded)).encode()
    lines = (
        b"content-type: %b\r\ncache-control: public, max-age=%d\r\netag: %b\r\n"
        b"vary: accept\r\nx-content-type-options: nosniff\r\nx-ipfs-path: /ipns/%b\r\n%b"
        b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n"
    ) % (
        MEDIA_TYPES[Form.IPNS_RECORD].encode(),
        _max_age_s(record, time.time_ns()),
        etag,
        asked.name.encode(),
        disposition("attachment", filename or f"{asked.name}.ipns-record"),
    )
    if etag_matches(etag, request.headers.get("if-none-match", "").encode("latin-1")):
        return _response(304, lines, b"")
    return _response(200, lines, record.encoded, is_head=request.method == "HEAD")


def _max_age_s(record: Record, now_ns: int) -> int:
    left_s = max(0, record.eol_ns - now_ns) // NS_PER_S
    return min(record.ttl_ns // NS_PER_S or TTL_S_DEFAULT, TTL_S_MAX, left_s)


def _response(status: int, lines: bytes, body: bytes, *, is_head: bool = False) -> Response:
    response = Response(b"" if is_head else body, status)
    fields = [line.partition(b": ") for line in lines.split(b"\r\n") if line]
    response.raw_headers = [(name, value) for name, _, value in fields]
    if status != 304:
        response.raw_headers.append((b"content-length", b"%d" % len(body)))
    return response
