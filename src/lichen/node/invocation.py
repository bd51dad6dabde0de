"""One run: admitted against its channel, passed to the function's process, metered, receipted.

This is the node's hot path. A run costs a few dictionary look-ups, two readings of the process's
CPU clock, two hashes and one encoding; signing and disk are shared by all runs of a batch.
"""

from __future__ import annotations

import math
import re
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from lichen.errors import LichenError, NotAllowedError, UserError
from lichen.market.pricing import charge
from lichen.market.receipt import request_hasher
from lichen.market.receipt_log import PENDING_MAX
from lichen.node.callhead import CALL_FIELDS, EXACT, NODE, RUN, TENANT_ERROR
from lichen.node.errors import BusyNodeError, FunctionRestingError, FunctionTimeoutError
from lichen.node.exactly import failure, failure_of_worker
from lichen.node.hosting import crash_of
from lichen.runtime.exact.answers import read_report
from lichen.wire import Fault, Forward, Outcome, Ready, RequestHead, ResponseHead
from lichen.wire.problem import problem_ready

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Awaitable

    from lichen.interfaces import Tenant
    from lichen.node.callhead import CallHead
    from lichen.node.config import NodeConfig
    from lichen.node.hosting import Hosted, Hosting
    from lichen.node.sessions import ChannelAccount, Sessions
    from lichen.node.till import Till
    from lichen.runtime.exact.answers import Report
    from lichen.runtime.meter import Run
    from lichen.wire import Pool

RUN_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{12}")
CEILING_MAX: Final = 10**24
CEILING_DIGITS_MAX: Final = 25
# Below what a gateway reads, so that a function cannot make its node look broken.
RESPONSE_HEAD_BYTES_MAX: Final = 32 * 1024


class Invocations:
    """Decides whether a call may run here, and makes the exchange that runs it."""

    def __init__(
        self,
        node: Any,
        network: bytes,
        config: NodeConfig,
        sessions: Sessions,
        hosting: Hosting,
        till: Till,
    ) -> None:
        self.prices = config.prices
        self.hosting = hosting
        self.till = till
        self.log = till.receipts
        self.node_field = b"%b: %b\r\n" % (NODE, str(node).encode())
        self.in_flight = 0
        self.completed = 0
        self.draining = False
        self._credit = int(config.credit)
        self.request_bytes_max = config.request_bytes_max
        self._sessions = sessions
        self._common = {
            "network": network.hex(),
            "node": str(node),
            "verification": {
                "mode": "none", "committee": [], "verdict": "unverified",
                "beacon": None, "votes": [], "evidence": None,
            },
        }  # fmt: skip

    def admit(self, call: CallHead) -> Invocation | Ready:
        """Check session, function, channel and limits; raise a typed error or return the run."""
        account = self._sessions.get(call.session)
        if self.draining:
            raise BusyNodeError("this node is being drained", hint="use another node")
        if self.log.pending > PENDING_MAX:
            raise BusyNodeError("receipts wait for the disk", hint="try again shortly")
        hosted = self.hosting.find(call.function)
        app, run = account.channel.app, call.run
        if app and app != hosted.app:
            raise NotAllowedError(f"this channel pays for app {app} only")
        if not RUN_ID.fullmatch(run) or not run.startswith(account.run_prefix):
            raise UserError("lichen-run is not a run id of this payer")
        if not call.ceiling.isdigit() or len(call.ceiling) > CEILING_DIGITS_MAX:
            raise UserError("lichen-ceiling is not an amount")
        most = int(call.ceiling)
        if most > CEILING_MAX:
            raise UserError(f"the ceiling is over {CEILING_MAX}")
        if most < self.prices.request:
            raise UserError(
                f"the ceiling {most} is below this node's price per run {self.prices.request}",
                hint="raise max_price in lichen.toml, or use a cheaper node",
            )
        account.book.admit(most, self._credit)
        upstream: Pool | Awaitable[Pool] | None = hosted.upstream
        if upstream is None:
            rest_s = hosted.rest_s(time.monotonic())
            if rest_s:
                return self._resting(hosted, run, rest_s)
            upstream = self.hosting.start(hosted)
        return Invocation(call.request, upstream, self, hosted, account, run, most)

    def _resting(self, hosted: Hosted, run: bytes, rest_s: float) -> Ready:
        """Answer for a function that keeps crashing; nothing ran, so nothing is billed."""
        error = FunctionRestingError(
            f"the function's process was ended {hosted.crashes} times lately",
            hint=f"it is started again in {rest_s:.1f} s; `lichen logs` shows why it ended",
        )
        fields = ((RUN, run), (NODE, self.node_field[len(NODE) + 2 : -2]))
        again = (b"retry-after", b"%d" % math.ceil(rest_s))
        return problem_ready(error, headers=(*fields, again))

    def template(self, hosted: Hosted) -> dict[str, Any]:
        """Return the parts of a receipt that all runs of a function share."""
        if not hosted.template:
            app, release, name = hosted.id.split("/", 2)
            runtime = self.hosting.runtime_of(hosted)
            hosted.template = self._common | {
                "profile": runtime.profile,
                "tier": runtime.tier,
                "function": {
                    "cid": str(hosted.spec.code), "app": app, "release": int(release), "name": name,
                }
            }  # fmt: skip
        return hosted.template


