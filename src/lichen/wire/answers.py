"""What a router may answer: bytes that are ready, or work that goes on for a while.

`Work` is whatever occupies a connection between a request's head and the end of its response; the
connection hands it every event until it calls `connection.finished()`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lichen.wire.connection import Connection
    from lichen.wire.heads import RequestHead

JOIN_BYTES_MAX: Final = 64 * 1024
_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """Return the status line, CRLF included."""
    return _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Ready:
    """A response that exists already: its whole head, Content-Length included, and its body.

    Reusable: one instance may answer any number of requests. For a HEAD request only the head goes
    out. One that `lasts` may answer the same request again, on its connection and for `TICK_S`,
    before the router is asked anew.
    """

    __slots__ = ("body", "head", "lasts", "status", "whole")

    def __init__(self, head: bytes, body: bytes = b"") -> None:
        self.head = head
        self.body = body
        self.status = int(head[9:12])
        self.lasts = False
        # One buffer is written faster than two; large bodies are not worth a copy.
        self.whole = head + body if len(body) <= JOIN_BYTES_MAX else b""

    @classmethod
    def of(
        cls, status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> Ready:
        """Build one from its parts; Content-Length is added."""
        parts = [status_line(status)]
        parts += [b"%b: %b\r\n" % pair for pair in headers]
        if status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        return cls(b"".join(parts), body)


class Asgi:
    """Hand the request to the ASGI app, with a bound of its own on the request body."""

    __slots__ = ("body_bytes_max",)

    def __init__(self, body_bytes_max: int) -> None:
        self.body_bytes_max = body_bytes_max


class Work:
    """The one thing a connection is busy with. Every method is called by the connection."""

    def start(self, connection: Connection, head: RequestHead) -> None:
        """Begin to answer; may finish at once."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Take bytes the client sent after the head: the body, then whatever is pipelined."""
        raise NotImplementedError

    def client_gone(self) -> None:
        """Give up: the client's connection is lost."""

    def client_full(self) -> None:
        """Stop producing: the client does not read fast enough."""

    def client_drained(self) -> None:
        """Go on producing."""

    def sweep(self, now: float) -> None:
        """Look for passed deadlines; called every `TICK_S` with the monotonic time in seconds."""


Answer = Ready | Asgi | Work | None
