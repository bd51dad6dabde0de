"""One call of a function through the gateway: placed on a node, watched, moved when a node fails.

The gateway's hot path. The response passes through unread; what is noted is which node answered,
how long it took, and that the run has to be paid.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from lichen.cdn.formats import ORIGIN_FIELDS, SANDBOX
from lichen.errors import LichenError, PeerError, PeerUnavailableError
from lichen.gateway.runs import Attempt, RunRecord
from lichen.node.callhead import CALL_FIELDS, NODE, RUN, TENANT_ERROR
from lichen.wire import Fault, Forward, HeadRewrite, Outcome, Pool, Ready, ResponseHead, Retry
from lichen.wire.problem import problem_ready

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lichen.gateway.links import Link
    from lichen.gateway.placer import Placer
    from lichen.gateway.routes import FunctionRoute
    from lichen.wire import RequestHead

_WRITE: Final = HeadRewrite(set_names=CALL_FIELDS, remove=(NODE, TENANT_ERROR))
_WRITE_HOST: Final = HeadRewrite(
    set_names=(b"host", *CALL_FIELDS), remove=(NODE, TENANT_ERROR, b"cookie")
)
OUR_FIELDS: Final = 2  # lichen-run and lichen-node
_ORIGIN_FIELDS: Final = tuple(name.encode() for name in sorted(ORIGIN_FIELDS))
_TARGET_CHARS_MAX = 512
ATTEMPTS_MAX = 32  # while nodes restart; PATIENCE_S_MAX usually ends it before
MENDS_MAX = 4  # sessions opened and bills paid for one call
PATIENCE_S_MAX = 5.0  # from the first node that failed, while others may be back
# What a node answers to a request that is the visitor's fault: another node would say the same.
VISITORS_FAULT: Final = frozenset({413, 431})
NEVER_RAN: Final = frozenset({"unreachable", "connect-timeout", "pool-full"})
ANSWER_SLACK_S = 5.0  # what a node may take beyond the function's own time limit


class NoNodeError(PeerUnavailableError):
    """No node can run this function now; the message counts the reasons."""

    code = "no-suitable-node"


class Call(Forward):
    """A visitor's request on its way to a node and back."""

    attempts_max = ATTEMPTS_MAX
    _link: Link | None = None
    _attempts: tuple[Attempt, ...] = ()
    _tried: tuple[bytes, ...] = ()
    _refusals = ""
    _error = ""
    _until = 0.0
    _mends = 0

    def __init__(
        self, placer: Placer, function: FunctionRoute, target: bytes | None, host: bytes | None
    ) -> None:
        self._placer = placer
        self._function = function
        self._target = target
        self._host = host
        self._run = placer.runs.next_run()

    def start(self, connection: Any, head: RequestHead) -> None:
        """Place the run and send the request on."""
        self.head = head
        self._started_ns = time.monotonic_ns()
        link = self._placer.place(self._function)
        if link is None:
            self.upstream = self._placed_later()
        else:
            self.upstream = self._use(link)
        super().start(connection, head)

    async def _placed_later(self) -> Pool | Ready:
        """Wait for a link to open; answer with the counted reasons when there is none."""
        if not self._until:
            self._until = time.monotonic() + PATIENCE_S_MAX
        link = await self._placer.place_when_open(self._function, self._tried, self._until)
        if link is None:
            self._refusals = self._placer.explain(self._function)
            return self._problem(
                NoNodeError(
                    f"no suitable node: {self._refusals}",
                    hint=f"`lichen why {self._run}` tells more",
                )
            )
        return self._use(link)

    def _use(self, link: Link) -> Pool:
        """Bind the run to a link: its session, its ceiling, its book."""
        self._link = link
        self._tried += (link.peer.address,)
        function = self._function
        link.place(self._run, function.ceiling)
        self._sent_ns = time.monotonic_ns()
        fields = b"%b%b: %b\r\n" % (link.fields(function), RUN, self._run.encode())
        if self._host is None:
            self.request = _WRITE.write(self.head, fields, self._target)
        else:
            host = b"host: %b\r\n" % self._host
            self.request = _WRITE_HOST.write(self.head, host + fields, self._target)
        return link.peer.pool

    def sweep(self, now: float) -> None:
        """Leave a node that hangs, if the request may be repeated, or that is far too late."""
        super().sweep(now)
        link = self._link
        if link is None or not self.awaits_head:
            return
        sent = self._sent_ns / 1e9
        if time.monotonic() - sent > self._function.spec.timeout_ms / 1000 + ANSWER_SLACK_S:
            self.leave_upstream("response-timeout")
        elif self.repeatable and self._placer.is_stalled(link, sent):
            self.leave_upstream("unresponsive")

    def _leave(self, outcome: str) -> None:
        """Note how an attempt ended and let go of its link."""
        link, self._link = self._link, None
        if link is None:
            return
        link.left()
        never_ran = outcome in NEVER_RAN and not self._sent_once
        if never_ran or outcome.startswith("refused"):
            link.withdraw(self._run)
        after_us = (time.monotonic_ns() - self._started_ns) // 1000
        attempt = Attempt(link.peer.name, outcome, after_us)
        self._attempts = (*self._attempts, attempt)

    def on_upstream_error(self, fault: Fault) -> Awaitable[Pool | Ready] | Ready:
        """Rest the node; go to another one if the request may be repeated."""
        if self._link is not None:
            self._placer.failed(self._link)
        self._leave(fault.reason)
        if fault.repeatable:
            return self._placed_later()
        return self._problem(
            PeerError(
                f"the node failed ({fault.reason}) while it answered",
                hint="it was not repeated because that might do it twice; repeat it if it may",
            )
        )

    def on_response_head(self, head: ResponseHead) -> bytes | Ready | Retry:
        """Pass a function's answer on; mend what a node refuses, or go elsewhere.

        What a node says to its payer is not for the visitor, who learns that it may try again.
        """
        link = self._link
        if link is not None and self._host is None:  # most often there is nothing to change
            told = b"\r\n%b: %b\r\n%b\r\n" % (RUN, self._run.encode(), link.peer.field)
            block = head.block
            if block.endswith(told) and block.lower().count(b"\r\nlichen-") == OUR_FIELDS:
                return b""
        if NODE in head:
            return self._passed_on(head)
        if link is None or head.status in VISITORS_FAULT:
            return b"lichen-run: %b\r\n" % self._run.encode()
        self._leave(f"refused-{head.status}")
        if self.replayable and self.attempts < self.attempts_max:
            return Retry(self._mended(link, head.status))
        return self._problem(
            NoNodeError(
                f"the node refused the run ({head.status}), and it could not be moved",
                hint="nothing was run; send the request again",
            )
        )

    def _passed_on(self, head: ResponseHead) -> bytes:
        """Say by whom and as which run, whatever the node says; keep `/app/...` from its origin."""
        added = b""
        run = b"\r\nlichen-run: %b\r\n" % self._run.encode()
        block, link = head.block, self._link
        told = link is None or (run in block and link.peer.field in block)
        if not told or block.lower().count(b"\r\nlichen-") != OUR_FIELDS:
            head.remove(*CALL_FIELDS, NODE, TENANT_ERROR)
            added = run[2:] + (b"" if link is None else link.peer.field)
        if self._host is not None:
            head.remove(*_ORIGIN_FIELDS)
            added += SANDBOX
        return added

    async def _mended(self, link: Link, status: int) -> Pool | Ready:
        """Do what the node asks for and go on with it, or else with another one."""
        self._mends += 1
        if self._mends <= MENDS_MAX and await self._placer.mend(link, status):
            return self._use(link)
        return await self._placed_later()

    def _problem(self, error: LichenError) -> Ready:
        self._error = error.what
        return problem_ready(error, headers=((RUN, self._run.encode()),))

    def on_done(self, outcome: Outcome) -> None:
        """Note how the run went, for the node's reputation here and for `lichen why`."""
        now_ns = time.monotonic_ns()
        link = self._link
        node = "" if link is None else link.peer.name
        if link is not None:
            if outcome.kind == "complete":
                self._placer.succeeded(link, (now_ns - self._sent_ns) / 1e6)
            elif outcome.kind == "upstream-broke":
                self._placer.broke_off(self._function, link)
            self._leave(outcome.kind)
        wall_us = (now_ns - self._started_ns) // 1000
        self._placer.runs.add(
            RunRecord(
                run=self._run,
                function=self._function.id,
                method=self.head.method.decode(),
                target=_shown(self.head.target),
                started_ms=(time.time_ns() - wall_us * 1000) // 1_000_000,
                ceiling=self._function.ceiling,
                node=node,
                status=outcome.status,
                wall_us=wall_us,
                error=self._error,
                attempts=self._attempts,
                refusals=self._refusals,
            )
        )


def _shown(target: bytes) -> str:
    """Return what a record says of a target: a query may hold what nobody else is to read."""
    path, mark, _ = target[:_TARGET_CHARS_MAX].partition(b"?")
    return path.decode("latin-1") + ("?..." if mark else "")
