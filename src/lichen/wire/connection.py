"""One client connection: reads heads, asks the router, answers in order.

A subclass of uvicorn's httptools protocol. It cuts the byte stream into requests itself and gives
uvicorn only those that the router leaves to the ASGI app, whole and checked. Everything else
(ready bytes, files, upstreams) is answered here, without tasks, futures or timers per request: the
listener's one timer calls `sweep`.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lichen.errors import LichenError
from lichen.wire.answers import Answer, Asgi, Ready, Work
from lichen.wire.asgi import AsgiWork
from lichen.wire.discard import Discard, Linger
from lichen.wire.errors import (
    BodyTooLargeError,
    BusyError,
    ForeignHostError,
    HeadTooLargeError,
    MalformedError,
    NotImplementedMethodError,
    RequestTimeoutError,
)
from lichen.wire.framing import Framing, framing_for
from lichen.wire.heads import RequestHead, parse_request, usual_request
from lichen.wire.muxwork import MuxWork, asks_for_mux
from lichen.wire.problem import problem_ready

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from lichen.wire.listener import Listener

ABORT: Final = "lichen.abort"  # an ASGI extension: `abort()` cuts the connection at once
_END: Final = b"\r\n\r\n"
_TUNNEL: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)++")  # all in one step, because each is a copy
_LOG = logging.getLogger(__name__)


class Connection(HttpToolsProtocol):
    """One client. `work` is what it is busy with; `held` are bytes that wait for their turn."""

    def __init__(self, listener: Listener, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.listener = listener
        self.counters = listener.counters
        self.limits = listener.limits
        self.work: Work | None = None
        self.held = b""
        self.seen = listener.now  # when bytes last moved, either way
        self._router = listener.router
        self.stopping = False
        self._socket: socket.socket | None = None
        self._resuming = False
        self._head_since = 0.0  # when the first byte of the held, incomplete head came
        # Who polls, or plays, or asks for many says the same again: it is read and routed once.
        self._last = b""
        self._last_head: RequestHead | None = None
        self._again = b""
        self._again_at = -1.0  # the tick in which `_again` may answer `_last`

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or turn it away when there are too many."""
        super().connection_made(transport)
        self.counters.connections += 1
        excess = len(self.connections) - self.listener.connections_max
        if excess > 0 and not self.listener.make_room():
            self.counters.refused += 1
            if excess > self.limits.refusals_max:
                self.abort()
                return
            self.say_and_close(
                BusyError("this listener has no free connections", hint="try again shortly")
            )

    def data_received(self, data: bytes) -> None:
        """Read on: into the present work, or the next head."""
        self.seen = self.listener.now
        counters = self.counters
        counters.bytes_in += len(data)
        work = self.work
        if work is not None:
            work.feed(data)
            return
        if self.flow.write_paused:  # no further answers for who does not read those it has
            self.hold(data)
            return
        if self.held:
            self._read_held(data)
            return
        if data == self._last:
            head = self._last_head
        else:
            head = usual_request(data, self.client, self.limits.headers_max)
            if head is not None and len(data) <= self.limits.head_bytes_max:
                self._last, self._last_head, self._again_at = data, head, -1.0
            else:
                head = None
        if head is None:
            self._read_requests(data)
            if self.held:
                self._head_since = self.seen
            return
        counters.requests += 1
        if self._again_at == self.seen:
            counters.statuses[2] += 1
            counters.bytes_out += len(self._again)
            self.transport.write(self._again)
        else:
            self._route(head, b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        work, self.work = self.work, None
        if work is not None:
            work.client_gone()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the client reads slowly."""
        super().pause_writing()
        if self.work is not None:
            self.work.client_full()

    def resume_writing(self) -> None:
        """Pass on that the client caught up."""
        super().resume_writing()
        self.seen = self.listener.now
        if self.work is not None:
            self.work.client_drained()
        elif self.held:
            self._head_since = self.seen  # it was we who kept it waiting
            self._resume_soon()

    # What uvicorn calls.

    def on_message_begin(self) -> None:
        """Let the app cut the connection of a client for which it will not wait."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.abort}}

    def on_response_complete(self) -> None:
        """Go on with what the client sent while the ASGI app answered."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if isinstance(self.work, AsgiWork):
            self.work.responded()

    def shutdown(self) -> None:
        """Close when the present answer is out, at once when there is none."""
        self.stopping = True
        if self.work is None:
            self.transport.close()
        elif isinstance(self.work, AsgiWork):
            super().shutdown()
        elif isinstance(self.work, MuxWork):
            self.work.stop()

    # What work calls.

    def write(self, data: bytes) -> None:
        """Send response bytes."""
        self.counters.bytes_out += len(data)
        self.transport.write(data)

    def hold(self, data: bytes) -> None:
        """Keep pipelined bytes until their turn; stop reading when they are many."""
        self.held += data
        if len(self.held) > self.limits.pipelined_bytes_max:
            self.flow.pause_reading()

    def finished(self, framing: Framing | None, *, keep_alive: bool) -> None:
        """Go on after an answer. `framing` tells how much of the request body was read."""
        self.work = None
        if self.transport.is_closing():
            return
        if framing is not None and not framing.done:
            self._skip_body(framing, keep_alive=keep_alive)
            return
        if not keep_alive or self.stopping:
            self.transport.close()
            return
        self.seen = self.listener.now
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.held:
            self._resume_soon()

    def reply(self, ready: Ready, head: RequestHead, framing: Framing | None) -> None:
        """Send a ready response and finish with the request."""
        unread = framing is not None and not framing.done
        keep_alive = head.keep_alive and not self.stopping
        if unread and (
            head.expects_continue or head.content_length > self.limits.discard_bytes_max
        ):
            keep_alive = False
        out = ready.head
        if not keep_alive and b"\r\nconnection: close\r\n" not in out:
            out = out[:-2] + b"connection: close\r\n\r\n"
        self.counters.statuses[ready.status // 100] += 1
        self.write(out)
        if head.method != b"HEAD" and ready.body:
            self.write(ready.body)
        self.finished(framing, keep_alive=keep_alive)

    def say_and_close(self, error: LichenError) -> None:
        """Answer a request that cannot be read on, and end the connection so that it is seen."""
        ready = problem_ready(error, close=True)
        self.counters.statuses[ready.status // 100] += 1
        self.write(ready.head + ready.body)
        self.linger()

    def linger(self) -> None:
        """Close for writing; read on a little, since a reset would destroy the last answer."""
        self.held = b""
        self.work = None
        if self.transport.is_closing():
            return
        self.work = Linger(self)
        self.transport.write_eof()
        self.flow.resume_reading()

    def own_socket(self) -> socket.socket:
        """Return a duplicate of the connection's socket for direct sends; closed with it.

        Raises OSError when too few descriptors are left for it.
        """
        if self._socket is None:
            number = os.dup(self.transport.get_extra_info("socket").fileno())
            if number >= self.listener.files_max:  # the lowest free one is always taken
                os.close(number)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._socket = socket.socket(fileno=number)
        return self._socket

    def asgi_feed(self, data: bytes) -> None:
        """Give checked bytes to uvicorn's parser."""
        super().data_received(data)

    def waiting_since(self) -> float | None:
        """Return since when this only waits for a request or the rest of its head; None if not.

        Streams of a multiplexed connection take no descriptor, so they need make no room.
        """
        if self.work is not None or self.flow.write_paused or self.transport.is_closing():
            return None
        if self.transport.get_extra_info("socket") is None:
            return None
        return self._head_since if self.held else self.seen

    # What the listener's timer calls.

    def sweep(self, now: float) -> None:
        """Close the connection when a named bound of time has passed."""
        if self.work is not None:
            self.work.sweep(now)
            return
        waited = now - self.seen
        if self.held and not self.flow.write_paused:
            if now - self._head_since > self.limits.header_s:
                self.time_out("the request head")
        elif self.flow.write_paused:
            if waited > self.limits.send_idle_s:
                self.abort()
        elif waited > self.limits.idle_s:
            self.transport.close()
        elif self._last:  # an idle connection costs as little as it can
            self._last, self._last_head, self._again = b"", None, b""

    def time_out(self, what: str) -> None:
        """Tell the client that it was too slow, and close."""
        self.counters.timeouts += 1
        self.say_and_close(
            RequestTimeoutError(f"{what} did not arrive in time", hint="send it faster")
        )

    def abort(self) -> None:
        """Cut the connection: the client must see that its response is not whole."""
        self.transport.abort()

    # Reading requests.

    def _read_held(self, data: bytes) -> None:
        """Go on with a head of which only a part had come."""
        before = self.counters.requests
        data = self.held + data
        self.held = b""
        self._read_requests(data)
        if self.counters.requests != before:
            self._head_since = self.seen

    def _read_requests(self, data: bytes) -> None:
        for _ in range(self.limits.requests_per_turn):
            end = data.find(_END)
            if end < 0 or data[0] == 0x0D:
                data = self._incomplete(data)
                if not data:
                    return
                continue
            end += 4
            if len(data) == end:
                block, rest = data, b""
            else:
                block, rest = data[:end], data[end:]
            if not self._answer(block, rest):
                return
            if self.flow.write_paused:
                self.hold(rest)
                return
            data = rest
        self.hold(data)
        self._resume_soon()

    def _answer(self, block: bytes, rest: bytes) -> bool:
        """Answer one request; True when `rest` holds the next one and the turn is its."""
        limits = self.limits
        counters = self.counters
        counters.requests += 1
        try:
            if len(block) > limits.head_bytes_max:
                raise _head_too_large(limits.head_bytes_max)
            head = parse_request(block, self.client, headers_max=limits.headers_max)
            if head.is_proxied:
                _check_proxied(head, self.listener.config.is_own)
        except LichenError as error:
            counters.malformed += 1
            self.say_and_close(error)
            return False
        if head.method == b"CONNECT":
            counters.statuses[2] += 1
            self.write(_TUNNEL)
            return bool(rest)
        if self.listener.config.mux and asks_for_mux(head):
            self._begin(head, MuxWork(), rest)
            return False
        return self._route(head, rest)

    def _route(self, head: RequestHead, rest: bytes) -> bool:
        try:
            answer = self._router(head)
        except Exception as error:  # noqa: BLE001 (whatever a router raises, the client gets an answer)
            answer = self._failure(error)
        if (
            type(answer) is Ready
            and (head.usual or (head.keep_alive and not head.content_length))
            and answer.whole
            and head.method != b"HEAD"
            and not self.stopping
        ):
            out = answer.whole
            counters = self.counters
            counters.statuses[answer.status // 100] += 1
            counters.bytes_out += len(out)
            self.transport.write(out)
            if answer.lasts and head is self._last_head and answer.status == 200:
                self._again, self._again_at = out, self.seen
            return bool(rest)
        if head.usual and not rest and isinstance(answer, Work):
            self.work = answer
            answer.start(self, head)
        else:
            self._begin(head, answer, rest)
        return False

    def _begin(self, head: RequestHead, answer: Answer, rest: bytes) -> None:
        if isinstance(answer, Ready):
            framing = framing_for(head.content_length) if head.content_length else None
            if rest:
                self.hold(rest)
            self.reply(answer, head, framing)
            return
        if answer is None or isinstance(answer, Asgi):
            bound = self.limits.body_bytes_max if answer is None else answer.body_bytes_max
            answer = AsgiWork(bound)
        self.work = answer
        answer.start(self, head)
        if rest:
            if self.work is answer:
                answer.feed(rest)
            else:
                self._feed_later(rest)

    def _feed_later(self, rest: bytes) -> None:
        """Pass on bytes that came with a head whose answer was finished at once."""
        if self.work is not None:
            self.work.feed(rest)
        elif not self.transport.is_closing():
            self.hold(rest)
            self._resume_soon()

    def _failure(self, error: Exception) -> Ready:
        if isinstance(error, LichenError):
            return problem_ready(error)
        _LOG.error("the router failed", exc_info=error)
        return problem_ready(LichenError("this server failed", hint="its log says why"))

    def _incomplete(self, data: bytes) -> bytes:
        """Hold part of a head; return bytes only when leading empty lines were skipped."""
        if data[:2] == b"\r\n":  # RFC 9112, 2.2
            return _EMPTY_LINES.sub(b"", data, count=1)
        if data[:1] == b"\r" and len(data) > 1:
            self.counters.malformed += 1
            self.say_and_close(MalformedError("this is not HTTP/1.1", hint="send CRLF line ends"))
        elif len(data) > self.limits.head_bytes_max:
            self.counters.malformed += 1
            self.say_and_close(_head_too_large(self.limits.head_bytes_max))
        else:
            self.held = data
        return b""

    def _skip_body(self, framing: Framing, *, keep_alive: bool) -> None:
        if not keep_alive:
            self.linger()
            return
        self.work = Discard(self, framing)
        self.flow.resume_reading()
        held, self.held = self.held, b""
        if held:
            self.work.feed(held)

    def _resume_soon(self) -> None:
        if not self._resuming:
            self._resuming = True
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if self.work is None and self.held and not self.transport.is_closing():
            if self.flow.write_paused:
                return
            data, self.held = self.held, b""
            self._head_since = self.listener.now
            self._read_requests(data)
            if self.work is None and len(self.held) <= self.limits.pipelined_bytes_max:
                self.flow.resume_reading()


def _check_proxied(head: RequestHead, is_own: Callable[[bytes], bool] | None) -> None:
    """Raise unless a client that uses this server as its proxy asks for the server itself.

    A tunnel ends where it begins: what comes through it are requests to this very server.
    """
    if head.method == b"CONNECT":
        if is_own is None:
            raise NotImplementedMethodError("CONNECT is not offered", hint="this is no open proxy")
        if head.content_length:
            raise MalformedError("CONNECT has no body", hint="send it after the answer")
    if is_own is not None and not is_own(head.host):
        raise ForeignHostError(
            f"{head.host[:80].decode('latin-1')} is not a host of this server",
            hint="it is no open proxy: ask for hosts of its own only",
        )


def _head_too_large(bytes_max: int) -> HeadTooLargeError:
    return HeadTooLargeError(
        "the request head is too large", hint=f"send at most {bytes_max} bytes"
    )


def body_too_large(bytes_max: int) -> BodyTooLargeError:
    """Return the refusal of a body over its bound."""
    return BodyTooLargeError(
        "the request body is too large", hint=f"send at most {bytes_max} bytes"
    )
