"""Apps: what is deployed, its releases, who may spend for it, and what it writes to its log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from lichen.gateway.api import parameters, signed
from lichen.gateway.api.events import HEARTBEAT_S
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import AppView, Page
from lichen.ledger.errors import UnknownAppError, UnknownReleaseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.gateway.api.events import EventHub
    from lichen.ledger.types import App, Grant, Release

NUMBER_MAX = 2**32 - 1
QUEUE_LINES_MAX = 1000


async def index(context: ApiContext, request: Request) -> Page[App]:
    """Return the apps of an owner, or all of them, by name."""
    owner, state = parameters.address_query(request, "owner"), context.replica.state
    if owner is not None:
        return page(request, state.apps_of(owner), lambda app: app.name)
    limit = parameters.limit(request)
    found = state.apps(after=parameters.cursor(request) or None, limit=limit + 1)
    items = tuple(found[:limit])
    return Page(items, items[-1].name if len(found) > limit else None)


async def show(context: ApiContext, request: Request) -> AppView:
    """Return an app and the release that serves."""
    app = find(context, request)
    return AppView(app, context.replica.state.release(app.name, app.active), f"/app/{app.name}/")


async def releases(context: ApiContext, request: Request) -> Page[Release]:
    """Return an app's releases, the newest first."""
    app = find(context, request)
    found = context.replica.state.releases(app.name)[::-1]
    return page(request, found, lambda release: f"{NUMBER_MAX - release.number:010d}")


async def release(context: ApiContext, request: Request) -> Release:
    """Return one release of an app."""
    app = find(context, request)
    number = parameters.number(request, "number", 0, high=NUMBER_MAX)
    found = context.replica.state.release(app.name, number)
    if found is None:
        raise UnknownReleaseError(
            f"{app.name} has no release v{number}", hint=f"see lichen releases {app.name}"
        )
    return found


async def grants(context: ApiContext, request: Request) -> Page[Grant]:
    """Return who may spend how much for the app."""
    app = find(context, request)
    found = [g for g in context.replica.state.grants_of(app.owner) if g.app == app.name]
    found.sort(key=lambda grant: grant.delegate.hex())
    return page(request, found, lambda grant: grant.delegate.hex())


async def logs(context: ApiContext, request: Request) -> StreamingResponse:
    """Stream what the app's functions wrote, from all nodes, to its owner: one JSON per line.

    An empty line is a sign of life.
    """
    app = find(context, request)
    signed.verify(context, request, only=app.owner)
    lines = context.logs(app, follow=parameters.flag(request, "follow"))
    return StreamingResponse(
        _stream(context.events, lines),
        media_type="application/x-ndjson",
        headers={"cache-control": "no-store"},
    )


def find(context: ApiContext, request: Request) -> App:
    """Return the app that the path names; raise UnknownAppError."""
    name = parameters.text(request, "app")
    app = context.replica.state.app(name)
    if app is None:
        raise UnknownAppError(f"there is no app {name!r}", hint="lichen ls shows your apps")
    return app


async def _stream(hub: EventHub, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass lines on until they end, or the gateway does."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_LINES_MAX)

    async def pump() -> None:
        try:
            async for line in lines:
                await queue.put(line)
        except asyncio.CancelledError:
            if queue.full():  # nobody may be left to make room
                queue.get_nowait()
            raise
        finally:
            await queue.put(None)

    task = asyncio.create_task(pump(), name="api-logs")
    hub.cancel_on_close(task)
    try:
        while (line := await _next(queue)) is not None:
            yield line + b"\n"
        if not hub.closed:
            await task  # what broke the lines off, breaks the answer off
    finally:
        task.cancel()


async def _next(queue: asyncio.Queue[bytes | None]) -> bytes | None:
    """Return the next line, None at the end; an empty one as a sign of life."""
    try:
        return await asyncio.wait_for(queue.get(), HEARTBEAT_S)
    except TimeoutError:
        return b""
