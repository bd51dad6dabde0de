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
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from lichen.errors import LichenError
from lichen.wire.answers import Ready, Work
from lichen.wire.errors import (
    BodyTooLargeError,
    MalformedError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamTimeoutError,
)
from lichen.wire.framing import LAST_CHUNK, Framing, UntilCloseFraming, chunk, framing_for
from lichen.wire.heads import (
    CHUNKED,
    HOP_BY_HOP,
    IDEMPOTENT,
    UNTIL_CLOSE,
    RequestHead,
    ResponseHead,
    named_by_connection,
    parse_response,
    usual_response,
    without_fields,
)
from lichen.wire.problem import problem_ready
from lichen.wire.upstream import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lichen.wire.connection import Connection
    from lichen.wire.upstream import Upstream

ATTEMPTS_MAX: Final = 4
REPLAY_BYTES_MAX: Final = 64 * 1024
HINTS_MAX: Final = 8  # informational responses before the final one
RESPONSE_HEAD_BYTES_MAX: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LOG = logging.getLogger(__name__)

_CHOOSING, _SENDING, _PASSING, _TUNNEL, _OVER = range(5)


class Retry:
    """Returned by `on_response_head`: drop this response and send the request once more."""

    __slots__ = ("request", "upstream")

    def __init__(
        self, upstream: Pool | Ready | Awaitable[Pool | Ready], request: bytes | None = None
    ) -> None:
        self.upstream = upstream
        self.request = request


class Fault(msgspec.Struct, frozen=True):
    """Why an attempt failed, and whether the exchange may move to another upstream.

    `reason` is one of `unreachable`, `connect-timeout`, `pool-full`, `closed` (broke off before the
    response head), `malformed` (not HTTP/1.1), `response-timeout`, or what an application gave to
    `leave_upstream`.
    """

    reason: str
    repeatable: bool
    attempts: int


class Outcome(msgspec.Struct, frozen=True):
    """How an exchange ended. Byte counts are of payload, without framing.

    `kind` is `complete` (the upstream's response was passed on whole), `replaced` (a ready response
    was sent instead), `client-gone`, `upstream-broke` (mid-body), `timeout`, or `client-error`.
    `status` is the status sent to the client, 0 if none was.
    """

    kind: str
    status: int
    request_bytes: int
    response_bytes: int


