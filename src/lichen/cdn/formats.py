"""Paths of content, and the header fields that it is sent with. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from lichen.cdn.disposition import disposition
from lichen.cdn.forms.page import POLICY
from lichen.content import CID
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH_BYTES_MAX = 4096
PATH_HEADER_BYTES_MAX = 512
ROOTS_HEADER_BYTES_MAX = 512
HEADERS_BYTES_MAX = 1536  # besides validator, length, range and date: 2 KiB in all
LOCATION_BYTES_MAX = 1200
QUOTED_BYTES_MAX = 200
IMMUTABLE = b"public, max-age=29030400, immutable"
RAW_TYPE = b"application/vnd.ipld.raw"
LISTING_CACHE = b"public, max-age=604800, stale-while-revalidate=2678400"
LISTING_ENTRIES = 1000
# Any page may read content (the fields that the specification names); it is public by its nature.
CORS = (
    b"access-control-allow-origin: *\r\n"
    b"access-control-allow-methods: GET, HEAD, OPTIONS\r\n"
    b"access-control-allow-headers: Content-Type, Range, User-Agent, X-Requested-With\r\n"
    b"access-control-expose-headers: Content-Range, Content-Length, X-Ipfs-Path, X-Ipfs-Roots, "
    b"X-Chunked-Output, X-Stream-Output\r\n"
)
_EXPENDABLE = (
    b"content-location", b"x-ipfs-roots", b"x-ipfs-path", b"access-control-allow-headers",
    b"access-control-allow-methods", b"access-control-expose-headers", b"content-disposition",
)  # fmt: skip
# A path shares its origin with all other content and with the gateway's own pages. So documents
# there get an origin of nobody, and no content rules over what others leave in the browser.
SANDBOX = (
    b"content-security-policy: sandbox allow-scripts allow-forms allow-modals allow-popups "
    b"allow-popups-to-escape-sandbox allow-downloads allow-top-navigation-by-user-activation\r\n"
)
ORIGIN_FIELDS = frozenset(
    {
        "alt-svc", "clear-site-data", "nel", "report-to", "reporting-endpoints",
        "service-worker-allowed", "set-cookie", "strict-transport-security",
    }
)  # fmt: skip
# The one kind of value that certainly shows no document that runs scripts. Of several types, or
# none, a browser makes its own choice; and all XML can hold a script.
_PASSIVE = re.compile(
    rb"(?:(?:image|audio|video|font)/[\w.-]+"
    rb"|text/(?:css|csv|javascript|markdown|plain)"
    rb"|application/(?:gzip|javascript|json|octet-stream|pdf|wasm|zip))"
    rb"(?: *; *charset=[\w-]+)?\r\n",
    re.ASCII | re.IGNORECASE,
)


class NotAcceptableError(UserError):
    """The content cannot be had in the form asked for."""

    code = "not-acceptable"
    status = 406


class NotSupportedError(UserError):
    """A part of the gateway specifications that this version does not answer."""

    code = "not-supported"
    status = 501


class NotCachedError(UserError):
    """`only-if-cached` was asked for, and it is not here."""

    code = "not-cached"
    status = 412


class InvalidPathError(UserError):
    """A path `/ipfs/...` that does not begin with a CID, or cannot be read."""

    code = "invalid-path"


class LocationTooLongError(UserError):
    """What was asked for is elsewhere, and the address is too long to be told in a header field."""

    code = "location-too-long"
    status = 414


# Header lines, each with its CRLF.


def moved_headers(location: bytes, cache: bytes) -> bytes:
    """Return the header lines of a redirect; raise LocationTooLongError."""
    if len(location) > LOCATION_BYTES_MAX:
        raise LocationTooLongError(
            f"the address that this leads to has over {LOCATION_BYTES_MAX} bytes",
            hint="ask for it directly, with its final slash and at its own host",
        )
    return b"location: %b\r\ncache-control: %b\r\n%b" % (location, cache, CORS)


def file_headers(kind: bytes, path: str, cache: bytes, roots: Sequence[CID] = ()) -> bytes:
    """Return the header lines of a file of a media type, found at `path`."""
    return b"content-type: %b\r\ncache-control: %b\r\n%b%b" % (
        kind,
        cache,
        path_lines(path, roots),
        CORS,
    )


def shared_headers(block: bytes) -> bytes:
    """Return header lines as they may be sent from an origin that many share."""
    kept, end = b"", SANDBOX
    for line in block.splitlines(keepends=True):
        name, _, value = line.partition(b": ")
        if name.decode() not in ORIGIN_FIELDS:
            kept += line
        if name == b"content-type" and _PASSIVE.fullmatch(value):
            end = b""
    return kept + end


def block_headers(
    path: str,
    roots: Sequence[CID],
    cache: bytes = IMMUTABLE,
    *,
    filename: str | None = None,
    chosen: bytes = b"",
) -> bytes:
    """Return the header lines of the raw block at the end of a path.

    `filename` is what to save it as, `chosen` what `chosen_lines` says where `Accept` chose it.
    """
    fields = b"content-type: %b\r\ncache-control: %b\r\nx-content-type-options: nosniff\r\n" % (
        RAW_TYPE,
        cache,
    )
    name = disposition("attachment", filename or f"{roots[-1]}.bin")
    return fit_headers(fields + name + path_lines(path, roots) + CORS + chosen)


def listing_headers(
    path: str, roots: Sequence[CID] = (), cache: bytes = IMMUTABLE, *, as_json: bool
) -> bytes:
    """Return the header lines of a directory's listing; what it shows runs nothing.

    A listing of what never changes is kept for a week all the same: its look may change.
    """
    kind = b"application/json" if as_json else b"text/html; charset=utf-8"
    return (
        b"content-type: %b\r\ncache-control: %b\r\nvary: accept\r\n"
        b"x-content-type-options: nosniff\r\n%b%b%b"
    ) % (
        kind,
        LISTING_CACHE if cache == IMMUTABLE else cache,
        POLICY,
        path_lines(path, roots),
        CORS,
    )


def chosen_lines(path: str, query: str) -> bytes:
    """Return the header lines of what `Accept` had a part in choosing.

    The decoded path and the query lead to the same without that field.
    """
    location = b"%b?%b" % (quote(path).encode() or b"/", query.encode())
    return b"vary: accept\r\ncontent-location: %b\r\n" % location


def fit_headers(lines: bytes) -> bytes:
    """Leave out what can be done without, where header lines together would be too long.

    First go those that only tell about the address, then those for pages of other origins, at last
    the name to save it under.
    """
    for name in _EXPENDABLE:
        if len(lines) <= HEADERS_BYTES_MAX:
            break
        lines = b"".join(_without(line, name) for line in lines.splitlines(keepends=True))
    return lines


def _without(line: bytes, name: bytes) -> bytes:
    if not line.startswith(name + b":"):
        return line
    if name == b"content-disposition":
        return line.partition(b";")[0].removesuffix(b"\r\n") + b"\r\n"
    return b""


def path_lines(path: str, roots: Sequence[CID] = ()) -> bytes:
    """Return `x-ipfs-path` and `x-ipfs-roots`, each left out where it would be too long."""
    where, along = quote(path).encode(), ",".join(map(str, roots)).encode()
    lines = b""
    if len(where) <= PATH_HEADER_BYTES_MAX:
        lines += b"x-ipfs-path: %b\r\n" % where
    if roots and len(along) <= ROOTS_HEADER_BYTES_MAX:
        lines += b"x-ipfs-roots: %b\r\n" % along
    return lines


def split_content_path(path: bytes) -> tuple[CID, str]:
    """Split `/ipfs/{cid}/{path}` into the CID and `/{path}`, or an empty path without a slash.

    The path is percent-decoded. Raises UserError for a malformed one.
    """
    if len(path) > PATH_BYTES_MAX:
        raise _too_long()
    name, slash, below = path[1:].partition(b"/")[2].partition(b"/")
    try:
        root = CID.parse(name.decode("ascii", "replace"))
    except UserError as error:
        shown = path[:QUOTED_BYTES_MAX].decode("ascii", "replace")
        raise InvalidPathError(f'invalid path "{shown}": {error.what}', hint=error.hint) from error
    return root, "/" + decode_path(below) if slash else ""


def decode_path(path: bytes) -> str:
    """Percent-decode a path once; raise UserError for NUL bytes, bad UTF-8 and dot segments."""
    if len(path) > PATH_BYTES_MAX:
        raise _too_long()
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UserError("the path is not UTF-8", hint="percent-encode it as UTF-8") from error
    if "\0" in text or any(segment in (".", "..") for segment in text.split("/")):
        raise UserError("the path has dot segments or a NUL", hint="name the file directly")
    return text


def _too_long() -> UserError:
    return UserError(
        f"a path has at most {PATH_BYTES_MAX} bytes", hint="fetch the folder's CAR instead"
    )
