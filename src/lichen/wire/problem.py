"""Errors as `application/problem+json` (RFC 9457), with a stable `type` per error code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lichen.wire.answers import Ready

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lichen.errors import LichenError

TYPE_PREFIX = "urn:lichen:problem:"
_MEDIA_TYPE = b"application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The members of one problem document."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""


def problem_of(error: LichenError) -> Problem:
    """Describe an expected failure; `title` is the code in words, `detail` what happened."""
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=error.code.replace("-", " "),
        status=error.status,
        detail=error.what,
        hint=error.hint,
    )


def problem_ready(
    error: LichenError, *, headers: tuple[tuple[bytes, bytes], ...] = (), close: bool = False
) -> Ready:
    """Return the whole response for an expected failure."""
    fields = [(b"content-type", _MEDIA_TYPE), (b"cache-control", b"no-store"), *headers]
    if close:
        fields.append((b"connection", b"close"))
    return Ready.of(error.status, fields, msgspec.json.encode(problem_of(error)))


def problem_app(error: LichenError) -> Callable[..., Awaitable[None]]:
    """Return an ASGI app that answers with the problem."""
    body = msgspec.json.encode(problem_of(error))
    headers = [
        (b"content-type", _MEDIA_TYPE),
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(body)),
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 (ASGI)
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
