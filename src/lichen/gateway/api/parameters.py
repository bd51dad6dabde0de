"""What comes with a request, checked: path segments, query parameters, bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.content.cid import CID
from lichen.errors import UserError
from lichen.gateway.api.bodies import BODIES
from lichen.gateway.api.errors import BadParameterError
from lichen.identity import Address

if TYPE_CHECKING:
    from starlette.requests import Request

LIMIT_MAX = 500
LIMIT_DEFAULT = 50
CURSOR_CHARS_MAX = 256
TEXT_CHARS_MAX = 256
NUMBER_MAX = 2**53 - 1


def address(request: Request, name: str = "address") -> Address:
    """Return the address in the path."""
    return _address(name, request.path_params[name])


def address_query(request: Request, name: str) -> Address | None:
    """Return an address from the query, or None."""
    text = request.query_params.get(name)
    return _address(name, text) if text else None


def text(request: Request, name: str) -> str:
    """Return a bounded path segment."""
    value = str(request.path_params[name])
    if not 0 < len(value) <= TEXT_CHARS_MAX:
        raise BadParameterError(f"{name} has 1 to {TEXT_CHARS_MAX} characters")
    return value


def cid(request: Request) -> CID:
    """Return the CID in the path."""
    return CID.parse(text(request, "cid"))


def number(
    request: Request, name: str, default: int, *, low: int = 0, high: int = NUMBER_MAX
) -> int:
    """Return a whole number from the path or the query."""
    value = request.path_params.get(name, request.query_params.get(name))
    if value is None or value == "":
        return default
    value = str(value)
    if not value.isascii() or not value.isdigit() or len(value) > 16:
        raise BadParameterError(f"{name} is a whole number, not {value[:40]!r}")
    if not low <= int(value) <= high:
        raise BadParameterError(f"{name} is {low} to {high}, not {value}")
    return int(value)


def limit(request: Request) -> int:
    """Return how many entries are wanted at most."""
    return number(request, "limit", LIMIT_DEFAULT, low=1, high=LIMIT_MAX)


def cursor(request: Request) -> str:
    """Return where to go on, or an empty string for the start."""
    value = request.query_params.get("cursor", "")
    if len(value) > CURSOR_CHARS_MAX:
        raise BadParameterError(f"a cursor has at most {CURSOR_CHARS_MAX} characters")
    return value


def flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a switch of the query: 1 or 0."""
    value = request.query_params.get(name, "1" if default else "0")
    if value not in ("0", "1"):
        raise BadParameterError(f"{name} is 1 or 0, not {value[:40]!r}")
    return value == "1"


def announced_bytes(request: Request) -> int:
    """Return the content length that the head announces; 0 when it does not."""
    value = request.headers.get("content-length", "0")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 16 else 0


async def body(request: Request, bytes_max: int) -> bytes:
    """Read a whole body of at most `bytes_max`, as `Bodies.whole` does."""
    async with BODIES.whole(request, bytes_max) as found:
        return found


def _address(name: str, value: str) -> Address:
    try:
        return Address.parse(value)
    except UserError as error:
        raise BadParameterError(f"{name}: {error.what}", hint=error.hint) from error
