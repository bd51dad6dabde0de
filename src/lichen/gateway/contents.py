"""The ASGI side of content: paths and hosts that the router left for something to be waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lichen.cdn.delivery import problem
from lichen.errors import LichenError
from lichen.gateway.name_answers import open_name

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from lichen.cdn.delivery import Delivery
    from lichen.cdn.forms.base import Place
    from lichen.gateway.front import Front


def before(front: Front, delivery: Delivery, rest: ASGIApp) -> ASGIApp:
    """Return the ASGI app that delivers content, and leaves everything else to `rest`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await rest(scope, receive, send)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        request = Request(scope)
        try:
            found = await _open(front, host, request)
        except LichenError as error:
            await problem(error, request)(scope, receive, send)
            return
        if found is None:
            await rest(scope, receive, send)
        elif isinstance(found, Response):
            await found(scope, receive, send)
        else:
            await delivery.serve(found, scope, receive, send)

    return app


async def _open(front: Front, host: bytes, request: Request) -> Place | Response | None:
    path: bytes = request.scope["raw_path"]
    asked = front.asked(host, path)
    if asked is not None:
        found = await open_name(front.names, asked, request)
        if found is not None:
            return found
        if front.needs_router(path):
            return _once_more(request)
    return front.place(host, path)


def _once_more(request: Request) -> Response:
    """Send a client back to where it is: only now is it known that the host is the gateway's."""
    query: bytes = request.scope["query_string"]
    target: bytes = request.scope["raw_path"] + (b"?" + query if query else b"")
    response = Response(None, 307)
    response.raw_headers = [(b"location", target), (b"content-length", b"0")]
    return response
