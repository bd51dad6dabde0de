"""The listening end of a multiplexed connection: each stream is served like a client of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.wire.answers import Work
from lichen.wire.errors import MuxError
from lichen.wire.mux import Mux
from lichen.wire.muxlink import LINK_HIGH_BYTES, PROTOCOL
from lichen.wire.muxstream import StreamTransport

if TYPE_CHECKING:
    from lichen.wire.connection import Connection
    from lichen.wire.heads import RequestHead
    from lichen.wire.mux import Stream

SILENT_S: Final = 60.0  # without a frame, not even a ping, after which the dialling end is gone
_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % PROTOCOL
)


def asks_for_mux(head: RequestHead) -> bool:
    """Tell whether a request asks to go on with streams."""
    return (
        head.get(b"upgrade").lower() == PROTOCOL
        and b"upgrade" in head.get(b"connection").lower()
        and not head.content_length
    )


class MuxWork(Work):
    """A client's connection of which each stream is served as a client connection."""

    def start(self, connection: Connection, head: RequestHead) -> None:
        """Switch."""
        del head
        self._connection = connection
        self._mux = mux = Mux(
            connection.transport.write, connection.transport.writelines, self._wake, self._accept
        )
        self._flush = mux.flush
        connection.transport.set_write_buffer_limits(LINK_HIGH_BYTES)
        connection.counters.statuses[1] += 1
        connection.write(_SWITCH)

    def _wake(self) -> None:
        self._connection.loop.call_soon(self._flush)

    def _accept(self, mux: Mux, number: int) -> Stream:
        connection = self._connection
        served = StreamTransport(mux, number, connection.loop, connection.transport)
        served.set_protocol(
            type(connection)(
                connection.listener,
                config=connection.config,
                server_state=connection.server_state,
                app_state=connection.app_state,
            )
        )
        return served

    def feed(self, data: bytes) -> None:
        """Take frames."""
        connection = self._connection
        connection.counters.bytes_in -= len(data)  # counted where they belong, at each stream
        try:
            self._mux.receive(data)
        except MuxError:
            connection.counters.malformed += 1
            connection.abort()

    def client_gone(self) -> None:
        """End all streams."""
        self._mux.broke(ConnectionResetError("the connection below was lost"))

    def client_full(self) -> None:
        """Let the streams queue."""
        self._mux.block()

    def client_drained(self) -> None:
        """Let them send."""
        self._mux.unblock()

    def stop(self) -> None:
        """Take no new streams; each open one ends by itself."""
        self._mux.go_away()
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if not self._mux.streams:
            self._connection.transport.close()

    def sweep(self, now: float) -> None:
        """Close what is silent, or has served its last stream."""
        connection = self._connection
        self._mux.look()
        if connection.stopping:
            self._end_if_unused()
        elif now - connection.seen > SILENT_S:
            connection.abort()
