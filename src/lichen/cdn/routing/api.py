"""`/routing/v1`: this server as a delegated router, for any IPFS client.

https://specs.ipfs.tech/routing/http-routing-v1/. It tells what this network has, and asks no other
router: so that routers never ask each other in circles.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, TypeVar

from starlette.responses import Response
from starlette.routing import Route

from lichen.cdn.delivery import problem
from lichen.cdn.formats import NotAcceptableError, NotSupportedError
from lichen.cdn.retrieval.routers import IPNS_TYPE
from lichen.cdn.routing.records import (
    JSON,
    NDJSON,
    UnprocessableError,
    cache_control,
    read_filters,
    wants_lines,
    write_records,
)
from lichen.content import CID
from lichen.content.ipns import (
    RECORD_BYTES_MAX,
    InvalidRecordError,
    Name,
    verify_record,
)
from lichen.errors import LichenError, LimitError, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request

    from lichen.cdn.names.store import NameStore
    from lichen.cdn.routing.directory import Directory
    from lichen.cdn.routing.records import PeerRecord

T = TypeVar("T")
PREFIX = "/routing/v1"
BODY_S_MAX = 10.0
EMPTY_S = 15  # how long it may be believed that a name has no record
TTL_S = 60  # of records that do not say
TTL_S_MAX = 24 * 3600
_METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]
_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, PUT, OPTIONS",
    "access-control-allow-headers": "Accept, Content-Type, If-None-Match",
    "access-control-expose-headers": "ETag",
    "access-control-max-age": "86400",
}


def routing_routes(directory: Directory, names: NameStore | None = None) -> list[Route]:
    """Return the routes below `/routing/v1`; without `names` no IPNS record is known there."""
    api = RoutingApi(directory, names)
    found = [
        ("/providers/{cid}", api.providers),
        ("/peers/{peer}", api.peers),
        ("/ipns/{name}", api.ipns),
        ("/dht/closest/peers/{key}", api.closest),
        ("/{rest:path}", api.unknown),
    ]
    return [Route(PREFIX + path, _answering(handler), methods=_METHODS) for path, handler in found]


def _answering(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except LichenError as error:
            response = problem(error)
            response.headers.update(_CORS)
            return response

    return answer


class RoutingApi:
    """The handlers."""

    def __init__(self, directory: Directory, names: NameStore | None) -> None:
        self._directory = directory
        self._names = names

    async def providers(self, request: Request) -> Response:
        """Say who has a CID."""
        if (answer := _preflight(request)) is not None:
            return answer
        cid = _read(CID.parse, request.path_params["cid"])
        return await _list(request, "Providers", lambda: self._directory.providers(cid))

    async def peers(self, request: Request) -> Response:
        """Say where a peer is."""
        if (answer := _preflight(request)) is not None:
            return answer
        name = _read(Name.parse, request.path_params["peer"])
        return await _list(request, "Peers", lambda: self._directory.peers(name))

    async def ipns(self, request: Request) -> Response:
        """Give a name's record, or take a newer one."""
        names = self._names
        if names is None:
            raise NotSupportedError("this server keeps no IPNS records", hint="ask a gateway")
        if request.method == "PUT":
            return await self._publish(names, request)
        if (answer := _preflight(request)) is not None:
            return answer
        name = Name.parse(request.path_params["name"])
        accept = request.headers.get("accept", "*/*")
        if not any(kind in accept.lower() for kind in (IPNS_TYPE, "*/*", "application/*")):
            raise NotAcceptableError("names have records", hint=f"send Accept: {IPNS_TYPE}")
        record = names.get(name)
        if record is None:
            headers = {"cache-control": f"public, max-age={EMPTY_S}", "vary": "Accept", **_CORS}
            return Response("no record found\n", 200, headers, "text/plain")
        return _record_response(request, name, record)

    async def _publish(self, names: NameStore, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != IPNS_TYPE:
            raise NotAcceptableError(
                "a record was expected", hint=f"send Content-Type: {IPNS_TYPE}"
            )
        name, body = Name.parse(request.path_params["name"]), await _body(request)
        try:
            await names.publish(name, body, time.time_ns())
        except InvalidRecordError as error:
            raise UserError(error.what, hint=error.hint) from error
        return Response(None, 200, _CORS)

    async def closest(self, request: Request) -> Response:
        """Say that there is no DHT here."""
        del request
        raise NotSupportedError(
            "this network has no DHT: every node knows the registry",
            hint=f"ask {PREFIX}/providers/ for who has a CID",
        )

    async def unknown(self, request: Request) -> Response:
        """Refuse what the API does not have."""
        raise UserError(
            f"the routing API has nothing at {request.url.path[:200]}",
            hint=f"{PREFIX} has providers/, peers/ and ipns/",
        )


def _preflight(request: Request) -> Response | None:
    """Answer OPTIONS; raise NotSupportedError for a method that only reading has no use for."""
    if request.method == "OPTIONS":
        return Response(None, 200, _CORS)
    if request.method not in {"GET", "HEAD"}:
        raise NotSupportedError(f"{request.method} is not offered here", hint="use GET")
    return None


async def _list(
    request: Request, member: str, find: Callable[[], Awaitable[Sequence[PeerRecord]]]
) -> Response:
    filters = read_filters(request.url.query)
    found = filters.apply(await find())
    as_lines = wants_lines(request.headers.get("accept", ""))
    headers = {
        "content-type": NDJSON if as_lines else JSON,
        "cache-control": cache_control(found),
        "last-modified": formatdate(usegmt=True),
        "vary": "Accept",
        **_CORS,
    }
    return Response(write_records(found, member, as_lines=as_lines), 200, headers)


def _record_response(request: Request, name: Name, encoded: bytes) -> Response:
    now_ns = time.time_ns()
    record = verify_record(name, encoded, now_ns)
    left_s = max((record.eol_ns - now_ns) // 10**9, 0)
    age_s = min(record.ttl_ns // 10**9 or TTL_S, left_s, TTL_S_MAX)
    etag = f'"{hashlib.sha256(encoded).hexdigest()[:32]}"'
    headers = {
        "content-type": IPNS_TYPE,
        "cache-control": f"public, max-age={age_s}, stale-while-revalidate={left_s}, "
        f"stale-if-error={left_s}",
        "etag": etag,
        "expires": formatdate(record.eol_ns // 10**9, usegmt=True),
        "last-modified": formatdate(usegmt=True),
        "vary": "Accept",
        **_CORS,
    }
    if request.headers.get("if-none-match") == etag:
        return Response(None, 304, headers)
    return Response(encoded, 200, headers)


def _read(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except UserError as error:
        raise UnprocessableError(error.what, hint=error.hint) from error


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for part in request.stream():
                body += part
                if len(body) > RECORD_BYTES_MAX:
                    raise LimitError(
                        f"a record has at most {RECORD_BYTES_MAX} bytes",
                        hint="send the record alone",
                    )
    except TimeoutError as error:
        raise UserError("the record did not come", hint="send it again") from error
    return bytes(body)
