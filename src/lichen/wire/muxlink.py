"""The dialling end of a multiplexed connection: one for all streams to an address.

It asks for it by an HTTP/1.1 upgrade to `lichen-mux/1`. A peer that does not offer it is spoken to
on plain connections, one per stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from lichen.errors import LichenError
from lichen.wire.errors import MuxError
from lichen.wire.heads import parse_response
from lichen.wire.mux import Mux
from lichen.wire.muxstream import StreamTransport
from lichen.wire.upstream import Upstream, dialler

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.wire.upstream import Dial

    Factory = Callable[[], asyncio.Protocol]

PROTOCOL: Final = b"lichen-mux/1"
LINK_HIGH_BYTES: Final = 512 * 1024  # in the connection's own buffer before streams queue
HANDSHAKE_BYTES_MAX: Final = 16 * 1024
HANDSHAKE_S: Final = 3.0
PING_S: Final = 5.0  # of silence before the dialling end asks for a sign of life
SILENT_S: Final = 20.0  # after which the other end is taken for dead
UNUSED_S: Final = 60.0  # without a stream, after which the dialling end closes the connection
REFUSED_S: Final = 30.0  # for which a peer that does not offer it is spoken to plainly
_ASK: Final = (
    b"GET / HTTP/1.1\r\nhost: %%b\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % PROTOCOL
)
_LOG = logging.getLogger(__name__)


class _Link(asyncio.Protocol):
    """The dialling end of one multiplexed connection."""

    def __init__(self, host: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._hello = b""
        self._heard = True
        self._heard_at = self._used_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self.switched: asyncio.Future[bool | None] = self._loop.create_future()
        self.mux: Mux | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = transport
        self._transport.set_write_buffer_limits(LINK_HIGH_BYTES)
        self._transport.write(_ASK % self._host)

    def data_received(self, data: bytes) -> None:
        """Take frames, or before them the answer to the upgrade."""
        self._heard = True
        if self.mux is None:
            self._shake(data)
            return
        try:
            self.mux.receive(data)
        except MuxError as error:
            _LOG.warning("%s", error)
            self._transport.abort()

    def _shake(self, data: bytes) -> None:
        self._hello += data
        end = self._hello.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self._hello) > HANDSHAKE_BYTES_MAX:
                self._refused()
            return
        try:
            head = parse_response(self._hello[:end], b"GET")
        except LichenError:
            self._refused()
            return
        if head.status != 101 or head.get(b"upgrade").lower() != PROTOCOL:
            self._refused()
            return
        rest, self._hello = self._hello[end:], b""
        self.mux = mux = Mux(self._transport.write, self._transport.writelines, self._wake)
        self._flush = mux.flush
        self._timer = self._loop.call_later(PING_S, self._look)
        if not self.switched.done():
            self.switched.set_result(True)
        if rest:
            self.data_received(rest)

    def _wake(self) -> None:
        self._loop.call_soon(self._flush)

    def _refused(self) -> None:
        if not self.switched.done():
            self.switched.set_result(False)
        self._transport.abort()

    def pause_writing(self) -> None:
        """Let the streams queue."""
        if self.mux is not None:
            self.mux.block()

    def resume_writing(self) -> None:
        """Let them send."""
        if self.mux is not None:
            self.mux.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all streams."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.switched.done():
            self.switched.set_result(None)
        if self.mux is not None:
            self.mux.broke(exc or ConnectionResetError("the connection below was closed"))

    def open(self, factory: Factory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Open a stream for a new protocol."""
        assert self.mux is not None
        protocol = factory()
        stream = StreamTransport(self.mux, self.mux.last + 1, self._loop, self._transport)
        stream.set_protocol(protocol)
        self.mux.open(stream)
        protocol.connection_made(stream)
        return stream, protocol

    def close(self) -> None:
        """End the connection, and with it all streams."""
        if self._transport is not None:
            self._transport.abort()

    def _look(self) -> None:
        """Ask a silent peer for a sign of life, give a dead one up, close what nobody uses."""
        assert self.mux is not None
        now = time.monotonic()
        if self._heard:
            self._heard, self._heard_at = False, now
        elif now - self._heard_at > SILENT_S:
            self._transport.abort()
            return
        if self.mux.streams:
            self._used_at = now
        elif now - self._used_at > UNUSED_S or self.mux.going:
            self._transport.close()
            return
        self.mux.ping()
        self._timer = self._loop.call_later(PING_S, self._look)


class MuxDialler:
    """Dials one address: `dial` opens a stream of one shared connection, as `Pool` wants it.

    `plain` replaces the way to connect; `host` is for the upgrade's Host field. A peer that does
    not offer the upgrade gets plain connections, and is asked again after `REFUSED_S`.

    `alone` keeps one plain connection beside the shared one, used when nothing else is under way: a
    caller who is alone shares with nobody, and is served a little sooner without frames.
    """

    def __init__(
        self, address: str, *, plain: Dial | None = None, host: bytes = b"", alone: bool = True
    ) -> None:
        self._alone = alone
        self._lone: Upstream | None = None
        self._plain = plain or dialler(address)
        self._host = host or address.encode()
        self._link: _Link | None = None
        self._joining: asyncio.Task[_Link | None] | None = None
        self._plain_until = 0.0

    async def dial(self, factory: Factory) -> object:
        """Open a stream, on a new connection if there is none; else raise OSError."""
        if self._lacks_lone():
            return await self._dial_lone(factory)
        link = self._link
        if link is None or link.mux is None or not link.mux.can_open:
            link = None
            if time.monotonic() >= self._plain_until:
                link = await self._join()
            if link is None:
                return await self._plain(factory)
        return link.open(factory)

    def _lacks_lone(self) -> bool:
        lone = self._lone
        return self._alone and (lone is None or (lone.is_made and lone.transport.is_closing()))

    async def _dial_lone(self, factory: Factory) -> object:
        protocol = factory()
        if isinstance(protocol, Upstream):
            protocol.preferred = True
            self._lone = protocol  # already now: others who dial meanwhile share
        try:
            return await self._plain(lambda: protocol)
        except BaseException:
            self._lone = None
            raise

    async def _join(self) -> _Link | None:
        """Connect once for all who wait for it."""
        if self._joining is None:
            self._joining = asyncio.ensure_future(self._connect())
            self._joining.add_done_callback(_noted)
        return await asyncio.shield(self._joining)

    async def _connect(self) -> _Link | None:
        link = _Link(self._host)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._plain(lambda: link)
                switched = await link.switched
        except TimeoutError:
            link.close()
            raise
        finally:
            self._joining = None
        if switched is None:
            raise ConnectionResetError("the peer closed the connection before it answered")
        if not switched:
            self._plain_until = time.monotonic() + REFUSED_S
            return None
        self._link = link
        return link

    def close(self) -> None:
        """End the shared connection."""
        if self._link is not None:
            self._link.close()


def _noted(joining: asyncio.Task[_Link | None]) -> None:
    """Take a failure as seen, when those who waited for it gave up before."""
    if not joining.cancelled():
        joining.exception()
