"""What an exchange with an upstream is: its state, the hooks an application overrides, its one end.

`Reply` adds the way back, `Forward` the way there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from lichen.errors import LichenError
from lichen.wire.answers import Ready, Work
from lichen.wire.errors import (
    UpstreamBusyError,
    UpstreamError,
    UpstreamTimeoutError,
)
from lichen.wire.heads import (
    IDEMPOTENT,
    RequestHead,
    ResponseHead,
)
from lichen.wire.problem import problem_ready

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from lichen.wire.connection import Connection
    from lichen.wire.framing import Framing
    from lichen.wire.upstream import Pool, Upstream

ATTEMPTS_MAX: Final = 4
REPLAY_BYTES_MAX: Final = 64 * 1024
RESPONSE_HEAD_BYTES_MAX: Final = 64 * 1024
_LOG = logging.getLogger(__name__)

# Where an exchange is.
CHOOSING, SENDING, PASSING, TUNNEL, OVER = range(5)


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


class Exchange(Work):
    """The state of an exchange, its hooks and its end; defaults live on the class, not in each."""

    deadline_s: float = 0.0
    replay_bytes_max: int = REPLAY_BYTES_MAX
    attempts_max: int = ATTEMPTS_MAX
    body_bytes_max: int = 0  # 0: the listener's bound
    response_head_bytes_max: int = RESPONSE_HEAD_BYTES_MAX

    head: RequestHead
    connection: Connection
    attempts: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    status: int = 0

    _state: int = CHOOSING
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
        cls._sees_request = cls.on_request_body is not Exchange.on_request_body
        cls._sees_response = cls.on_response_body is not Exchange.on_response_body
        cls._sees_head = cls.on_response_head is not Exchange.on_response_head
        cls._sees_done = cls.on_done is not Exchange.on_done

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
        sent = self._sent_once or self._state != CHOOSING
        return self._replayable and (not sent or self.head.method in IDEMPOTENT)

    @property
    def replayable(self) -> bool:
        """Whether all of the body that was read is kept, so that the request can be sent again."""
        return self._replayable

    @property
    def awaits_head(self) -> bool:
        """Whether the request was sent whole and nothing of a response has come."""
        return self._state == SENDING and (self._framing is None or self._framing.done)

    def leave_upstream(self, reason: str) -> None:
        """Give the present attempt up, as if the upstream had failed for `reason`."""
        if self._state == SENDING:
            self._failed(reason)

    # What the two sides do for each other.

    def _choose(self, target: Pool | Ready | Awaitable[Pool | Ready]) -> None:
        raise NotImplementedError

    def _failed(self, reason: str) -> None:
        raise NotImplementedError

    # Ending.

    def _replace(self, ready: Ready) -> None:
        self.status = ready.status
        self._over("replaced")
        self.connection.reply(ready, self.head, self._framing)

    def _deadline_passed(self) -> None:
        ready = self._guard(self.on_deadline)
        if self._state == OVER:
            return
        if self._state in {PASSING, TUNNEL}:
            self._cut("timeout")
            return
        self._let_go()
        if not isinstance(ready, Ready):
            ready = problem_ready(error_for("response-timeout"))
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
        elif self._state == CHOOSING:
            if self._task is not None:
                self._task.cancel()
                self._task = None
            elif self._pool is not None:
                self._pool.cancel(self)

    def _over(self, kind: str) -> None:
        if self._state == OVER:
            return
        self._state = OVER
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


def error_for(reason: str) -> LichenError:
    """Return what a client is told about an upstream's failure."""
    if reason in {"unreachable", "pool-full", "connect-timeout"}:
        return UpstreamBusyError(f"no upstream can be reached ({reason})", hint="try again shortly")
    if reason == "response-timeout":
        return UpstreamTimeoutError("the upstream did not answer in time", hint="try again")
    return UpstreamError(f"the upstream failed ({reason})", hint="try again")
