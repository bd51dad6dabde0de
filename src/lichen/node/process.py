"""One edge node, composed by hand from its rooms: `lichen node run`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import lmdb
import structlog
import uvloop

import lichen
from lichen import journal
from lichen.cdn.delivery import Delivery
from lichen.cdn.retrieval.fetch import Fetcher
from lichen.cdn.routing.directory import OwnDirectory
from lichen.cdn.serve import ContentRouter
from lichen.cdn.upkeep import LOOK_S, Upkeep
from lichen.content import BlockStore
from lichen.errors import LichenError, MachineError
from lichen.identity.nonces import NonceCache
from lichen.identity.passwords import find_password
from lichen.identity.vault import Vault
from lichen.ledger.client import LedgerClient
from lichen.ledger.follower import Follower
from lichen.ledger.submitter import Submitter
from lichen.ledger.tables import APPS, CHANNELS
from lichen.ledger.transactions import RegisterNode, UpdateNode
from lichen.ledger.types import Runtime as Kind
from lichen.ledger.types import network_id
from lichen.market.receipt_log import ReceiptLog
from lichen.node.api import NodeStatus, as_text, create_api
from lichen.node.callhead import read_call
from lichen.node.config import NodeConfig, load_node_config, require_network
from lichen.node.hosting import Hosting
from lichen.node.invocation import Invocations
from lichen.node.logbook import Logbook
from lichen.node.sessions import Sessions
from lichen.node.till import Till
from lichen.runtime.engines import ensure
from lichen.runtime.exact.pool import ExactPool
from lichen.runtime.pool import Pool
from lichen.runtime.probe import detect
from lichen.wire import Limits, ListenerConfig, listening

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lichen.content import CID
    from lichen.identity import PrivateKey
    from lichen.ledger.blocks import Block
    from lichen.ledger.types import Genesis
    from lichen.wire import Answer, RequestHead

SWEEP_S = 5.0
OPEN_FILES_MAX = 65_536
RETRY_S = 1.0
CATCH_UP_S_MAX = 30.0
GC_ALLOCATIONS = 20_000  # more containers than freed before the collector looks at the young ones
GC_GENERATIONS = 20
# Above a gateway's bounds by what it adds: else a visitor could have every node refuse, and rest.
LIMITS = Limits(head_bytes_max=48 * 1024, headers_max=192)

log = structlog.get_logger()


class NodeProcess:
    """The parts of a running node."""

    def __init__(self, home: str, config: NodeConfig, key: PrivateKey, genesis: Genesis) -> None:
        self.home = home
        self.config = config
        self.key = key
        self.genesis = genesis
        self.network = network_id(genesis)
        self.started = time.monotonic()
        self.client = LedgerClient(config.ledger)
        self.follower = Follower(Path(home, "ledger"), config.ledger, genesis)
        self.submitter = Submitter(key, genesis, self.client, self.follower)
        self.store = BlockStore.open(Path(home, "content"), capacity_bytes=config.content_bytes_max)
        self.upkeep = Upkeep(self.store, self._running_code)
        self.fetcher = Fetcher(self.store, lambda: config.content_peers)
        self.content = ContentRouter(self.store)
        self.delivery = Delivery(self.store)
        self.directory = OwnDirectory(self.store, key.public, config.public_url or config.endpoint)
        self.receipts = ReceiptLog(os.path.join(home, "receipts"), key, self.network)
        self.sessions = Sessions(key.address, self.receipts)
        self.till = Till(self.receipts, self.sessions, self.network)
        self.logbook = Logbook()
        self.nonces = NonceCache(started_ms=time.time_ns() // 1_000_000)
        engines, able = ensure(), detect()
        operators = frozenset(str(owner) for owner in config.operators)
        self.pool = Pool(
            engines,
            os.path.join(home, "tenants"),
            sandbox=able.sandbox,
            cgroups=able.cgroups,
            prewarm=config.prewarm,
            tenants_max=config.capacity.slots,
            unsandboxed=operators.__contains__,
        )
        self.exact = ExactPool(
            engines, os.path.join(home, "exact"), sandbox=able.sandbox, cgroups=able.cgroups
        )
        for tier in able.tiers:
            log.info("tier", name=tier.name, available=tier.available, reason=tier.reason)
        self.tiers: tuple[str, ...] = (self.pool.tier,)
        self.hosting = Hosting(
            self.follower.state,
            {Kind.JS: self.pool, Kind.EXACT: self.exact},
            self.fetcher.fetch_file,
            lambda hosted, line: self.logbook.write(hosted.id, line),
            idle_s=config.idle_s,
        )
        self.invocations = Invocations(
            key.address, self.network, config, self.sessions, self.hosting, self.till
        )  # fmt: skip
        self.follower.on_block(self._on_block)
        self._ready = False
        self.hosts = _names(config)

    def route(self, head: RequestHead) -> Answer:
        """Decide what a request is: an invocation, content, or the node's own API."""
        call = read_call(head)
        if call is not None:
            return self.invocations.admit(call)
        if head.path.startswith(b"/ipfs/"):
            return self.content.answer(head)
        return None

    def is_ready(self) -> bool:
        """Tell whether the node is registered and can take work."""
        return self._ready

    def status(self) -> NodeStatus:
        """Describe the node's state."""
        return NodeStatus(
            address=str(self.key.address),
            version=lichen.__version__,
            height=self.follower.height,
            registered=self.follower.state.node(self.key.address) is not None,
            draining=self.invocations.draining,
            tier=self.pool.tier,
            in_flight=self.invocations.in_flight,
            completed=self.invocations.completed,
            receipts=self.receipts.count,
            running=tuple(hosted.id for hosted in self.hosting.running()),
            channels=len(self.sessions.accounts),
            uptime_s=int(time.monotonic() - self.started),
        )

    def metrics(self) -> bytes:
        """Return the counters in Prometheus' text format."""
        books = self.sessions.books.values()
        return as_text(
            {
                "lichen_node_runs_in_flight": self.invocations.in_flight,
                "lichen_node_runs_completed_total": self.invocations.completed,
                "lichen_node_receipts_total": self.receipts.count,
                "lichen_node_receipts_pending": self.receipts.pending,
                "lichen_node_tenants": len(self.hosting.running()),
                "lichen_node_channels": len(self.sessions.accounts),
                "lichen_node_unpaid": sum(book.unpaid for book in books),
                "lichen_ledger_height": self.follower.height,
                **self.upkeep.counters("lichen_node"),
            }
        )

    def _on_block(self, block: Block, changed: frozenset[bytes]) -> None:
        """Follow the ledger: deposits and closings of our channels, code of new releases."""
        del block
        view = self.follower.state
        for key in changed:
            if key.startswith(CHANNELS.prefix):
                identifier = key.removeprefix(CHANNELS.prefix)
                self.sessions.update(view.channel(identifier), identifier)
            elif key.startswith(APPS.prefix):
                release = view.active_release(key.removeprefix(APPS.prefix).decode())
                if release is not None:
                    self.hosting.prefetch(release.functions)

    async def register(self) -> None:
        """Put the node on the ledger, or bring its entry up to date with the configuration."""
        config = self.config
        node = self.follower.state.node(self.key.address)
        if node is None:
            await self.submitter.submit(
                RegisterNode(
                    self.key.public, config.endpoint, config.capacity, config.prices,
                    self.tiers, config.stake,
                )
            )  # fmt: skip
            log.info("registered", node=str(self.key.address), tiers=self.tiers)
            return
        wanted = (config.endpoint, config.capacity, config.prices, self.tiers)
        if (node.endpoint, node.capacity, node.prices, node.tiers) != wanted:
            added = max(0, config.stake - node.stake)
            await self.submitter.submit(UpdateNode(*wanted, type(config.stake)(added)))

    async def run(self) -> None:
        """Serve until the task is cancelled; then let work end, and close in order."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.till.close)
            stack.callback(self.store.close)
            stack.callback(self.delivery.close)
            stack.push_async_callback(self.fetcher.close)
            stack.push_async_callback(self.client.close)
            await stack.enter_async_context(self.follower)
            await self.pool.start()
            stack.push_async_callback(self.pool.close)
            stack.push_async_callback(self.exact.close)
            listener = ListenerConfig(
                addresses=(self.config.listen,), limits=LIMITS, name="node", mux=True
            )
            app = self.delivery.before(create_api(self))
            await stack.enter_async_context(listening(listener, self.route, app))
            await retry("registering on the ledger", self.register)
            settle_memory()
            self._ready = True
            log.info("serving", endpoint=self.config.endpoint, tier=self.pool.tier)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(every(SWEEP_S, self._sweep))
                tasks.create_task(every(LOOK_S, self.upkeep.look))
                tasks.create_task(every(self.config.settle_s, self._settle))

    def _running_code(self) -> list[CID]:
        return [hosted.spec.code for hosted in self.hosting.running()]

    async def _sweep(self) -> None:
        self.hosting.sweep()

    async def _settle(self) -> None:
        await self.till.settle(self.follower.state, self.submitter)


def _names(config: NodeConfig) -> frozenset[str]:
    """Return the names that payers reach this node by, for what they sign."""
    named = urlsplit(config.endpoint).hostname or ""
    listen = config.listen.rpartition(":")[0]
    names = (named, f"[{named}]", listen, "localhost", "127.0.0.1", "[::1]")
    return frozenset(name.lower() for name in names)


async def retry(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Repeat until it succeeds; the ledger may still be starting."""
    deadline = time.monotonic() + CATCH_UP_S_MAX
    while True:
        try:
            return await work()
        except (LichenError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise MachineError(
                    f"{what} failed for {CATCH_UP_S_MAX:.0f} s: {error}",
                    hint="check that the ledger runs and the account has FLK for the stake",
                ) from error
            log.info("waiting", what=what, error=str(error))
            await asyncio.sleep(RETRY_S)


def unlock(home: str, keys: str, name: str, password_file: str | None) -> PrivateKey:
    """Open a key of the vault that a configuration names; paths are relative to `home`."""
    file = Path(home, password_file) if password_file else None
    return Vault(Path(home, keys)).unlock(name, find_password(file=file))


def settle_memory() -> None:
    """Take what a process keeps for good out of the garbage collector's way, once it is started.

    Most of what requests make is freed by its reference count. With Python's defaults the collector
    ran so often, over all of a replica's state, that it was felt in every request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, GC_GENERATIONS, GC_GENERATIONS)


def allow_open_files(files_max: int = OPEN_FILES_MAX) -> None:
    """Let this process open as many files as its bounds on connections and content add up to.

    The usual soft limit of 1024 is for programs that use select(); the hard one stays as it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_max if hard == resource.RLIM_INFINITY else min(files_max, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def every(period_s: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again; an expected failure is logged and tried again."""
    while True:
        await asyncio.sleep(period_s)
        try:
            await work()
        except (LichenError, OSError, lmdb.Error) as error:
            log.warning("will be tried again", work=work.__name__, error=str(error))


def run_until_stopped(start: Callable[[], Awaitable[None]]) -> None:
    """Run a process's main coroutine on uvloop until SIGTERM or SIGINT cancels it."""
    journal.configure()
    allow_open_files()

    async def main() -> None:
        task = asyncio.ensure_future(start())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    uvloop.run(main())


def serve(home: str) -> None:
    """Run the node of a home folder until it is told to stop."""
    config = load_node_config(home)
    key = unlock(home, config.keys, config.key, config.password_file)

    async def start() -> None:
        client = LedgerClient(config.ledger)
        genesis = await client.genesis()
        require_network(config.network, genesis)
        await NodeProcess(home, config, key, genesis).run()

    run_until_stopped(start)
