"""The functions that this node hosts: their code, the runtime of each, and its meter.

A function of a release is known by `app/release/name`. Its code is fetched when the release is
published, its process claimed from the pool with the first request; it ends when it was idle for
`idle_s`, or when it has to make room.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import structlog

from lichen.errors import LichenError
from lichen.ledger.types import Runtime as Kind
from lichen.node.errors import (
    FunctionCrashedError,
    FunctionFailedError,
    UnknownFunctionError,
    UnofferedRuntimeError,
)
from lichen.runtime.errors import LoadError
from lichen.runtime.logs import LogLine
from lichen.runtime.tenant import TenantSpec
from lichen.wire import Pool, PoolLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lichen.content import CID
    from lichen.identity import Address
    from lichen.interfaces import Runtime, Tenant
    from lichen.ledger.types import FunctionSpec
    from lichen.ledger.views import View

CODE_BYTES_MAX = 10 * 2**20
CONNECTIONS_PER_TENANT_MAX = 256
RESPONSIVE_S = 0.5
EXIT_KNOWN_S = 1.0
HOSTED_MAX = 10_000
CRASH_KINDS = ("memory", "pids", "crash", "unresponsive", "output")
CRASHES_FORGOTTEN_S = 30.0
REST_S_START = 0.5
REST_S_MAX = 8.0
NUMBER_DIGITS_MAX = 9

log = structlog.get_logger()


class Hosted:
    """One function on this node. `upstream` is set while it is up; `exact` is its runtime."""

    __slots__ = (
        "app", "crashed_at", "crashes", "exact", "id", "owner", "spec", "starting", "template",
        "tenant", "timeout_s", "upstream",
    )  # fmt: skip

    def __init__(self, identifier: str, owner: Address, spec: FunctionSpec) -> None:
        self.id = identifier
        self.app = identifier.split("/", 1)[0]
        self.timeout_s = spec.timeout_ms / 1000
        self.owner = owner
        self.spec = spec
        self.exact = spec.runtime is Kind.EXACT
        self.template: dict[str, Any] = {}
        self.upstream: Pool | None = None
        self.tenant: Tenant | None = None
        self.starting: asyncio.Future[Pool] | None = None
        self.crashes = 0
        self.crashed_at = 0.0

    def crashed(self, now: float) -> None:
        """Count a process that had to be ended, or ended by itself."""
        if now - self.crashed_at > CRASHES_FORGOTTEN_S:
            self.crashes = 0
        self.crashes += 1
        self.crashed_at = now

    def rest_s(self, now: float) -> float:
        """Return for how long it is not started again: nothing after one crash, then doubling.

        Starting costs every neighbour; a function that crashes with each request must not make
        the machine spend its time on that.
        """
        if self.crashes < 2:
            return 0.0
        rest = min(REST_S_START * 2.0 ** (self.crashes - 2), REST_S_MAX)
        return max(0.0, self.crashed_at + rest - now)


class Hosting:
    """All functions of this node, started on demand."""

    def __init__(
        self,
        view: View,
        runtimes: Mapping[Kind, Runtime],
        fetch: Callable[[CID, int], Awaitable[bytes]],
        on_log: Callable[[Hosted, LogLine], None],
        *,
        idle_s: int,
    ) -> None:
        self._view = view
        self._runtimes = runtimes
        self._fetch = fetch
        self._on_log = on_log
        self._idle_s = idle_s
        self._hosted: dict[bytes, Hosted] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def find(self, identifier: bytes) -> Hosted:
        """Return a function by id; raise UnknownFunctionError when the ledger has none such."""
        hosted = self._hosted.get(identifier)
        if hosted is None:
            hosted = self._look_up(identifier.decode("ascii", "replace"))
            if len(self._hosted) >= HOSTED_MAX:
                self._forget_cold()
            self._hosted[identifier] = hosted
        return hosted

    def _look_up(self, identifier: str) -> Hosted:
        app, _, rest = identifier.partition("/")
        number, _, name = rest.partition("/")
        known = number.isdecimal() and len(number) <= NUMBER_DIGITS_MAX
        release = self._view.release(app, int(number)) if known else None
        owner = self._view.app(app)
        if release is not None and owner is not None:
            for spec in release.functions:
                if spec.name == name:
                    return Hosted(identifier, owner.owner, spec)
        raise UnknownFunctionError(
            f"the ledger has no function {identifier[:120]!r} at this node's height",
            hint="a fresh release may take a moment to arrive; repeat the request",
        )

    def _forget_cold(self) -> None:
        for key in [key for key, hosted in self._hosted.items() if hosted.tenant is None]:
            del self._hosted[key]

    def runtime_of(self, hosted: Hosted) -> Runtime:
        """Return what runs a function; raise UnofferedRuntimeError when this node has no such."""
        runtime = self._runtimes.get(hosted.spec.runtime)
        if runtime is None:
            raise UnofferedRuntimeError(f"this node does not run {hosted.spec.runtime} functions")
        return runtime

    def start(self, hosted: Hosted) -> asyncio.Future[Pool]:
        """Return the start under way, begun now if there is none; many callers share it."""
        if hosted.starting is None:
            hosted.starting = asyncio.ensure_future(self._start(hosted))
            hosted.starting.add_done_callback(lambda done: self._started(hosted, done))
        return asyncio.shield(hosted.starting)

    def _started(self, hosted: Hosted, done: asyncio.Future[Pool]) -> None:
        hosted.starting = None
        if not done.cancelled():
            done.exception()  # every waiter got it; the event loop need not warn

    async def _start(self, hosted: Hosted) -> Pool:
        runtime = self.runtime_of(hosted)
        code = await self._fetch(hosted.spec.code, CODE_BYTES_MAX)
        spec = TenantSpec(
            name=hosted.id,
            owner=str(hosted.owner),
            code=code,
            memory_mb=hosted.spec.memory_mb,
            timeout_ms=hosted.spec.timeout_ms,
        )
        try:
            tenant = await runtime.claim(spec)
        except LoadError as error:
            raise self._not_loaded(hosted, error) from error
        tenant.on_log(lambda line: self._on_log(hosted, line))
        limits = PoolLimits(
            connections_max=CONNECTIONS_PER_TENANT_MAX, idle_max=CONNECTIONS_PER_TENANT_MAX
        )
        hosted.tenant = tenant
        hosted.upstream = Pool(f"unix:{tenant.socket_path}", limits=limits)
        tenant.exited.add_done_callback(lambda _: self._ended(hosted, tenant))
        return hosted.upstream

    def _not_loaded(self, hosted: Hosted, error: LoadError) -> FunctionFailedError:
        """Tell the owner why the code does not load, and others that it does not."""
        self._on_log(hosted, LogLine("error", error.what, time.time_ns() // 1_000_000))
        return FunctionFailedError(
            "the function cannot be loaded", hint="its owner sees why with `lichen logs`"
        )

    def _ended(self, hosted: Hosted, tenant: Tenant) -> None:
        if hosted.tenant is not tenant:
            return
        kind = tenant.exited.result().kind
        log.info("tenant ended", function=hosted.id, reason=kind)
        if kind in CRASH_KINDS:
            hosted.crashed(time.monotonic())
        if hosted.upstream is not None:
            hosted.upstream.close()
        hosted.tenant = hosted.upstream = None

    def sweep(self) -> None:
        """Stop the processes that were idle for too long."""
        now = time.monotonic()
        for tenant in (hosted.tenant for hosted in self.running()):
            if tenant and not tenant.in_flight and now - tenant.last_used > self._idle_s:
                tenant.stop("stopped")

    def check_responsive(self, hosted: Hosted) -> None:
        """After a timeout: end the process unless it still answers, so that a loop cannot stay."""
        tenant = hosted.tenant
        if tenant is not None:
            self._spawn(self._check(tenant))

    async def _check(self, tenant: Tenant) -> None:
        if not await tenant.responsive(RESPONSIVE_S):
            tenant.stop("unresponsive")

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def prefetch(self, specs: tuple[FunctionSpec, ...]) -> None:
        """Get ready for new functions, so that their first request does not wait for it."""
        for spec in specs:
            self._spawn(self._prefetch(spec))

    async def _prefetch(self, spec: FunctionSpec) -> None:
        runtime = self._runtimes.get(spec.runtime)
        with contextlib.suppress(LichenError):  # the first request tries again and says why
            await self._fetch(spec.code, CODE_BYTES_MAX)
            if spec.runtime is Kind.EXACT and runtime is not None:
                await runtime.start()

    def running(self) -> list[Hosted]:
        """Return the functions whose process is up."""
        return [hosted for hosted in self._hosted.values() if hosted.tenant is not None]


async def crash_of(tenant: Tenant | None) -> FunctionCrashedError:
    """Explain a process that went away while it answered."""
    detail = "the function's process ended while it answered"
    if tenant is not None:
        with contextlib.suppress(TimeoutError):
            reason = await asyncio.wait_for(asyncio.shield(tenant.exited), EXIT_KNOWN_S)
            detail = f"{detail}: {reason.detail}"
    return FunctionCrashedError(detail, hint="`lichen logs` shows what it wrote before that")
