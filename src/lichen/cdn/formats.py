"""In which form content is asked for, and which header fields it is sent with. Pure.

`?format=` decides before `Accept` (https://specs.ipfs.tech/http-gateways/trustless-gateway).
"""

from __future__ import annotations

import enum
import mimetypes
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote_to_bytes

import msgspec

from lichen.content import CID
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH_BYTES_MAX = 4096
PATH_HEADER_BYTES_MAX = 512
IMMUTABLE = b"public, max-age=29030400, immutable"
RAW_TYPE = b"application/vnd.ipld.raw"
CAR_TYPE = b"application/vnd.ipld.car"
LISTING_CACHE = b"public, max-age=604800, stale-while-revalidate=2678400"
LISTING_ENTRIES = 1000
LISTING_FROM_MAX = 1_000_000
_PARAMETERS_MAX = 16
_TEXT_TYPES = ("text/", "application/javascript", "application/json", "image/svg+xml")
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
_LISTING_POLICY = b"default-src 'none'; style-src 'unsafe-inline'"


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


class Form(enum.Enum):
    """How content is sent."""

    PLAIN = "plain"
    RAW = "raw"
    CAR = "car"


class Wanted(msgspec.Struct, frozen=True):
    """What a request asks for. `scope` is of a CAR: all, entity or block."""

    form: Form = Form.PLAIN
    scope: str = "all"
    as_json: bool = False
    start: int = 0
    only_if_cached: bool = False


def read_wanted(query: str, headers: Mapping[str, str]) -> Wanted:
    """Read query and header fields (lower-case names); raise UserError for what is not offered."""
    try:
        asked = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_PARAMETERS_MAX))
    except ValueError as error:
        raise UserError(f"over {_PARAMETERS_MAX} parameters", hint="leave some out") from error
    accept = headers.get("accept", "")
    name = asked.get("format")
    form = _form_of_accept(accept) if name is None else _form_named(name)
    scope = asked.get("dag-scope", "all")
    if scope not in {"all", "entity", "block"} or "entity-bytes" in asked:
        raise UserError(
            "dag-scope is one of all, entity, block; entity-bytes is not offered",
            hint="fetch the range of the plain file, or the blocks one by one",
        )
    start = asked.get("from", "0")
    if not start.isdecimal() or len(start) > 7 or int(start) > LISTING_FROM_MAX:
        raise UserError(f"from is a number up to {LISTING_FROM_MAX}", hint="fetch a CAR instead")
    return Wanted(
        form,
        scope,
        as_json="application/json" in accept and "text/html" not in accept,
        start=int(start),
        only_if_cached="only-if-cached" in headers.get("cache-control", "").lower(),
    )


def _form_named(name: str) -> Form:
    if name in {Form.RAW.value, Form.CAR.value}:
        return Form(name)
    raise NotAcceptableError(
        f"content is not offered as {name[:40]!r}", hint="format is raw or car, or left out"
    )


def _form_of_accept(accept: str) -> Form:
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip() == RAW_TYPE.decode():
            return Form.RAW
        if kind.strip() == CAR_TYPE.decode():
            _check_car(parameters)
            return Form.CAR
    if "application/vnd.ipld" in accept or "application/vnd.ipfs" in accept:
        raise NotAcceptableError(
            f"content is not offered as {accept[:80]!r}", hint="ask for raw blocks or a CAR"
        )
    return Form.PLAIN


def _check_car(parameters: str) -> None:
    offered = {"version": {"1"}, "order": {"dfs", "unk"}, "dups": {"n"}}
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if value.strip('"') not in offered.get(name, {value.strip('"')}):
            raise NotAcceptableError(
                f"a CAR with {parameter.strip()[:40]} is not offered",
                hint="CARs are version=1, order=dfs, dups=n",
            )


# Header lines, each with its CRLF.


def file_headers(name: str, path: str, cache: bytes) -> bytes:
    """Return the header lines of a file that is called `name`, found at `path`."""
    return (b"content-type: %b\r\ncache-control: %b\r\n%baccess-control-allow-origin: *\r\n") % (
        media_type(name),
        cache,
        path_header(path),
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


def block_headers(cid: CID) -> bytes:
    """Return the header lines of one raw block."""
    name = str(cid).encode()
    return (
        b"content-type: %b\r\ncache-control: %b\r\nx-content-type-options: nosniff\r\n"
        b'content-disposition: attachment; filename="%b.bin"\r\n'
        b"x-ipfs-path: /ipfs/%b\r\nx-ipfs-roots: %b\r\naccess-control-allow-origin: *\r\n"
    ) % (RAW_TYPE, IMMUTABLE, name, name, name)


def car_headers(cid: CID, path: str, scope: str) -> bytes:
    """Return the header lines of the CAR below a path; it has no ranges."""
    name = str(cid).encode()
    return (
        b"content-type: %b; version=1; order=dfs; dups=n\r\ncache-control: %b\r\n"
        b"x-content-type-options: nosniff\r\naccept-ranges: none\r\n"
        b'content-disposition: attachment; filename="%b.car"\r\netag: W/"%b.car.%b"\r\n'
        b"%baccess-control-allow-origin: *\r\n"
    ) % (CAR_TYPE, IMMUTABLE, name, name, scope.encode(), path_header(path))


def listing_headers(etag: bytes, path: str, *, as_json: bool) -> bytes:
    """Return the header lines of a directory's listing; what it shows runs nothing."""
    kind = b"application/json" if as_json else b"text/html; charset=utf-8"
    return (
        b"content-type: %b\r\ncache-control: %b\r\netag: %b\r\nvary: accept\r\n"
        b"content-security-policy: %b\r\nx-content-type-options: nosniff\r\n"
        b"%baccess-control-allow-origin: *\r\n"
    ) % (kind, LISTING_CACHE, etag, _LISTING_POLICY, path_header(path))


def path_header(path: str) -> bytes:
    """Return the `x-ipfs-path` line, or nothing for a path too long to name."""
    value = quote(path).encode()
    return b"x-ipfs-path: %b\r\n" % value if len(value) <= PATH_HEADER_BYTES_MAX else b""


def media_type(name: str) -> bytes:
    """Guess a content type from a file's name."""
    guessed, encoding = mimetypes.guess_type(name.rsplit("/", 1)[-1], strict=False)
    if guessed is None or encoding is not None:
        return b"application/octet-stream"
    if guessed.startswith(_TEXT_TYPES):
        return f"{guessed}; charset=utf-8".encode()
    return guessed.encode()


def split_content_path(path: bytes) -> tuple[CID, str]:
    """Split `/ipfs/{cid}/{path}` into the CID and `/{path}`, or an empty path without a slash.

    The path is percent-decoded. Raises UserError for a malformed one.
    """
    if len(path) > PATH_BYTES_MAX:
        raise UserError(f"a path has at most {PATH_BYTES_MAX} bytes")
    name, slash, below = path[1:].partition(b"/")[2].partition(b"/")
    return CID.parse(name.decode("ascii", "replace")), "/" + decode_path(below) if slash else ""


def decode_path(path: bytes) -> str:
    """Percent-decode a path once; raise UserError for NUL bytes, bad UTF-8 and dot segments."""
    if len(path) > PATH_BYTES_MAX:
        raise UserError(f"a path has at most {PATH_BYTES_MAX} bytes")
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UserError("the path is not UTF-8") from error
    if "\0" in text or any(segment in (".", "..") for segment in text.split("/")):
        raise UserError("the path has dot segments or a NUL", hint="name the file directly")
    return text
