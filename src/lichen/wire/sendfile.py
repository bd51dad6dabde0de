"""A file's bytes from the page cache to the socket, without passing through Python.

uvloop has no `loop.sendfile`, so the connection's own socket is used: a duplicate of its
descriptor is watched for writability while the transport stands still. Head and first bytes leave
in one segment (MSG_MORE). Each turn of the event loop sends at most `TURN_BYTES_MAX`, so one large
download does not starve the other connections. A stream of a multiplexed connection has no socket
of its own: there the bytes are read and written in pieces of `COPY_BYTES_MAX`, and so they are
when this process has no descriptor left for the duplicate.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from lichen.wire.answers import Work
from lichen.wire.framing import framing_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.wire.connection import Connection
    from lichen.wire.framing import Framing
    from lichen.wire.heads import RequestHead

TURN_BYTES_MAX: Final = 2 * 1024 * 1024
COPY_BYTES_MAX: Final = 64 * 1024


class SendFile(Work):
    """Answers with a head and `length` bytes of the open file `fd` from `offset` on.

    `head` is a whole response head that says `content-length: length`. `release` is called exactly
    once when the file is no longer read, however the answer ended; the descriptor is the caller's.
    A file shorter than promised ends the connection, so that the client notices.
    """

    def __init__(
        self,
        head: bytes,
        fd: int,
        offset: int,
        length: int,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.head_bytes = head
        self.fd = fd
        self.offset = offset
        self.left = length
        self._release = release
        self._watching = False
        self._draining = False
        self._copying = False
        self._framing: Framing | None = None

    def start(self, connection: Connection, head: RequestHead) -> None:
        """Send as much as the socket takes at once."""
        self._connection = connection
        self._keep_alive = head.keep_alive
        if head.content_length:
            self._framing = framing_for(head.content_length)
            self._keep_alive = False
        if head.method == b"HEAD":
            self.left = 0
        if not self._keep_alive:
            self.head_bytes = self.head_bytes[:-2] + b"connection: close\r\n\r\n"
        connection.counters.statuses[int(self.head_bytes[9:12]) // 100] += 1
        if connection.transport.get_extra_info("socket") is None:
            self._copying = True
            self._copy()
        elif connection.transport.get_write_buffer_size():
            self._drain_first()
        else:
            self._begin()

    def feed(self, data: bytes) -> None:
        """Hold what is pipelined."""
        self._connection.hold(data)

    def client_gone(self) -> None:
        """Let the file go."""
        self._connection.counters.client_gone += 1
        self._close()

    def client_drained(self) -> None:
        """Begin: the transport's own buffer is empty now, the socket is ours. Or copy on."""
        if self._copying:
            self._copy()
        elif self._draining:
            self._draining = False
            self._connection.transport.set_write_buffer_limits()
            self._begin()

    def sweep(self, now: float) -> None:
        """Cut off a client that stopped reading."""
        if now - self._connection.seen > self._connection.limits.send_idle_s:
            self._connection.abort()

    def _drain_first(self) -> None:
        # A limit of zero makes the transport call resume_writing when its buffer is empty.
        self._draining = True
        self._connection.transport.set_write_buffer_limits(high=0)

    def _begin(self) -> None:
        try:
            self._socket = self._connection.own_socket()
        except OSError:  # no descriptor is free for a second way to the socket
            self._copying = True
            self._copy()
        else:
            self._turn()

    def _turn(self) -> None:
        """Send one bounded piece, then wait until the socket takes more."""
        before = len(self.head_bytes) + self.left
        try:
            if self.head_bytes:
                more = socket.MSG_MORE if self.left else 0
                sent = self._socket.send(self.head_bytes, more)
                self.head_bytes = self.head_bytes[sent:]
            if self.left and not self.head_bytes:
                sent = os.sendfile(
                    self._socket.fileno(), self.fd, self.offset, min(self.left, TURN_BYTES_MAX)
                )
                if not sent:
                    self._fail()
                    return
                self.offset += sent
                self.left -= sent
        except BlockingIOError:
            pass
        except OSError:
            self._fail()
            return
        self._count(before - len(self.head_bytes) - self.left)
        if self.left or self.head_bytes:
            self._watch()
        else:
            self._end()

    def _copy(self) -> None:
        """Send pieces until the client is full; its window bounds a turn."""
        connection = self._connection
        connection.seen = connection.listener.now
        out, self.head_bytes = self.head_bytes, b""
        while out or (self.left and not connection.flow.write_paused):
            piece = b""
            if self.left:
                piece = os.pread(self.fd, min(self.left, COPY_BYTES_MAX), self.offset)
                if not piece:
                    self._fail()
                    return
                self.offset += len(piece)
                self.left -= len(piece)
            connection.write(out + piece if out else piece)
            out = b""
        if not self.left:
            self._copying = False
            self._end()

    def _count(self, sent: int) -> None:
        connection = self._connection
        connection.counters.bytes_out += sent
        if sent:
            connection.seen = connection.listener.now

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._connection.loop.add_writer(self._socket.fileno(), self._turn)

    def _end(self) -> None:
        self._close()
        self._connection.finished(self._framing, keep_alive=self._keep_alive)

    def _fail(self) -> None:
        self._close()
        self._connection.abort()

    def _close(self) -> None:
        if self._watching:
            self._watching = False
            self._connection.loop.remove_writer(self._socket.fileno())
        release, self._release = self._release, None
        if release is not None:
            release()
