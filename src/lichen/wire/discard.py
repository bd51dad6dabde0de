"""Reading what nobody wants: the rest of a refused body, or the last bytes before a close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.wire.answers import Work
from lichen.wire.errors import MalformedError

if TYPE_CHECKING:
    from lichen.wire.connection import Connection
    from lichen.wire.framing import Framing


class Discard(Work):
    """Skips the rest of a request body so that the next request can be read."""

    def __init__(self, connection: Connection, framing: Framing) -> None:
        self._connection = connection
        self._framing = framing
        self._left = connection.limits.discard_bytes_max

    def feed(self, data: bytes) -> None:
        """Skip; give up when it is too much or malformed."""
        self._left -= len(data)
        try:
            self._framing.feed(data)
        except MalformedError:
            self._connection.linger()
            return
        if self._framing.done:
            if self._framing.rest:
                self._connection.hold(self._framing.rest)
            self._connection.finished(None, keep_alive=True)
        elif self._left < 0:
            self._connection.linger()

    def sweep(self, now: float) -> None:
        """Close on a client that stopped sending."""
        if now - self._connection.seen > self._connection.limits.body_idle_s:
            self._connection.transport.close()


class Linger(Work):
    """Waits for the client to close after an answer that ends the connection (RFC 9112, 9.6)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._until = connection.listener.now + connection.limits.linger_s
        self._left = connection.limits.discard_bytes_max

    def feed(self, data: bytes) -> None:
        """Skip, within bounds."""
        self._left -= len(data)
        if self._left < 0:
            self._connection.abort()

    def sweep(self, now: float) -> None:
        """Close when the time is over."""
        if now > self._until:
            self._connection.abort()