class Invocation(Forward):
    """One run of a function, observed from its first byte in to its last byte out."""

    response_head_bytes_max = RESPONSE_HEAD_BYTES_MAX
    _replacement: Ready | None = None
    _metered: Run | None = None
    _report: Report | None = None
    _tenant: Tenant | None = None
    _asked: hashlib._Hash | None = None
    _answered: hashlib._Hash | None = None

    def __init__(
        self,
        request: bytes,
        upstream: Pool | Awaitable[Pool],
        owner: Invocations,
        hosted: Hosted,
        account: ChannelAccount,
        run: bytes,
        ceiling: int,
    ) -> None:
        super().__init__(request, upstream)
        self.deadline_s = hosted.timeout_s
        self.body_bytes_max = owner.request_bytes_max
        self._owner = owner
        self._hosted = hosted
        self._account = account
        self._run = run
        self._ceiling = ceiling

    def start(self, connection: Any, head: RequestHead) -> None:
        """Begin: take the meter's first reading."""
        self._started_ms = time.time_ns() // 1_000_000
        self._started_ns = time.monotonic_ns()
        self._owner.in_flight += 1
        self._account.book.begin(self._ceiling)
        self._begin_metering()
        super().start(connection, head)

    def _begin_metering(self) -> None:
        tenant = self._hosted.tenant
        if tenant is not None:
            self._tenant, self._metered = tenant, tenant.begin()

    def on_connected(self, upstream: Any) -> None:
        """Start metering where the process is up only now, after a cold start."""
        if self._metered is None:
            self._begin_metering()
        super().on_connected(upstream)

    def on_request_body(self, payload: bytes) -> None:
        """Hash what the function is given."""
        self._request_hash().update(payload)

    def _request_hash(self) -> hashlib._Hash:
        if self._asked is None:
            head = self.head
            self._asked = request_hasher(head.method, head.host, head.target)
        return self._asked

    def on_response_body(self, payload: bytes) -> None:
        """Hash what it gives."""
        if self._answered is None:
            self._answered = sha256(payload)
        else:
            self._answered.update(payload)

    def on_response_head(self, head: ResponseHead) -> bytes | Ready:
        """Say which run and node this was; turn a thrown error into a problem document."""
        if head.block.lower().find(b"lichen-") >= 0:
            if self._hosted.exact:
                self._report = read_report(head.get(EXACT) or b"")
            head.remove(*CALL_FIELDS, NODE, EXACT)  # a function may not speak for its node
            error = head.get(TENANT_ERROR)
            if error:
                return self._answer(failure(self._report))
        return b"lichen-run: %b\r\n%b" % (self._run, self._owner.node_field)

    def on_upstream_error(self, fault: Fault) -> Awaitable[Ready]:
        """Say why the process ended or does not answer; never run a second time unasked."""
        return self._explain(self._tenant, fault)

    async def _explain(self, tenant: Tenant | None, fault: Fault) -> Ready:
        if self._hosted.exact:
            return self._answer(failure_of_worker(fault))
        return self._answer(await crash_of(tenant))

    def on_deadline(self) -> Ready:
        """Give up on the run; a process that is stuck in a loop is ended."""
        self._owner.hosting.check_responsive(self._hosted)
        return self._answer(
            FunctionTimeoutError(
                f"the function did not answer within {self._hosted.spec.timeout_ms} ms",
                hint="make it faster, or raise timeout_ms in lichen.toml",
            )
        )

    def _answer(self, error: LichenError) -> Ready:
        fields = ((RUN, self._run), (NODE, self._owner.node_field[len(NODE) + 2 : -2]))
        self._replacement = problem_ready(error, headers=fields)
        return self._replacement

    def on_done(self, outcome: Outcome) -> None:
        """Bill the run and put its receipt on the way to disk."""
        owner, hosted = self._owner, self._hosted
        owner.in_flight -= 1
        now_ns = time.monotonic_ns()
        cpu_us, memory_mb_ms = self._measure()
        response_bytes = outcome.response_bytes
        if outcome.kind == "replaced" and self._replacement is not None:
            self._answered = sha256(self._replacement.body)
            response_bytes = len(self._replacement.body)
        amount = charge(owner.prices, cpu_us, memory_mb_ms, response_bytes, self._ceiling)
        account = self._account
        account.book.charge(amount, self._ceiling)
        owner.completed += 1
        run = self._run.decode()
        answered = self._answered or sha256()
        owner.log.append(
            run,
            account.channel.id,
            amount,
            owner.template(hosted)
            | {
                "run": run,
                "request": {
                    "hash": self._request_hash().hexdigest(),
                    "bytes": outcome.request_bytes,
                },
                "response": {
                    "hash": answered.hexdigest(),
                    "bytes": response_bytes,
                    "status": outcome.status,
                },
                "meter": {
                    "cpu_us": cpu_us,
                    "memory_mb_ms": memory_mb_ms,
                    "egress_bytes": response_bytes,
                    "wall_us": (now_ns - self._started_ns) // 1000,
                    **({} if self._report is None else {"fuel": self._report.fuel}),
                },
                "price": {
                    "quote": str(self._ceiling),
                    "amount": str(amount),
                    "channel": account.hex,
                    "currency": "FLK",
                },
                "started_at": self._started_ms,
            },
        )
        owner.till.record()

    def _measure(self) -> tuple[int, int]:
        """Return CPU us and memory-time; a process that is gone is billed as last seen."""
        metered, tenant = self._metered, self._tenant
        if metered is None or tenant is None:
            return 0, 0
        cost = tenant.end(metered)
        if self._report is not None:
            return self._report.cpu_us, self._report.memory_mb_ms
        return -(-cost.cpu_ns // 1000), cost.memory_mb_ms
