"""Requests and responses as an exact run sees them: one spelling each, as bytes.

Input and output are `length of head (4 bytes, little-endian) || head (JSON) || body`. What the
prelude hands back at the end of a run is `kind (1 byte) || length of logs (4) || logs (JSON) ||
output`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lichen.errors import LichenError
from lichen.runtime.exact.outcome import Kind

LENGTH_BYTES: Final = 4
HEADERS_MAX: Final = 200
HEAD_BYTES_MAX: Final = 32 * 1024
STATUS_MIN, STATUS_MAX = 200, 599
KINDS: Final = (Kind.OK, Kind.EXCEPTION, Kind.OUT_OF_MEMORY)

Pair = tuple[str, str]


class MalformedOutputError(LichenError):
    """What a run gave back is no response."""

    code = "malformed-output"


class RequestHead(msgspec.Struct, frozen=True):
    """What was asked: names of headers in lower case, in the order they came."""

    method: str
    url: str
    headers: tuple[Pair, ...] = ()


class ResponseHead(msgspec.Struct, frozen=True):
    """What was answered."""

    status: Annotated[int, msgspec.Meta(ge=STATUS_MIN, le=STATUS_MAX)]
    headers: Annotated[tuple[Pair, ...], msgspec.Meta(max_length=HEADERS_MAX)] = ()


class LogEntry(msgspec.Struct, frozen=True):
    """One console call."""

    level: str
    text: str


_requests = msgspec.json.Encoder()
_responses = msgspec.json.Decoder(ResponseHead)
_logs = msgspec.json.Decoder(list[tuple[str, str]])


def pack_request(head: RequestHead, body: bytes) -> bytes:
    """Return a run's input."""
    encoded = _requests.encode(head)
    return len(encoded).to_bytes(LENGTH_BYTES, "little") + encoded + body


def split_request(data: bytes) -> tuple[bytes, bytes]:
    """Split a run's input into head and body; raise ValueError when it is none."""
    try:
        return _cut(data)
    except MalformedOutputError as error:
        raise ValueError("the input says that it is longer than it is") from error


def unpack_response(output: bytes) -> tuple[ResponseHead, bytes]:
    """Read the output of a run that ended `ok`; raise MalformedOutputError."""
    head, body = _cut(output)
    if len(head) > HEAD_BYTES_MAX:
        raise MalformedOutputError("the response's headers are too large", hint="send fewer")
    try:
        return _responses.decode(head), body
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedOutputError(f"no response: {error}", hint="return a Response") from error


def unpack_result(data: bytes) -> tuple[Kind, bytes, bytes]:
    """Split what the prelude handed back into kind, logs and output."""
    if not data or data[0] >= len(KINDS):
        raise MalformedOutputError("the run gave back nothing")
    logs, output = _cut(data[1:])
    return KINDS[data[0]], logs, output


def unpack_logs(logs: bytes) -> list[LogEntry]:
    """Read a run's console lines; what is malformed counts as none."""
    try:
        return [LogEntry(level, text) for level, text in _logs.decode(logs)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def _cut(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    rest = data[LENGTH_BYTES:]
    if len(data) < LENGTH_BYTES or length > len(rest):
        raise MalformedOutputError("the run gave back less than it says")
    return rest[:length], rest[length:]
