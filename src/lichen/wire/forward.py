"""One request passed on to an upstream and its response passed back, watched on the way.

The life of it: choose (an upstream may have to be awaited) -> send (head, then body as it comes)
-> wait for the response head -> pass the response on -> done. Until the first response byte was
passed on, the exchange can move to another upstream, if repeating it is safe: the method is
idempotent, or nothing was sent; and the body, kept up to `replay_bytes_max`, is still whole.

An application subclasses `Forward` and overrides the `on_...` hooks of its choice. A hook that is
not overridden costs nothing. Defaults live on the class, so a request costs no constructor time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from lichen.errors import LichenError
from lichen.wire.answers import Ready
from lichen.wire.errors import (
    BodyTooLargeError,
    MalformedError,
)
from lichen.wire.exchange import (
    CHOOSING,
    OVER,
    PASSING,
    SENDING,
    TUNNEL,
    Fault,
    error_for,
)
from lichen.wire.framing import LAST_CHUNK, Framing, UntilCloseFraming, chunk, framing_for
from lichen.wire.heads import (
    CHUNKED,
    RequestHead,
)
from lichen.wire.problem import problem_ready
from lichen.wire.reply import Reply
from lichen.wire.upstream import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lichen.wire.connection import Connection
    from lichen.wire.upstream import Upstream

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LOG = logging.getLogger(__name__)


class Forward(Reply):
    """An exchange with an upstream. `request` is the head to send, from `forward_head`."""

    # What the connection calls.

    def start(self, connection: Connection, head: RequestHead) -> None:
        """Send the request on, at once if a connection is idle."""
        self.connection = connection
        self.head = head
        if self.deadline_s:
            self._began = connection.seen
        if head.content_length:
            bound = self.body_bytes_max or connection.limits.body_bytes_max
            self._framing = framing_for(head.content_length)
            self._kept = bytearray()
            if head.content_length > bound:
                self._refuse_body(bound)
                return
        upstream = self.upstream
        if type(upstream) is Pool:
            idle = upstream.take()
            if idle is not None:
                self._pool = upstream
                self.attempts = 1
                idle.borrower = self
                if self._framing is None:
                    self._upstream = idle
                    self._state = SENDING
                    idle.transport.write(self.request)
                else:
                    self.on_connected(idle)
                return
        self._choose(upstream)

    def feed(self, data: bytes) -> None:
        """Take body bytes; hold what is pipelined; in a tunnel, pass everything."""
        if self._state == TUNNEL:
            self._pass_up(data)
            return
        framing = self._framing
        if framing is None or framing.done:
            if self.head.upgrade:
                self._hold_tunnel(data)
            else:
                self.connection.hold(data)
            return
        try:
            payload = framing.feed(data)
        except MalformedError as error:
            self._break_client(error)
            return
        self._take_body(framing, payload)

    def client_gone(self) -> None:
        """Give the upstream up."""
        self.connection.counters.client_gone += 1
        self._let_go()
        self._over("client-gone")

    def client_full(self) -> None:
        """Read no more of the response."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def client_drained(self) -> None:
        """Read on."""
        self._moved = self.connection.listener.now
        if self._upstream is not None:
            self._upstream.resume_reading()

    def sweep(self, now: float) -> None:
        """Enforce the deadline and the bounds on every wait."""
        connection = self.connection
        limits = connection.limits
        last = max(self._moved, connection.seen)
        if self.deadline_s and now - self._began > self.deadline_s:
            self._deadline_passed()
        elif self._state == TUNNEL:
            if now - last > limits.tunnel_idle_s:
                self._cut("timeout")
        elif connection.flow.write_paused:
            if now - last > limits.send_idle_s:
                self._cut("timeout")
        elif self._state == PASSING:
            if now - last > limits.upstream_idle_s:
                self._cut("timeout")
        elif self._awaits_body():
            if now - connection.seen > limits.body_idle_s:
                self._body_stalled()
        elif now - last > limits.response_s:
            self._failed("response-timeout")

    def _awaits_body(self) -> bool:
        """Tell whether the next move is the client's."""
        framing = self._framing
        return framing is not None and not framing.done and not self.connection.flow.read_paused

    # What the upstream calls.

    def on_connected(self, upstream: Upstream) -> None:
        """Send what there is of the request."""
        if self._state == OVER:
            if self._pool is not None:
                self._pool.give_back(upstream)
            return
        self._upstream = upstream
        self._state = SENDING
        if self._framing is None:
            upstream.transport.write(self.request)
            return
        framing = self._framing
        out = [self.request, self._framed(bytes(self._kept or b""), ended=framing.done)]
        upstream.transport.write(b"".join(out))
        if not framing.done:
            if self.head.expects_continue and not self._continued:
                self._continued = True
                self.connection.write(_CONTINUE)
            self.connection.flow.resume_reading()

    def on_connect_failed(self, reason: str) -> None:
        """Look for another upstream."""
        if self._state != OVER:
            self._failed(reason)

    def on_upstream_lost(self, error: Exception | None) -> None:
        """Take the end of a close-delimited body or a tunnel; otherwise a failure."""
        upstream, self._upstream = self._upstream, None
        if self._state == PASSING:
            if isinstance(self._reply_framing, UntilCloseFraming) and error is None:
                self._end_until_close()
            else:
                self._cut("upstream-broke")
        elif self._state == TUNNEL:
            self.connection.transport.close()
            self._over("complete")
        elif self._state == SENDING:
            stale = upstream is not None and upstream.used and not self._partial
            if (
                stale
                and self.repeatable
                and self._pool is not None
                and self.attempts < self.attempts_max
            ):
                self._again(self._pool)
            else:
                self._failed("closed")

    def on_upstream_full(self) -> None:
        """Read no more of the request body."""
        self.connection.flow.pause_reading()

    def on_upstream_drained(self) -> None:
        """Read on."""
        self._moved = self.connection.listener.now
        self.connection.flow.resume_reading()

    # Choosing.

    def _choose(self, target: Pool | Ready | Awaitable[Pool | Ready]) -> None:
        self._sent_once = self._sent_once or self._state != CHOOSING
        self._state = CHOOSING
        if isinstance(target, Pool):
            if self._stuck:  # it may not be sent again, whoever could take it
                self._replace(problem_ready(error_for(self._stuck)))
                return
            self.connection.counters.retries += self.attempts > 0
            self._pool = target
            self.attempts += 1
            target.acquire(self)
        elif isinstance(target, Ready):
            self._replace(target)
        else:
            # A future at once: a coroutine cancelled before its first step would never be awaited.
            future = asyncio.ensure_future(target, loop=self.connection.loop)
            self._task = self.connection.loop.create_task(self._await_target(future))

    async def _await_target(self, target: Awaitable[Pool | Ready]) -> None:
        try:
            chosen: Pool | Ready = await target
        except LichenError as error:
            chosen = problem_ready(error)
        except Exception as error:  # noqa: BLE001 (whatever a chooser raises, the client gets an answer)
            _LOG.error("choosing an upstream failed", exc_info=error)
            chosen = problem_ready(LichenError("this server failed", hint="its log says why"))
        self._task = None
        if self._state == CHOOSING:
            self._choose(chosen)

    def _again(self, pool: Pool) -> None:
        """Repeat on a connection that is certainly alive: idle ones may all have gone stale."""
        self.connection.counters.retries += 1
        self.attempts += 1
        self._sent_once = True
        self._state = CHOOSING
        self._pool = pool
        pool.acquire(self, fresh=True)

    def _failed(self, reason: str) -> None:
        repeatable = self.repeatable and self.attempts < self.attempts_max
        self._let_go()
        fault = Fault(reason, repeatable, self.attempts)
        target = self._guard(self.on_upstream_error, fault)
        if self._state == OVER:
            return
        self._partial = b""
        self._stuck = "" if repeatable else reason
        if target is None:
            self._replace(problem_ready(error_for(reason)))
        else:
            self._choose(target)

    # Sending the request body.

    def _take_body(self, framing: Framing, payload: bytes) -> None:
        self.request_bytes += len(payload)
        bound = self.body_bytes_max or self.connection.limits.body_bytes_max
        if self.request_bytes > bound:
            self._refuse_body(bound)
            return
        if self._sees_request and payload:
            self.on_request_body(payload)
        if framing.rest:
            self.connection.hold(framing.rest)
        self._keep(payload)
        if self._upstream is not None and self._state in {SENDING, PASSING}:
            out = self._framed(payload, ended=framing.done)
            if out:
                self._upstream.transport.write(out)

    def _keep(self, payload: bytes) -> None:
        kept = self._kept
        if kept is None:
            return
        kept += payload
        if len(kept) <= self.replay_bytes_max:
            return
        if self._upstream is None:
            self.connection.flow.pause_reading()
        else:
            self._kept = None
            self._replayable = False

    def _framed(self, payload: bytes, *, ended: bool) -> bytes:
        if self.head.content_length != CHUNKED:
            return payload
        return chunk(payload) + (LAST_CHUNK if ended else b"")

    def _refuse_body(self, bound: int) -> None:
        error = BodyTooLargeError(
            "the request body is too large", hint=f"send at most {bound} bytes"
        )
        self._break_client(error)

    def _break_client(self, error: MalformedError | BodyTooLargeError) -> None:
        """Tell the client that its own request is at fault, if nothing was answered yet."""
        answered = self.status != 0
        self._let_go()
        if answered:
            self._over("client-error")
            self.connection.abort()
            return
        self.status = error.status
        self._over("client-error")
        self.connection.say_and_close(error)

    def _body_stalled(self) -> None:
        self._let_go()
        answered = self.status != 0
        self._over("timeout")
        if answered:
            self.connection.abort()
        else:
            self.connection.time_out("the request body")
