"""A request that the router leaves to the ASGI app: bounded, checked, then uvicorn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.wire.answers import Work
from lichen.wire.errors import BodyTooLargeError, MalformedError, NotImplementedMethodError
from lichen.wire.framing import LAST_CHUNK, Framing, chunk, framing_for
from lichen.wire.heads import CHUNKED, without_fields

if TYPE_CHECKING:
    from lichen.wire.connection import Connection
    from lichen.wire.heads import RequestHead


ASGI_METHODS: Final = frozenset(
    {b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE"}
)  # of RFC 9110 and 5789: uvicorn's parser knows some others, and answers the rest in its own words


class AsgiWork(Work):
    """Feeds uvicorn's own parser with exactly one request, its chunked body framed anew."""

    def __init__(self, body_bytes_max: int) -> None:
        self._bytes_max = body_bytes_max
        self._bytes = 0
        self._framing: Framing | None = None
        self._chunked = False
        self._answered = False

    def start(self, connection: Connection, head: RequestHead) -> None:
        """Hand the head over; a WebSocket leaves with it for uvicorn's own protocol class."""
        self._connection = connection
        self._keep_alive = head.keep_alive
        if head.method not in ASGI_METHODS:
            connection.say_and_close(_unknown_method(head.method))
            return
        if head.content_length > self._bytes_max:
            connection.say_and_close(self._too_large())
            return
        if head.content_length:
            self._framing = framing_for(head.content_length)
            self._chunked = head.content_length == CHUNKED
        block = head.block
        if not head.upgrade and b"upgrade" in head:  # llhttp would stop at any protocol switch
            block = without_fields(block, frozenset({b"upgrade"}))
        connection.asgi_feed(block)

    def feed(self, data: bytes) -> None:
        """Pass the body on, hold what is pipelined behind it."""
        framing = self._framing
        connection = self._connection
        if framing is None or framing.done:
            connection.hold(data)
            return
        try:
            payload = framing.feed(data)
        except MalformedError as error:
            self._break_off(error)
            return
        self._bytes += len(payload)
        if self._bytes > self._bytes_max:
            self._break_off(self._too_large())
            return
        if self._chunked:
            payload = chunk(payload) + (LAST_CHUNK if framing.done else b"")
        if payload:
            connection.asgi_feed(payload)
        if framing.rest and connection.work is self:
            connection.hold(framing.rest)
        elif framing.rest:
            connection.held += framing.rest

    def responded(self) -> None:
        """Finish, reading the rest of the request body if there is any."""
        self._connection.finished(self._framing, keep_alive=self._keep_alive)

    def client_gone(self) -> None:
        """Nothing to do: uvicorn tells the app."""

    def sweep(self, now: float) -> None:
        """Bound the waits that belong to the client; the app's own time is the app's matter."""
        connection = self._connection
        waited = now - connection.seen
        if connection.flow.write_paused:
            if waited > connection.limits.send_idle_s:
                connection.abort()
        elif (
            self._framing is not None
            and not self._framing.done
            and not connection.flow.read_paused
            and waited > connection.limits.body_idle_s
        ):
            self._break_off(None)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            "the request body is too large", hint=f"send at most {self._bytes_max} bytes"
        )

    def _break_off(self, error: MalformedError | BodyTooLargeError | None) -> None:
        """Tell the app that the client is gone, and the client why if it still can be told."""
        connection = self._connection
        cycle = connection.cycle
        started = cycle is not None and cycle.response_started
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if started:
            connection.abort()
        elif error is None:
            connection.time_out("the request body")
        else:
            connection.say_and_close(error)


def _unknown_method(method: bytes) -> NotImplementedMethodError:
    return NotImplementedMethodError(
        f"the method {method.decode()} is not known here", hint="use GET, HEAD or another of HTTP"
    )
