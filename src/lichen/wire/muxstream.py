"""A stream of a `mux.Mux` as an asyncio transport: to its protocol a connection like any other."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from lichen.wire.mux import HIGH_BYTES, Stream

if TYPE_CHECKING:
    from lichen.wire.mux import Mux

_LOG = logging.getLogger(__name__)


class StreamTransport(Stream, asyncio.Transport):
    """A stream that looks to its protocol like a connection of its own."""

    def __init__(
        self, mux: Mux, number: int, loop: asyncio.AbstractEventLoop, below: asyncio.Transport
    ) -> None:
        super().__init__(mux, number)
        self._loop = loop
        self._below = below
        self._closing = False
        self._lost = False
        self._resuming = False
        self._protocol: Any = None

    # What the protocol asks of its transport; `write` is the stream's.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what comes to another protocol."""
        self._protocol = protocol
        self.read_by(self._protocol.data_received)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who gets what comes."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell the addresses of the connection below; there is no socket to hand out."""
        if name in {"peername", "sockname"}:
            return self._below.get_extra_info(name, default)
        return default

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Tell whether bytes are delivered."""
        return not (self.paused or self._closing)

    def writelines(self, list_of_data: Any) -> None:
        """Write several pieces as one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Tell that the two directions end apart."""
        return True

    def write_eof(self) -> None:
        """End writing, read on."""
        self.end()

    def pause_reading(self) -> None:
        """Hold what comes; the window bounds it."""
        self._resuming = False
        if not self._closing:
            self.pause()

    def resume_reading(self) -> None:
        """Deliver what was held from the next turn on."""
        if self.paused and not self._closing and not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._resuming:
            self._resuming = False
            if self.paused and not self._closing:
                self.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set what may be queued before the protocol is told to stop, and to go on."""
        if high is None:
            high = HIGH_BYTES if low is None else 4 * low
        self.high = high
        self.low = high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the window or the connection."""
        return self.queued

    def close(self) -> None:
        """End both directions once what is queued is out."""
        if not self._closing:
            self._closing = True
            self.leave()

    def abort(self) -> None:
        """End both directions now."""
        self._closing = True
        self.reset()
        self._lose(None)

    # What the stream hears.

    def on_open(self) -> None:
        """Tell the protocol that it is connected."""
        self._protocol.connection_made(self)

    def on_end(self) -> None:
        """End our side too, unless the protocol wants to write on."""
        if not self._protocol.eof_received():
            self.close()

    def on_gone(self, error: Exception | None) -> None:
        """Tell the protocol, once this turn's work is done."""
        self._closing = True
        self._lose(error)

    def on_full(self) -> None:
        """Pass back-pressure on."""
        self._protocol.pause_writing()

    def on_drained(self) -> None:
        """Pass the end of back-pressure on."""
        if not self._closing:
            self._protocol.resume_writing()

    def on_sent(self) -> None:
        """Be done, if closed: everything is out."""
        if self._closing:
            self._lose(None)

    def on_crash(self, error: Exception) -> None:
        """Say which protocol failed."""
        _LOG.error("%s failed", type(self._protocol).__name__, exc_info=error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._protocol.connection_lost, error)
