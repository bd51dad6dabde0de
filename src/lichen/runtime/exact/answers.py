"""An exact function's HTTP, as a worker speaks it to its node: one request a connection."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import httptools
import msgspec

from lichen.runtime.exact.envelope import (
    HEADERS_MAX,
    LogEntry,
    MalformedOutputError,
    Pair,
    RequestHead,
    unpack_response,
)
from lichen.runtime.exact.outcome import Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

REPORT_FIELD: Final = "lichen-exact"
RUN_FIELD: Final = "lichen-run"
MESSAGE_CHARS_MAX: Final = 1000
PRIVATE_PREFIX: Final = "lichen-"

# What belongs to a connection, or is decided by whoever sends the response.
_NOT_PASSED: Final = frozenset(
    ("connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
_KINDS: Final = frozenset(kind.value for kind in Kind)
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Report(msgspec.Struct, frozen=True):
    """What a node learns of a run: `cpu_us` of CPU, `memory_mb_ms` MiB-milliseconds."""

    kind: Kind
    fuel: int
    cpu_us: int
    memory_mb_ms: int

    def text(self) -> str:
        """Return it as the value of a header."""
        return f"{self.kind} {self.fuel} {self.cpu_us} {self.memory_mb_ms}"


def read_report(value: bytes) -> Report | None:
    """Read a report; None when it is none."""
    parts = value.decode("latin-1").split(" ")
    if len(parts) != 4 or parts[0] not in _KINDS or not all(p.isdecimal() for p in parts[1:]):
        return None
    fuel, cpu_us, memory_mb_ms = map(int, parts[1:])
    return Report(Kind(parts[0]), fuel, cpu_us, memory_mb_ms)


class Incoming:
    """Reads one request; `on_request(head, body, run)` is called when all of it is there.

    Raises ValueError for what is no request or larger than `body_bytes_max`.
    """

    def __init__(
        self, on_request: Callable[[RequestHead, bytes, str], None], body_bytes_max: int
    ) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._on_request, self._bytes_max = on_request, body_bytes_max
        self._target, self._headers = b"", list[Pair]()
        self._body = bytearray()
        self._done = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ValueError(str(error)) from error

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body
        if len(self._body) > self._bytes_max:
            raise ValueError("the body is too large")

    def on_message_complete(self) -> None:
        """Hand the request over."""
        if self._done:
            return
        self._done = True
        found = dict(self._headers)
        scheme = "https" if found.get("x-forwarded-proto") == "https" else "http"
        target = self._target.decode("latin-1")
        url = f"{scheme}://{found.get('host', 'localhost')}{target}"
        headers = tuple(h for h in self._headers if _passes(h[0]))
        method = self._parser.get_method().decode("latin-1")
        run = found.get(RUN_FIELD, "")
        self._on_request(RequestHead(method, url, headers), bytes(self._body), run)


def _passes(name: str) -> bool:
    return name not in _NOT_PASSED and not name.startswith(PRIVATE_PREFIX)


def seed_of(run: str) -> bytes:
    """Return the seed of a run that nobody else has to repeat: public, and its own."""
    return hashlib.sha256(b"lichen/exact/seed/1" + run.encode()).digest()


def response_bytes(outcome: Outcome, report: Report) -> bytes:
    """Write an outcome as an HTTP response with its report."""
    if outcome.kind is not Kind.OK:
        return _failure(outcome, report)
    try:
        head, body = unpack_response(outcome.output)
    except MalformedOutputError as error:
        text = str(error).encode()
        return _failure(Outcome(Kind.EXCEPTION, text, outcome.fuel), report)
    lines = [f"HTTP/1.1 {head.status} "]
    lines += [f"{name}: {value}" for name, value in head.headers[:HEADERS_MAX] if _ok(name, value)]
    return _joined(lines, body, report)


def _ok(name: str, value: str) -> bool:
    lower = name.lower()
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value)) and _passes(lower)


def _failure(outcome: Outcome, report: Report) -> bytes:
    text = outcome.output.decode("utf-8", "replace")[:MESSAGE_CHARS_MAX]
    error = f"lichen-error: {outcome.kind} {quote(text)}".rstrip()
    return _joined(["HTTP/1.1 500 ", error], b"", report)


def _joined(lines: list[str], body: bytes, report: Report) -> bytes:
    lines += [
        f"{REPORT_FIELD}: {report.text()}", f"content-length: {len(body)}", "connection: close",
        "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode("latin-1") + body


def lines_of(entries: list[LogEntry], lines_max: int) -> list[tuple[str, str]]:
    """Return console lines as they are sent."""
    return [(entry.level, entry.text) for entry in entries[:lines_max]]
