"""Addresses as browsers hand them over: `/ipfs/?uri=ipfs://{cid}/path`, for protocol handlers.

https://specs.ipfs.tech/http-gateways/subdomain-gateway/#uri-router
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote

from lichen.cdn.formats import InvalidPathError, moved_headers
from lichen.cdn.refusal import refusal
from lichen.errors import LichenError
from lichen.wire import Ready

if TYPE_CHECKING:
    from lichen.wire import RequestHead

PATHS: Final = (b"/ipfs/", b"/ipns/")
CACHE: Final = b"public, max-age=86400"
_PARAMETERS_MAX = 16
_URI = re.compile(r"(?i:(ipfs|ipns))://([^/?#]+)([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL)
_KEPT = "/%:@!$&'()*+,;=-._~"


def refuse_or_route(error: LichenError, head: RequestHead) -> Ready:
    """Answer a path that cannot be read: by a redirect where `uri` says what is meant."""
    try:
        moved = route_uri(head) if head.path in PATHS else None
    except LichenError as other:
        error, moved = other, None
    return refusal(error, head) if moved is None else moved


def route_uri(head: RequestHead) -> Ready | None:
    """Redirect to the path that `uri` names, None without one; raise InvalidPathError."""
    try:
        asked = dict(
            parse_qsl(head.query.decode(), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX)
        )
    except ValueError:
        return None
    uri = asked.get("uri")
    if uri is None:
        return None
    found = _URI.fullmatch(uri)
    if found is None:
        raise InvalidPathError(
            f"{uri[:200]!r} is no address of content",
            hint="it looks like ipfs://bafy.../path or ipns://name/path",
        )
    scheme, root, path, query = found.groups(default="")
    location = f"/{scheme.lower()}/{quote(root, safe='')}{quote(path + query, safe=_KEPT + '?')}"
    return ready(301, moved_headers(location.encode(), CACHE))


def ready(status: int, lines: bytes, body: bytes = b"") -> Ready:
    """Return an answer of header lines, each with its CRLF, and a body."""
    parts = (line.partition(b": ") for line in lines.split(b"\r\n") if line)
    return Ready.of(status, [(name, value) for name, _, value in parts], body)