class Forward(Work):
    """An exchange with an upstream. `request` is the head to send, from `forward_head`."""

    deadline_s: float = 0.0
    replay_bytes_max: int = REPLAY_BYTES_MAX
    attempts_max: int = ATTEMPTS_MAX
    body_bytes_max: int = 0  # 0: the listener's bound

    head: RequestHead
    connection: Connection
    attempts: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    status: int = 0

    _state: int = _CHOOSING
    _upstream: Upstream | None = None
    _framing: Framing | None = None  # of the request body
    _reply_framing: Framing | None = None
    _reply_head: ResponseHead | None = None
    _partial: bytes = b""
    _kept: bytearray | None = None
    _replayable: bool = True
    _sent_once: bool = False  # in an earlier attempt
    _rechunk: bool = False
    _continued: bool = False
    _held_tunnel: bytes = b""
    _hints: int = 0
    _stuck: str = ""  # why the last attempt failed, when another one would be unsafe
    _pool: Pool | None = None
    _task: asyncio.Task[None] | None = None
    _began: float = 0.0
    _moved: float = 0.0

    _sees_request: ClassVar[bool] = False
    _sees_response: ClassVar[bool] = False
    _sees_head: ClassVar[bool] = False
    _sees_done: ClassVar[bool] = False

    def __init__(self, request: bytes, upstream: Pool | Ready | Awaitable[Pool | Ready]) -> None:
        self.request = request
        self.upstream = upstream

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._sees_request = cls.on_request_body is not Forward.on_request_body
        cls._sees_response = cls.on_response_body is not Forward.on_response_body
        cls._sees_head = cls.on_response_head is not Forward.on_response_head
        cls._sees_done = cls.on_done is not Forward.on_done

    # Hooks.

    def on_upstream_error(self, fault: Fault) -> Pool | Ready | Awaitable[Pool | Ready] | None:
        """Return where to go next, an answer, an awaitable of either, or None for a 502-504.

        A `Pool` is used only if `fault.repeatable`; an answer always.
        """
        del fault
        return None

    def on_response_head(self, head: ResponseHead) -> bytes | Ready | Retry:
        """Return header lines to add (each with CRLF), or what to do instead.

        A `Retry` is honoured when `repeatable`; otherwise the response is passed on as it is.
        """
        del head
        return b""

    def on_request_body(self, payload: bytes) -> None:
        """See a part of the request body, once each, in order."""

    def on_response_body(self, payload: bytes) -> None:
        """See a part of the response body before it is passed on, in order."""

    def on_deadline(self) -> Ready | None:
        """`deadline_s` passed: return the answer if the response has not begun, None for a 504."""

    def on_done(self, outcome: Outcome) -> None:
        """See how it ended; called exactly once."""

    @property
    def repeatable(self) -> bool:
        """Whether the request can be sent again without doing harm or missing a byte."""
        sent = self._sent_once or self._state != _CHOOSING
        return self._replayable and (not sent or self.head.method in IDEMPOTENT)

    @property
    def replayable(self) -> bool:
        """Whether all of the body that was read is kept, so that the request can be sent again."""
        return self._replayable

    @property
    def awaits_head(self) -> bool:
        """Whether the request was sent whole and nothing of a response has come."""
        return self._state == _SENDING and (self._framing is None or self._framing.done)

    def leave_upstream(self, reason: str) -> None:
        """Give the present attempt up, as if the upstream had failed for `reason`."""
        if self._state == _SENDING:
            self._failed(reason)

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
                    self._state = _SENDING
                    idle.transport.write(self.request)
                else:
                    self.on_connected(idle)
                return
        self._choose(upstream)

    def feed(self, data: bytes) -> None:
        """Take body bytes; hold what is pipelined; in a tunnel, pass everything."""
        if self._state == _TUNNEL:
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
        elif self._state == _TUNNEL:
            if now - last > limits.tunnel_idle_s:
                self._cut("timeout")
        elif connection.flow.write_paused:
            if now - last > limits.send_idle_s:
                self._cut("timeout")
        elif self._state == _PASSING:
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
        if self._state == _OVER:
            if self._pool is not None:
                self._pool.give_back(upstream)
            return
        self._upstream = upstream
        self._state = _SENDING
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
        if self._state != _OVER:
            self._failed(reason)

    def on_upstream_data(self, data: bytes) -> None:
        """Take response bytes."""
        if self._state == _SENDING:
            if self._framing is None and not self._partial and not self._held_tunnel:
                usual = usual_response(data)
                if (
                    usual is not None
                    and usual[1] == len(data) - usual[2]
                    and self.head.keep_alive
                    and self.head.method != b"HEAD"
                ):
                    self._pass_usual(usual, data)
                    return
            self._read_head(data)
        elif self._state == _PASSING:
            self._moved = self.connection.listener.now
            self._pass_body(data)
        elif self._state == _TUNNEL:
            self._moved = self.connection.listener.now
            self.response_bytes += len(data)
            if self._sees_response:
                self.on_response_body(data)
            self.connection.write(data)

    def on_upstream_lost(self, error: Exception | None) -> None:
        """Take the end of a close-delimited body or a tunnel; otherwise a failure."""
        upstream, self._upstream = self._upstream, None
        if self._state == _PASSING:
            if isinstance(self._reply_framing, UntilCloseFraming) and error is None:
                self._end_until_close()
            else:
                self._cut("upstream-broke")
        elif self._state == _TUNNEL:
            self.connection.transport.close()
            self._over("complete")
        elif self._state == _SENDING:
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
        self._sent_once = self._sent_once or self._state != _CHOOSING
        self._state = _CHOOSING
        if isinstance(target, Pool):
            if self._stuck:  # it may not be sent again, whoever could take it
                self._replace(problem_ready(_error_for(self._stuck)))
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
        if self._state == _CHOOSING:
            self._choose(chosen)

    def _again(self, pool: Pool) -> None:
        """Repeat on a connection that is certainly alive: idle ones may all have gone stale."""
        self.connection.counters.retries += 1
        self.attempts += 1
        self._sent_once = True
        self._state = _CHOOSING
        self._pool = pool
        pool.acquire(self, fresh=True)

    def _failed(self, reason: str) -> None:
        repeatable = self.repeatable and self.attempts < self.attempts_max
        self._let_go()
        fault = Fault(reason, repeatable, self.attempts)
        target = self._guard(self.on_upstream_error, fault)
        if self._state == _OVER:
            return
        self._partial = b""
        self._stuck = "" if repeatable else reason
        if target is None:
            self._replace(problem_ready(_error_for(reason)))
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
        if self._upstream is not None and self._state in {_SENDING, _PASSING}:
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

    # Reading the response.

    def _read_head(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._partial = data
            if len(data) > RESPONSE_HEAD_BYTES_MAX:
                self._failed("malformed")
            return
        size = len(data)
        try:
            head = parse_response(data if size == end else data[:end], self.head.method)
        except LichenError:
            self._failed("malformed")
            return
        if head.status < 200:
            self._informational(head, data[end:])
            return
        added = b""
        if self._sees_head:
            change = self._guard(self.on_response_head, head)
            if self._state != _SENDING:
                return
            if type(change) is bytes:
                added = change
            elif self._changed_course(change, head, data[end:]):
                return
        self.status = head.status
        self.connection.counters.statuses[head.status // 100 if head.status < 600 else 5] += 1
        if head.length == size - end and (self._framing is None or self._framing.done):
            self._pass_whole(head, added, data, end)
        else:
            self._begin_passing(head, added, data[end:])

    def _pass_usual(self, usual: tuple[bytes, int, int, int], data: bytes) -> None:
        """Pass on a usual response that came whole: most of them do, so this path is short."""
        status, length, end, fields_at = usual
        self.status = code = int(status)
        out = data
        if self._sees_head:
            head = ResponseHead()
            head.block = data[:end]
            head.fields_at = fields_at
            head.status = code
            head.length = length
            change = self._guard(self.on_response_head, head)
            if self._state != _SENDING:
                return
            if type(change) is bytes:
                if head.removed:
                    out = self._head_out(head, change, keep_alive=True) + data[end:]
                elif change:
                    out = b"%b%b%b" % (data[: end - 2], change, data[end - 2 :])
            elif self._changed_course(change, head, data[end:]):
                return
        self.response_bytes = length
        if self._sees_response and length:
            self.on_response_body(data[end:])
        connection = self.connection
        counters = connection.counters
        counters.statuses[code // 100] += 1
        counters.bytes_out += len(out)
        connection.transport.write(out)
        upstream = self._upstream
        self._upstream = None
        if upstream is not None:
            upstream.pool.give_back(upstream)
        if self._sees_done:
            self._over("complete")
        else:
            self._state = _OVER
        if connection.held or connection.flow.read_paused or connection.stopping:
            connection.finished(None, keep_alive=True)
        else:
            connection.work = None

    def _pass_whole(self, head: ResponseHead, added: bytes, data: bytes, end: int) -> None:
        """Write a response that came in one segment in one go, and be done."""
        length = head.length
        if length:
            self.response_bytes = length
            if self._sees_response:
                self.on_response_body(data[end:])
        keep_alive = self.head.keep_alive
        if keep_alive and not added and not head.removed and head.minor and head.plain:
            out = data
        else:
            out = self._head_out(head, added, keep_alive=keep_alive)
            if length:
                out += data[end:]
        connection = self.connection
        connection.counters.bytes_out += len(out)
        connection.transport.write(out)
        self._release(head)
        self._over("complete")
        connection.finished(self._framing, keep_alive=keep_alive)

    def _head_out(self, head: ResponseHead, added: bytes, *, keep_alive: bool) -> bytes:
        """Write the response head for the client: no hop-by-hop fields but our own."""
        block = head.block
        drop = head.removed
        if not head.plain:
            drop |= HOP_BY_HOP | named_by_connection(head.get(b"connection"))
        if drop:
            block = without_fields(block, drop)
        if not head.minor:
            block = b"HTTP/1.1" + block[8:]
        if self._rechunk:
            added += b"transfer-encoding: chunked\r\n"
        if not keep_alive:
            added += b"connection: close\r\n"
        return block[:-2] + added + b"\r\n" if added else block

    def _begin_passing(self, head: ResponseHead, added: bytes, body: bytes) -> None:
        self._state = _PASSING
        self._reply_head = head
        self._reply_framing = framing_for(head.length)
        framed = head.length in {CHUNKED, UNTIL_CLOSE}
        self._rechunk = framed and self.head.minor == 1
        keep_alive = self.head.keep_alive and (self._rechunk or not framed)
        self._moved = self.connection.listener.now
        out = self._head_out(head, added, keep_alive=keep_alive)
        if self._reply_framing.done and not body:
            self.connection.write(out)
            self._complete()
        else:
            self._pass_body(body, out)

    def _pass_body(self, data: bytes, before: bytes = b"") -> None:
        framing = self._reply_framing
        assert framing is not None
        try:
            payload = framing.feed(data)
        except MalformedError:
            self._cut("upstream-broke")
            return
        self.response_bytes += len(payload)
        if self._sees_response and payload:
            self.on_response_body(payload)
        out = chunk(payload) if self._rechunk else payload
        if self._rechunk and framing.done:
            out += LAST_CHUNK
        if before or out:
            self.connection.write(before + out if before else out)
        if framing.done:
            self._complete()

    def _complete(self) -> None:
        head, framing = self._reply_head, self._reply_framing
        assert head is not None
        assert framing is not None
        unread = self._framing is not None and not self._framing.done
        if framing.rest or unread:  # bytes nobody asked for, or a request never sent whole
            self._let_go()
        else:
            self._release(head)
        self._over("complete")
        keep_alive = self.head.keep_alive and (self._rechunk or head.length >= 0)
        self.connection.finished(self._framing, keep_alive=keep_alive)

    def _end_until_close(self) -> None:
        if self._rechunk:
            self.connection.write(LAST_CHUNK)
        self._over("complete")
        self.connection.finished(self._framing, keep_alive=self.head.keep_alive and self._rechunk)

    def _changed_course(
        self, change: Ready | Retry | None, head: ResponseHead, body: bytes
    ) -> bool:
        """Do what an observer asked for instead of passing the response on."""
        if isinstance(change, Retry):
            if not self._replayable or self.attempts >= self.attempts_max:
                if asyncio.iscoroutine(change.upstream):
                    change.upstream.close()
                return False
            self._drop_response(head, body)
            if change.request is not None:
                self.request = change.request
            self._choose(change.upstream)
            return True
        if isinstance(change, Ready):
            self._drop_response(head, body)
            self._replace(change)
            return True
        return False

    def _drop_response(self, head: ResponseHead, body: bytes) -> None:
        sent = self._framing is None or self._framing.done
        if sent and head.length == len(body):
            self._release(head)
        else:
            self._let_go()

    # 1xx and tunnels.

    def _informational(self, head: ResponseHead, rest: bytes) -> None:
        if head.status == 101:
            self._switch(head, rest)
            return
        self._hints += 1
        if self._hints > HINTS_MAX:
            self._failed("malformed")
            return
        # Our own 100 was sent when it was due.
        if head.status not in {100, 102} and self.head.minor:
            self.connection.write(self._head_out(head, b"", keep_alive=True))
        if rest:
            self._read_head(rest)

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        if not self.head.upgrade:
            self._failed("malformed")
            return
        added = b"connection: upgrade\r\nupgrade: websocket\r\n"
        if self._sees_head:
            change = self._guard(self.on_response_head, head)
            if self._state != _SENDING:
                return
            if isinstance(change, Ready):
                self._let_go()
                self._replace(change)
                return
            if isinstance(change, bytes):
                added += change
        connection = self.connection
        self.status = 101
        connection.counters.statuses[1] += 1
        connection.counters.tunnels += 1
        self._state = _TUNNEL
        connection.write(self._head_out(head, added, keep_alive=True))
        if rest:
            self.on_upstream_data(rest)
        held, self._held_tunnel = self._held_tunnel, b""
        connection.flow.resume_reading()
        if held:
            self._pass_up(held)

    def _hold_tunnel(self, data: bytes) -> None:
        """Keep what the client says before the upstream agreed to switch."""
        self._held_tunnel += data
        if len(self._held_tunnel) > self.connection.limits.pipelined_bytes_max:
            self.connection.flow.pause_reading()

    def _pass_up(self, data: bytes) -> None:
        self.request_bytes += len(data)
        if self._sees_request:
            self.on_request_body(data)
        if self._upstream is not None:
            self._upstream.transport.write(data)

    # Ending.

    def _replace(self, ready: Ready) -> None:
        self.status = ready.status
        self._over("replaced")
        self.connection.reply(ready, self.head, self._framing)

    def _deadline_passed(self) -> None:
        ready = self._guard(self.on_deadline)
        if self._state == _OVER:
            return
        if self._state in {_PASSING, _TUNNEL}:
            self._cut("timeout")
            return
        self._let_go()
        if not isinstance(ready, Ready):
            ready = problem_ready(_error_for("response-timeout"))
        self._replace(ready)

    def _cut(self, kind: str) -> None:
        """End a response that cannot be made whole, so that the client notices."""
        self._let_go()
        self._over(kind)
        self.connection.abort()

    def _release(self, head: ResponseHead) -> None:
        """Give the upstream connection back, or end it when it said so."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if head.keep_alive:
            upstream.pool.give_back(upstream)
        else:
            upstream.drop()

    def _let_go(self) -> None:
        """Give up whatever is under way upstream."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        elif self._state == _CHOOSING:
            if self._task is not None:
                self._task.cancel()
                self._task = None
            elif self._pool is not None:
                self._pool.cancel(self)

    def _over(self, kind: str) -> None:
        if self._state == _OVER:
            return
        self._state = _OVER
        if self._held_tunnel:  # no tunnel came of it: an ordinary request follows
            held, self._held_tunnel = self._held_tunnel, b""
            self.connection.hold(held)
        if self._sees_done:
            outcome = Outcome(kind, self.status, self.request_bytes, self.response_bytes)
            self._guard(self.on_done, outcome)

    def _guard(self, hook: Any, *arguments: Any) -> Any:
        """Call a hook; one that raises must not leave the exchange hanging."""
        try:
            return hook(*arguments)
        except LichenError as error:
            return problem_ready(error)
        except Exception as error:  # noqa: BLE001 (an application's bug, answered as one)
            _LOG.error("a hook of %s failed", type(self).__name__, exc_info=error)
            return problem_ready(LichenError("this server failed", hint="its log says why"))


def _error_for(reason: str) -> LichenError:
    if reason in {"unreachable", "pool-full", "connect-timeout"}:
        return UpstreamBusyError(f"no upstream can be reached ({reason})", hint="try again shortly")
    if reason == "response-timeout":
        return UpstreamTimeoutError("the upstream did not answer in time", hint="try again")
    return UpstreamError(f"the upstream failed ({reason})", hint="try again")
