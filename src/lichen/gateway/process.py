"""One gateway, composed by hand from its rooms: `lichen gateway run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from lichen.cdn.delivery import Delivery
from lichen.cdn.retrieval.fetch import Fetcher, Outside
from lichen.cdn.routing.api import routing_routes
from lichen.cdn.routing.directory import NetworkDirectory, Node, OwnDirectory
from lichen.cdn.serve import ContentRouter
from lichen.cdn.upkeep import LOOK_S, Upkeep
from lichen.content import BlockStore
from lichen.errors import LichenError, NotFoundError, PeerError, VerificationError
from lichen.gateway import welcome
from lichen.gateway.api.app import create_api
from lichen.gateway.api.events import EventHub, block_events, publish_runs
from lichen.gateway.apps import Apps
from lichen.gateway.config import GatewayConfig, load_gateway_config
from lichen.gateway.contents import before
from lichen.gateway.front import Front
from lichen.gateway.links import Links
from lichen.gateway.logs import gather
from lichen.gateway.name_service import KEEP_S, NameService
from lichen.gateway.named import Named
from lichen.gateway.placer import Placer
from lichen.gateway.runs import RunLog, RunRecord
from lichen.identity import Address
from lichen.identity.nonces import NonceCache
from lichen.ledger.client import LedgerClient
from lichen.ledger.follower import Follower
from lichen.ledger.submitter import APPLIED_S_MAX, Submitter
from lichen.ledger.tables import APPS, GRANTS
from lichen.ledger.types import network_id
from lichen.market.receipt import RECEIPT_BYTES_MAX
from lichen.node.api import as_text
from lichen.node.config import require_network
from lichen.node.process import every, run_until_stopped, settle_memory, unlock
from lichen.verify.receipt import verify_receipt
from lichen.wire import ListenerConfig, listening
from lichen.wire.client import request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.requests import Request

    from lichen.cdn.names.resolver import Resolved
    from lichen.content import CID
    from lichen.gateway.placement import Health
    from lichen.identity import PrivateKey
    from lichen.ledger.blocks import Block
    from lichen.ledger.results import Result
    from lichen.ledger.types import App, Genesis
    from lichen.wire import Listener

RUNS_FLUSH_S = 0.2
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
RECEIPT_S_MAX = 10.0
HEIGHT_NEVER_REACHED = 1 << 62

log = structlog.get_logger()


class GatewayProcess:
    """The parts of a running gateway; also what its API sees of it."""

    def __init__(
        self,
        home: str,
        config: GatewayConfig,
        key: PrivateKey,
        genesis: Genesis,
        kept_names: Sequence[PrivateKey] = (),
    ) -> None:
        self.config = config
        self.gateway = key.address
        self.hosts = _names(config)
        self.upload_bytes_max = config.upload_bytes_max
        self.account_bytes_max = config.account_bytes_max
        self.client = LedgerClient(config.ledger)
        self.replica = Follower(Path(home, "ledger"), config.ledger, genesis)
        self.submitter = Submitter(key, genesis, self.client, self.replica)
        self.store = BlockStore.open(Path(home, "content"), capacity_bytes=config.content_bytes_max)
        self.upkeep = Upkeep(self.store)
        self.runs = RunLog(os.path.join(home, "runs"), key.address)
        self.events = EventHub()
        self.nonces = NonceCache(started_ms=self.now_ms())
        view = self.replica.state
        self.apps = Apps(view, self.store)
        self.links = Links(
            key, network_id(genesis), config, self.replica, self.submitter, self.runs
        )
        self.placer = Placer(view, self.links, self.runs, replicas=config.replicas)
        self.content = ContentRouter(self.store, can_fetch=True)
        self._nodes_at: tuple[int, list[Node]] = (-1, [])
        self.fetcher = Fetcher(
            self.store,
            self._endpoints,
            private_peers=config.private_nodes,
            outside=Outside(config.routers, config.kubo),
        )
        self.directory = NetworkDirectory(
            OwnDirectory(self.store, key.public, config.reached_at),
            self._nodes,
            self.fetcher.origins,
            private_nodes=config.private_nodes,
        )
        self.delivery = Delivery(self.store, self.fetcher)
        self.names = NameService(home, config, kept_names, self.fetcher.routers)
        named = Named(self.names.names, self.content)
        self.front = Front(config, self.apps, self.content, self.placer, named)
        self.listener: Listener | None = None
        for follow in (self.apps.on_block, self.placer.on_block, block_events(self.events)):
            self.replica.on_block(follow)
        self.replica.on_block(self._warm)

    # --- what the API asks ---------------------------------------------------------------------

    @property
    def health(self) -> Mapping[bytes, Health]:
        """How each node behaved lately, by address."""
        return self.placer.health

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def submit(self, transactions: Sequence[bytes]) -> Sequence[Result]:
        """Pass transactions to the ledger; wait until the replica has applied them."""
        results = await self.client.submit(transactions)
        height = max((result.height or 0 for result in results), default=0)
        async with asyncio.timeout(APPLIED_S_MAX):
            await self.replica.wait_for(height)
        return results

    async def resolve_name(self, name: str) -> Resolved:
        """Return what a mutable name stands for."""
        return await self.names.names.resolve(name)

    async def fetch(self, cid: CID, bytes_max: int) -> None:
        """Bring the whole DAG below a CID into the store."""
        await self.fetcher.fetch(cid, bytes_max)

    def run_record(self, run: str) -> RunRecord:
        """Return a run's record; raise NotFoundError."""
        return self.runs.get(run)

    async def receipt(self, run: str) -> bytes:
        """Fetch a run's receipt from the node that ran it."""
        record = self.runs.get(run)
        node = self.replica.state.node(Address.parse(record.node)) if record.node else None
        if node is None:
            raise NotFoundError(
                f"no node answered run {run}, so there is no receipt",
                hint=f"`lichen why {run}` tells what happened",
            )
        peer = self.links.peer(node)
        response = await request(
            peer.pool,
            b"GET",
            b"/v1/runs/%b/receipt" % run.encode(),
            headers=[(b"host", peer.host.encode())],
            timeout_s=RECEIPT_S_MAX,
            body_bytes_max=RECEIPT_BYTES_MAX,
        )
        if response.status == 404:
            raise NotFoundError(f"node {record.node} has no receipt of run {run}")
        if response.status != 200:
            raise PeerError(f"node {record.node} answered {response.status}", hint="try again")
        if self.runs.pending:  # whoever got a receipt once gets it again, also after a crash
            await self.runs.flush()
        _require_receipt(response.body, run, record.node)
        return response.body

    def logs(self, app: App, *, follow: bool) -> AsyncIterator[bytes]:
        """Gather an app's log lines from its nodes."""
        return gather(self.links.of_app(app.name), follow=follow)

    # --- running -------------------------------------------------------------------------------

    def _warm(self, block: Block, changed: frozenset[bytes]) -> None:
        """Open an app's links as soon as it has a release and a grant."""
        del block
        names = {
            key.removeprefix(APPS.prefix).decode() for key in changed if key.startswith(APPS.prefix)
        }
        if any(key.startswith(GRANTS.prefix) for key in changed):
            names |= {grant.app for grant in self.replica.state.grants_to(self.gateway)}
        for name in names:
            with contextlib.suppress(LichenError):  # no release yet: the next block may bring it
                self.placer.warm(self.apps.get(name))

    def _endpoints(self) -> list[str]:
        """Return where blocks may be had: the nodes of the registry."""
        return [node.endpoint for node in self._nodes()]

    def _nodes(self) -> list[Node]:
        """Return the registry's nodes; they are asked for at every block that is fetched."""
        height = self.replica.height
        if self._nodes_at[0] != height:
            nodes = [Node(node.key, node.endpoint) for node in self.replica.state.nodes()]
            self._nodes_at = (height, nodes)
        return self._nodes_at[1]

    async def _warm_all(self) -> None:
        for grant in self.replica.state.grants_to(self.gateway):
            with contextlib.suppress(LichenError):
                self.placer.warm(self.apps.get(grant.app))

    def asgi(self) -> Starlette:
        """Return what is behind the hot paths: API, health, metrics."""
        return Starlette(
            routes=[
                Route("/", self._welcome),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
                *routing_routes(self.directory, self.names.store),
                Mount("/", create_api(self)),
            ]
        )

    async def _welcome(self, asked: Request) -> Response:
        host, _, port = asked.headers.get("host", "").rpartition(":")
        local = host in LOOPBACK and port.isdecimal()
        page = welcome.page(self.replica, f":{port}" if local else "")
        return HTMLResponse(page, headers=welcome.HEADERS)

    async def _health(self, _: Request) -> Response:
        ready = self.replica.connected and self.replica.error is None
        return PlainTextResponse("ok\n" if ready else "starting\n", 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        counters: dict[str, Any] = {
            "lichen_gateway_ledger_height": self.replica.height,
            **self.upkeep.counters("lichen_gateway"),
            "lichen_gateway_runs_pending": self.runs.pending,
            "lichen_gateway_ipns_records": len(self.names.store),
            **self._fetch_metrics(),
        }
        if self.listener is not None:
            for name, value in self.listener.counters.snapshot().items():
                counters[f"lichen_gateway_http_{name}"] = value
        return Response(as_text(counters), media_type="text/plain; version=0.0.4")

    def _fetch_metrics(self) -> dict[str, int]:
        fetcher = self.fetcher
        return {
            "lichen_gateway_fetched_from_nodes_total": fetcher.counts["node"],
            "lichen_gateway_fetched_from_providers_total": fetcher.counts["provider"],
            "lichen_gateway_fetched_from_kubo_total": fetcher.counts["kubo"],
            "lichen_gateway_fetches_hedged_total": fetcher.counts["hedged"],
            "lichen_gateway_router_lookups_total": fetcher.routers.lookups,
            "lichen_gateway_wrong_blocks_total": fetcher.counts["wrong"],
        }

    async def run(self) -> None:
        """Serve until the task is cancelled; then pay what is due and close in order."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.runs.close)
            stack.callback(self.store.close)
            stack.callback(self.delivery.close)
            stack.push_async_callback(self.fetcher.close)
            stack.push_async_callback(self.names.close)
            stack.push_async_callback(self.directory.close)
            stack.push_async_callback(self.client.close)
            await stack.enter_async_context(self.replica)
            stack.push_async_callback(self._pay_last)
            config = ListenerConfig(
                addresses=(self.config.listen,), name="gateway", is_own=self.front.is_own
            )
            self.listener = await stack.enter_async_context(
                listening(config, self.front.route, before(self.front, self.delivery, self.asgi()))
            )
            stack.callback(self.events.close)  # endless answers end before the listener waits
            await self.names.keep()
            await self._warm_all()
            settle_memory()
            log.info(
                "serving",
                listen=self.config.listen,
                hosts=self.config.hosts,
                reached_at=self.config.reached_at or "not told: public_url",
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(every(self.config.pay_ms / 1000, self.links.settle_all))
                tasks.create_task(every(RUNS_FLUSH_S, self._flush_runs))
                tasks.create_task(every(KEEP_S, self.names.keep))
                tasks.create_task(every(KEEP_S, self.names.tell))
                tasks.create_task(every(LOOK_S, self.upkeep.look))
                tasks.create_task(self._watch_replica())

    async def _flush_runs(self) -> None:
        publish_runs(self.events, self.runs.take_recent())
        if self.runs.pending:
            await self.runs.flush()

    async def _pay_last(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECEIPT_S_MAX):
                await self.links.settle_all()

    async def _watch_replica(self) -> None:
        """End the process when the ledger does not hold: nothing it says may be used."""
        await self.replica.wait_for(HEIGHT_NEVER_REACHED)


def _require_receipt(data: bytes, run: str, node: str) -> None:
    """Raise PeerError unless these bytes are the node's own receipt of this run."""
    try:
        receipt = verify_receipt(data).receipt
    except VerificationError as error:
        raise PeerError(f"node {node} sent a receipt that does not hold: {error.what}") from error
    if receipt.run != run or receipt.node != Address.parse(node):
        raise PeerError(f"node {node} sent the receipt of another run", hint="ask another gateway")


def _names(config: GatewayConfig) -> frozenset[str]:
    """Return the names that clients reach this gateway by, for what they sign."""
    listen = config.listen.rpartition(":")[0]
    return frozenset(name.lower() for name in (*config.hosts, *LOOPBACK, listen))


def serve(home: str) -> None:
    """Run the gateway of a home folder until it is told to stop."""
    config = load_gateway_config(home)
    key, *kept_names = (
        unlock(home, config.keys, name, config.password_file)
        for name in (config.key, *config.names)
    )

    async def start() -> None:
        async with LedgerClient(config.ledger) as client:
            genesis = await client.genesis()
        require_network(config.network, genesis)
        await GatewayProcess(home, config, key, genesis, kept_names).run()

    run_until_stopped(start)
