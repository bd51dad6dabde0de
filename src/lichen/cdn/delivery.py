"""Content as ASGI responses: what takes waiting, read by threads and streamed in pieces.

Files stored in blocks, with ranges; listings; CARs; and, where a `Fetcher` is given, what is not
here but at some node of the network. What is here never touches the network.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lichen.cdn.formats import NotCachedError, split_content_path
from lichen.cdn.forms.base import Conditions, Place, Plan
from lichen.cdn.plan import plan
from lichen.cdn.pump import Pump, Source
from lichen.cdn.refusal import refusal_parts
from lichen.cdn.retrieval.bridge import Bridge
from lichen.cdn.retrieval.remote import RemoteBlocks
from lichen.cdn.retrieval.sources import Session
from lichen.cdn.wanted import Form, read_wanted
from lichen.content import MissingBlockError
from lichen.errors import LichenError, UserError
from lichen.wire.connection import ABORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from lichen.cdn.retrieval.fetch import Fetcher
    from lichen.cdn.wanted import Wanted
    from lichen.content import CID, Blocks, BlockStore

FETCH_THREADS = 64  # for what has to be fetched; the pump's others read what is here
FETCH_STREAMS_MAX = 128

log = structlog.get_logger()


class ReadOnlyError(UserError):
    """Content is read, not written."""

    code = "method-not-allowed"
    status = 405


class Delivery:
    """Answers requests for content that the router could not answer at once."""

    def __init__(self, store: BlockStore, fetcher: Fetcher | None = None) -> None:
        self._store = store
        self._bridge = None if fetcher is None else Bridge(store, fetcher)
        self._pump = Pump()
        self._fetch_pump = Pump(threads=FETCH_THREADS, streams_max=FETCH_STREAMS_MAX)

    def close(self) -> None:
        """End the threads; no answer may be under way."""
        self._pump.close()
        self._fetch_pump.close()

    def before(self, rest: ASGIApp) -> ASGIApp:
        """Return the ASGI app that answers paths of content, and leaves others to `rest`."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            is_content = scope["type"] == "http" and scope["path"].startswith("/ipfs/")
            await (self.app if is_content else rest)(scope, receive, send)

        return app

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the ASGI app of the paths `/ipfs/{cid}[/path]`."""
        try:
            root, path = split_content_path(scope["raw_path"])
        except LichenError as error:
            await problem(error, Request(scope))(scope, receive, send)
            return
        await self.serve(Place(root, path, prefix=f"/ipfs/{root}"), scope, receive, send)

    async def serve(self, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for a place; failures before the first byte are problem documents.

        One after it cuts the connection, so that the client sees that the content is not whole.
        """
        request = Request(scope)
        with contextlib.ExitStack() as stack:
            try:
                if request.method not in {"GET", "HEAD"}:
                    raise ReadOnlyError("content is read by GET and HEAD", hint="use one of them")
                begun = await self._open(place, request, stack)
            except LichenError as error:
                response = problem(error, request)
            else:
                response = _response(begun, request.method)
            try:
                await response(scope, receive, send)
            except LichenError as error:
                log.warning("content broke off", root=str(place.root), error=error.what)

    async def _open(self, place: Place, request: Request, stack: contextlib.ExitStack) -> _Begun:
        """Begin an answer: from what is here, else by threads that may wait for the network."""
        wanted = _wanted(place, request)
        # Whoever asks block by block finds other sources himself: nothing goes in circles.
        session = Session(place.root, is_outside=wanted.form is not Form.RAW)
        try:
            begin = self._beginning(place, request, wanted, session)
            return await _begin(self._pump, begin, stack, _cut_of(request))
        except MissingBlockError as error:
            if self._bridge is None or wanted.only_if_cached:
                raise
            fetched = error.cid, await self._bridge.fetch(error.cid, session)
        begin = self._beginning(place, request, wanted, session, fetched)
        return await _begin(self._fetch_pump, begin, stack, _cut_of(request))

    def _beginning(
        self,
        place: Place,
        request: Request,
        wanted: Wanted,
        session: Session,
        fetched: tuple[CID, bytes] | None = None,
    ) -> Callable[[Source], Plan]:
        conditions = _conditions(request)
        loop = asyncio.get_running_loop()
        is_head = request.method == "HEAD"

        def begin(source: Source) -> Plan:
            source.cleanup.enter_context(self._store.hold(place.root))
            blocks: Blocks = self._store
            if self._bridge is not None and not wanted.only_if_cached:
                blocks = self._bridge.blocks(session, loop, fetched)
                blocks.is_local = fetched is None
                source.cleanup.callback(blocks.close)
            found = self._plan(blocks, place, wanted, conditions)
            if isinstance(blocks, RemoteBlocks):
                blocks.is_local = False  # a part that is missing all the same is fetched
                if found.whole:
                    blocks.read_all()
                    source.on_end = blocks.keep if not is_head else None
            if found.pieces is not None and not is_head:
                source.pieces, source.length = found.pieces, found.length
            return found

        return begin

    def _plan(self, blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
        try:
            return plan(blocks, place, wanted, conditions)
        except MissingBlockError as error:
            if wanted.only_if_cached:
                raise NotCachedError(
                    f"{error.cid} is not here", hint="ask without only-if-cached"
                ) from error
            raise
        except LichenError:
            if isinstance(blocks, RemoteBlocks):
                blocks.keep()  # the folders that were looked through: asked for again soon
            raise


class _Begun(msgspec.Struct, frozen=True):
    """An answer that is decided, and read up to its first piece."""

    plan: Plan
    source: Source
    pump: Pump


async def _begin(
    pump: Pump,
    begin: Callable[[Source], Plan],
    keep_open: contextlib.ExitStack,
    cut: Callable[[], None] | None,
) -> _Begun:
    with contextlib.ExitStack() as stack:
        stack.enter_context(pump.slot())
        source = stack.enter_context(pump.source(cut))
        found = await pump.run(source.open, begin)
        keep_open.enter_context(stack.pop_all())
    return _Begun(found, source, pump)


def _cut_of(request: Request) -> Callable[[], None] | None:
    """Return what ends a request's connection at once, where the server offers that."""
    offered = request.scope.get("extensions", {}).get(ABORT)
    return None if offered is None else offered["abort"]


def _response(begun: _Begun, method: str) -> Response:
    found = begun.plan
    if found.pieces is None or method == "HEAD":
        response = Response(None, found.status)
    else:
        response = StreamingResponse(begun.pump.stream(begun.source), found.status)
    lines = [line.partition(b": ") for line in found.headers.split(b"\r\n") if line]
    response.raw_headers = [(name, value) for name, _, value in lines]
    if found.length is not None:
        response.raw_headers.append((b"content-length", b"%d" % found.length))
    return response


def _wanted(place: Place, request: Request) -> Wanted:
    """Read what is asked for; the query and `Accept` of a request to an app are the app's own."""
    query, names = request.url.query, ["accept", "cache-control"]
    if place.kind == "site":
        query, names = "", ["cache-control"]
    return read_wanted(query, {name: ", ".join(request.headers.getlist(name)) for name in names})


def _conditions(request: Request) -> Conditions:
    headers = request.headers
    return Conditions(
        headers.get("if-none-match", "").encode("latin-1"),
        headers.get("if-range", "").encode("latin-1"),
        headers.get("range", "").encode("latin-1") if request.method == "GET" else b"",
    )


def problem(error: LichenError, request: Request | None = None) -> Response:
    """Return the response for an expected failure, in the form that the request accepts."""
    accept = b"" if request is None else request.headers.get("accept", "").encode("latin-1")
    fields, body = refusal_parts(error, accept)
    response = Response(body, error.status)
    response.raw_headers += fields
    return response
