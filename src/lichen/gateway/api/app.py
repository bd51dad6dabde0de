"""The API as an ASGI application: the table's routes, JSON out, every error a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from lichen.encoding import to_json
from lichen.errors import LichenError, MachineError, UserError
from lichen.gateway.api.errors import MethodNotAllowedError, NoSuchRouteError
from lichen.gateway.api.openapi import document
from lichen.gateway.api.table import Entry, table
from lichen.wire.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from lichen.gateway.api.context import ApiContext

PREFIX = "/api/v1"
PROBLEM_TYPE = "application/problem+json"
_CORS = {"access-control-allow-origin": "*", "access-control-expose-headers": "*"}
_PREFLIGHT = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD",
    "access-control-allow-headers": "*",
    "access-control-max-age": "86400",
}
log = structlog.get_logger()


def create_api(context: ApiContext) -> ASGIApp:
    """Build the application; it answers everything below `/api/v1`."""
    entries = table()
    routes = [
        Route(PREFIX + entry.path, _endpoint(context, entry), methods=[entry.method, "OPTIONS"])
        for entry in entries
    ]
    openapi = to_json(document(entries, PREFIX))

    async def describe(_: Request) -> Response:
        return Response(openapi, media_type="application/json", headers=_CORS)

    return Starlette(
        routes=[
            Route(PREFIX + "/openapi.json", describe, methods=["GET"]),
            *routes,
        ],
        exception_handlers={HTTPException: _refuse},
    )


def problem(error: LichenError, headers: dict[str, str] | None = None) -> Response:
    """Return the response for an expected failure."""
    return Response(
        to_json(problem_of(error)),
        error.status,
        {"cache-control": "no-store", **_CORS, **(headers or {})},
        PROBLEM_TYPE,
    )


def _endpoint(context: ApiContext, entry: Entry) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_PREFLIGHT)
        try:
            answer = await entry.handler(context, request)
        except LichenError as error:
            return problem(error)
        except ClientDisconnect:
            return problem(UserError("the client went away"))
        except Exception:
            log.exception("api.failed", path=entry.path, method=entry.method)
            return problem(
                MachineError("the gateway failed", hint="its log says why; try again later")
            )
        return _respond(answer, entry.method)

    return endpoint


def _respond(answer: object, method: str) -> Response:
    response = answer if isinstance(answer, Response) else _json(answer)
    if method == "GET":
        response.headers.update(_CORS)
    return response


def _json(answer: object) -> Response:
    return Response(
        to_json(answer), media_type="application/json", headers={"cache-control": "no-store"}
    )


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer what no route took."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = Headers(error.headers).get("allow", "")
        return problem(
            MethodNotAllowedError(f"{request.method} is not for this path", hint=f"use {allowed}"),
            {"allow": allowed},
        )
    return problem(
        NoSuchRouteError(
            f"the API has nothing at {request.url.path[:200]}", hint="see /api/v1/openapi.json"
        )
    )
