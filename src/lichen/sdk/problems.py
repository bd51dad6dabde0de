"""From a problem document back to the error that the gateway raised."""

from __future__ import annotations

import msgspec

import lichen.gateway.api.errors
import lichen.identity.http_signature
import lichen.identity.nonces
import lichen.ledger.errors
import lichen.wire.errors  # noqa: F401 - imported so that their errors are known by code
from lichen.errors import (
    LichenError,
    MachineError,
    NotFoundError,
    PeerError,
    PeerUnavailableError,
    UserError,
)
from lichen.wire.problem import TYPE_PREFIX, Problem

DETAIL_CHARS_MAX = 2000


def error_of(status: int, body: bytes) -> LichenError:
    """Return the error that a response of this status stands for.

    What failed inside of the gateway is a PeerError here: its machine is not this one.
    """
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (ValueError, RecursionError):
        text = body[:200].decode("utf-8", "replace").strip()
        problem = Problem("", "", status, f"the gateway answered {status}: {text}")
    kind = _kinds().get(problem.type.removeprefix(TYPE_PREFIX)) or _kind_of_status(status)
    detail = problem.detail[:DETAIL_CHARS_MAX]
    if issubclass(kind, MachineError):
        kind, detail = PeerError, f"at the gateway: {detail}"
    error = kind.__new__(kind)  # a subclass may take other arguments than the document has
    LichenError.__init__(error, detail, hint=problem.hint[:DETAIL_CHARS_MAX])
    return error


def _kinds() -> dict[str, type[LichenError]]:
    found: dict[str, type[LichenError]] = {}
    waiting: list[type[LichenError]] = [LichenError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)  # a subclass without a code of its own comes later
        waiting[:0] = kind.__subclasses__()
    return found


def _kind_of_status(status: int) -> type[LichenError]:
    if status in (429, 503):
        return PeerUnavailableError
    if status == 404:
        return NotFoundError
    return UserError if 400 <= status < 500 else PeerError
