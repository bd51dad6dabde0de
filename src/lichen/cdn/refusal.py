"""How content is refused: as a problem document, which pages of any origin may read.

A browser gets a page. A path that cannot be read is quoted back in plain words, for it is people
who mistype one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from lichen.cdn.formats import CORS, InvalidPathError
from lichen.cdn.forms.page import POLICY, message
from lichen.errors import LichenError, UserError
from lichen.wire import Ready
from lichen.wire.problem import problem_of

if TYPE_CHECKING:
    from lichen.wire import RequestHead

Fields = list[tuple[bytes, bytes]]

RETRY_AFTER = b"1"  # seconds: what is busy or unreachable may be otherwise soon
_ROOT = re.compile(rb"/ip[fn]s/[^/]*")
_LINES = (
    b"cache-control: no-store\r\nvary: accept\r\nx-content-type-options: nosniff\r\n"
    + POLICY
    + CORS
)
_FIELDS = [
    (name, value) for name, _, value in (line.partition(b": ") for line in _LINES.splitlines())
]


class ServiceWorkerError(UserError):
    """A browser asks for a script that would rule over more than one site."""

    code = "service-worker-refused"


def refusal(error: LichenError, head: RequestHead) -> Ready:
    """Return the answer to a request for content that failed."""
    fields, body = refusal_parts(error, head.get(b"accept"))
    return Ready.of(error.status, fields, body)


def refusal_parts(error: LichenError, accept: bytes) -> tuple[Fields, bytes]:
    """Return header fields and body of a refusal; `accept` is the request's field."""
    if b"text/html" in accept:
        kind = b"text/html; charset=utf-8"
        body = message(f"{error.status} {problem_of(error).title}", error.what, error.hint)
    elif isinstance(error, InvalidPathError) and b"json" not in accept:
        kind = b"text/plain; charset=utf-8"
        body = f"{error.what}\n{error.hint}\n".encode("utf-8", "replace")
    else:
        kind, body = b"application/problem+json", msgspec.json.encode(problem_of(error))
    wait = [(b"retry-after", RETRY_AFTER)] if error.status in {429, 503} else []
    return [(b"content-type", kind), *wait, *_FIELDS], body


def check_service_worker(head: RequestHead, *, is_shared: bool) -> None:
    """Refuse a service worker whose scope would be more than one root.

    That is one at `/ipfs/{cid}` without a path: its scope would be `/ipfs/`, all content here
    (https://specs.ipfs.tech/http-gateways/path-gateway/#service-worker-request-header).
    """
    if is_shared and b"service-worker" in head and _ROOT.fullmatch(head.path):
        raise ServiceWorkerError(
            "a service worker here would rule over all content of this gateway",
            hint="register it at the content's own host, or below /ipfs/{cid}/",
        )
