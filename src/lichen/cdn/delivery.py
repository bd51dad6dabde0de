"""Content as ASGI responses: what takes waiting, read by threads and streamed in pieces.

Files stored in blocks, with ranges; listings; CARs; and, where a `Fetcher` is given, what is not
here but at some node of the network. What is here never touches the network.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lichen.cdn.formats import NotCachedError, split_content_path
from lichen.cdn.forms.base import Conditions, Place
from lichen.cdn.plan import plan
from lichen.cdn.pump import Pump
from lichen.cdn.remote import RemoteBlocks
from lichen.cdn.wanted import read_wanted
from lichen.content import CID, MissingBlockError
from lichen.errors import LichenError, NotFoundError, PeerUnavailableError, UserError
from lichen.wire.errors import BusyError
from lichen.wire.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from lichen.cdn.fetch import Fetcher
    from lichen.cdn.forms.base import Plan
    from lichen.cdn.pump import Source
    from lichen.cdn.wanted import Wanted
    from lichen.content import BlockStore

ABSENT_S = 3.0  # what nobody has is not asked for again so soon
ABSENT_MAX = 10_000
FETCH_S_MAX = 12.0
FETCHING_MAX = 12  # threads that may wait for the network; the others read what is here

log = structlog.get_logger()


class ReadOnlyError(UserError):
    """Content is read, not written."""

    code = "method-not-allowed"
    status = 405


class Delivery:
    """Answers requests for content that the router could not answer at once."""

    def __init__(self, store: BlockStore, fetcher: Fetcher | None = None) -> None:
        self._store = store
        self._fetcher = fetcher
        self._pump = Pump()
        self._fetching = threading.Semaphore(FETCHING_MAX)
        self._absent: collections.OrderedDict[CID, float] = collections.OrderedDict()

    def close(self) -> None:
        """End the threads; no answer may be under way."""
        self._pump.close()

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
            await problem(error)(scope, receive, send)
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
                stack.enter_context(self._pump.slot())
                source = stack.enter_context(self._pump.source())
                found, first = await self._pump.run(source.open, self._beginning(place, request))
            except LichenError as error:
                response = problem(error)
            else:
                response = self._response(found, request.method, source, first)
            try:
                await response(scope, receive, send)
            except LichenError as error:
                log.warning("content broke off", root=str(place.root), error=error.what)

    def _beginning(self, place: Place, request: Request) -> Callable[[Source], Plan]:
        wanted = read_wanted(request.url.query, request.headers)
        conditions = _conditions(request)
        loop = asyncio.get_running_loop()
        is_head = request.method == "HEAD"

        def begin(source: Source) -> Plan:
            source.cleanup.enter_context(self._store.hold(place.root))
            remote = self._remote(wanted, loop)
            if remote is not None:
                source.cleanup.callback(remote.close)
            found = self._plan(remote, place, wanted, conditions)
            if found.pieces is not None and not is_head:
                source.pieces, source.length = found.pieces, found.length
                source.on_end = remote.keep if remote is not None and found.whole else None
            return found

        return begin

    def _remote(self, wanted: Wanted, loop: asyncio.AbstractEventLoop) -> RemoteBlocks | None:
        if self._fetcher is None or wanted.only_if_cached:
            return None
        return RemoteBlocks(self._store, lambda cid: self._fetch(cid, loop))

    def _plan(
        self, remote: RemoteBlocks | None, place: Place, wanted: Wanted, conditions: Conditions
    ) -> Plan:
        try:
            return plan(remote or self._store, place, wanted, conditions)
        except MissingBlockError as error:
            if wanted.only_if_cached:
                raise NotCachedError(
                    f"{error.cid} is not here", hint="ask without only-if-cached"
                ) from error
            raise
        except LichenError:
            if remote is not None:
                remote.keep()  # the folders that were looked through: asked for again soon
            raise

    def _fetch(self, cid: CID, loop: asyncio.AbstractEventLoop) -> bytes:
        """Fetch a block from a reading thread; raise NotFoundError when nobody has it."""
        if self._fetcher is None or self._absent.get(cid, 0.0) > time.monotonic():
            raise NotFoundError(f"no node has {cid}", hint="add it: lichen storage add")
        if not self._fetching.acquire(blocking=False):
            raise BusyError(f"{FETCHING_MAX} fetches are under way", hint="try again shortly")
        try:
            waiting = asyncio.run_coroutine_threadsafe(self._fetcher.fetch_block(cid), loop)
            try:
                return waiting.result(FETCH_S_MAX)
            except (TimeoutError, CancelledError) as error:  # too slow, or this server ends
                waiting.cancel()
                raise PeerUnavailableError(
                    f"no node sent {cid} within {FETCH_S_MAX:.0f} s", hint="try again"
                ) from error
        except NotFoundError:
            self._absent[cid] = time.monotonic() + ABSENT_S
            while len(self._absent) > ABSENT_MAX:
                self._absent.popitem(last=False)
            raise
        finally:
            self._fetching.release()

    def _response(self, found: Plan, method: str, source: Source, first: bytes) -> Response:
        if found.pieces is None or method == "HEAD":
            response = Response(None, found.status)
        else:
            response = StreamingResponse(self._pump.stream(source, first), found.status)
        lines = [line.partition(b": ") for line in found.headers.split(b"\r\n") if line]
        response.raw_headers = [(name, value) for name, _, value in lines]
        if found.length is not None:
            response.raw_headers.append((b"content-length", b"%d" % found.length))
        return response


def _conditions(request: Request) -> Conditions:
    headers = request.headers
    return Conditions(
        headers.get("if-none-match", "").encode("latin-1"),
        headers.get("if-range", "").encode("latin-1"),
        headers.get("range", "").encode("latin-1") if request.method == "GET" else b"",
    )


def problem(error: LichenError) -> Response:
    """Return the response for an expected failure."""
    return Response(
        msgspec.json.encode(problem_of(error)),
        error.status,
        {"cache-control": "no-store", "access-control-allow-origin": "*"},
        "application/problem+json",
    )
