"""The ASGI side of content: paths and hosts that the router left for something to be waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.delivery import problem
from lichen.errors import LichenError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from lichen.cdn.delivery import Delivery
    from lichen.gateway.front import Front


def before(front: Front, delivery: Delivery, rest: ASGIApp) -> ASGIApp:
    """Return the ASGI app that delivers content, and leaves everything else to `rest`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await rest(scope, receive, send)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        try:
            place = front.place(host, scope["raw_path"])
        except LichenError as error:
            await problem(error)(scope, receive, send)
            return
        if place is None:
            await rest(scope, receive, send)
        else:
            await delivery.serve(place, scope, receive, send)

    return app
