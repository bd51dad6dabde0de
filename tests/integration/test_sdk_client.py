"""The client library against the API over real HTTP on loopback."""

import asyncio
import threading

import pytest
import uvicorn

from lichen.content.car import write_car
from lichen.content.cid import CID, RAW
from lichen.errors import NotAllowedError, NotFoundError, PeerUnavailableError
from lichen.gateway.api.events import Event
from lichen.ledger.errors import OverdraftError, UnknownAppError
from lichen.ledger.transactions import ActivateRelease, CreateApp, Transfer
from lichen.ledger.types import network_id
from lichen.sdk.client import Client
from lichen.units import FLK, Amount
from lichen.wire.errors import BodyTooLargeError
from tests.unit import gateway_api_world as w

START_S_MAX = 10


class Server:
    """The API on an ephemeral port, in a thread with an event loop of its own."""

    def __init__(self, world):
        config = uvicorn.Config(
            world.api, host="127.0.0.1", port=0, log_level="warning", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(START_S_MAX)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def _run(self):
        async def serve():
            startup = self._server.startup

            async def started(sockets=None):
                await startup(sockets)
                self._started.set()

            self._server.startup = started
            await self._server.serve()

        self.loop.run_until_complete(serve())
        self.loop.close()

    def close(self):
        self._server.should_exit = True
        self._thread.join(START_S_MAX)
        assert not self._thread.is_alive()


@pytest.fixture
def world(tmp_path):
    world = w.World(tmp_path).populate()
    yield world
    world.close()


@pytest.fixture
def server(world, monkeypatch):
    monkeypatch.setattr("lichen.sdk.connection.time.time", lambda: w.NOW_MS / 1000)
    server = Server(world)
    yield server
    world.events.close()
    server.close()


@pytest.fixture
def client(server):
    with Client(server.url, w.OWNER) as client:
        yield client


def test_everything_that_can_be_read_comes_back_typed(client, world):
    assert client.status().network == client.network() == network_id(world.genesis)
    assert client.account().balance == world.ledger.account(w.OWNER.address).balance
    assert client.app("shop").release.number == 2
    assert [app.name for app in client.apps(w.OWNER.address)] == ["empty", "shop"]
    assert [release.number for release in client.releases("shop")] == [2, 1]
    assert client.release("shop", 1).site == w.CODE
    assert [g.delegate for g in client.grants("shop")] == [w.GATEWAY.address]
    assert [c.payee for c in client.channels()] == [w.NODE.address]
    assert [f.id for f in client.functions("shop")] == ["shop/2/api", "shop/2/ssr"]
    assert [n.node.address for n in client.nodes()] == [w.NODE.address]
    assert client.node(w.NODE.address).reachable
    assert [offer.prices for offer in client.market_nodes()] == [w.PRICES]
    assert client.market_prices().nodes == 1
    assert client.quote("shop/api").nodes[0].node == w.NODE.address
    assert [epoch.receipts for epoch in client.epochs()] == [3]
    assert [block.height for block in client.blocks(2, limit=2)] == [2, 3]
    assert client.storage(str(w.CODE)).bytes == 4
    assert client.run(world.run).status == 200
    assert "shop/2/api" in client.why(world.run).story[0]
    assert client.history().items[0].height <= world.head.height


def test_a_transfer_moves_money_and_several_transactions_keep_their_order(client, world):
    client.transfer(w.POOR.address, 3 * FLK)
    results = client.submit(CreateApp("new-one", "x"), Transfer(w.POOR.address, Amount(1)))
    assert [result.height for result in results] == [world.head.height - 1, world.head.height]
    assert world.ledger.account(w.POOR.address).balance == 3 * FLK + 1
    client.submit(ActivateRelease("shop", 1))
    assert client.app("shop").app.active == 1


def test_refusals_are_raised_as_the_ledgers_own_errors_and_the_next_try_works(client):
    with pytest.raises(OverdraftError) as caught:
        client.transfer(w.POOR.address, 10**6 * FLK)
    assert caught.value.what
    with pytest.raises(UnknownAppError):
        client.submit(ActivateRelease("none", 1))
    client.transfer(w.POOR.address, 1)


def test_errors_of_reads_are_typed(client):
    with pytest.raises(UnknownAppError):
        client.app("none")
    with pytest.raises(NotFoundError, match="no run"):
        client.run("none/../x")


def test_a_car_is_uploaded_with_progress(client, world):
    blocks = [(CID.of(RAW, data), data) for data in (b"a", b"b" * 90_000)]
    seen = []
    uploaded = client.upload_car(
        write_car([blocks[0][0]], blocks), progress=lambda done, total: seen.append((done, total))
    )
    assert uploaded.roots == (blocks[0][0],)
    assert world.store.size(blocks[1][0]) == 90_000
    assert seen[-1][0] == seen[-1][1] > 90_000


def test_logs_are_signed_by_the_owner(client, server):
    assert [line.text for line in client.logs("shop")] == ["hi"]
    with Client(server.url, w.GATEWAY) as stranger, pytest.raises(NotAllowedError):
        list(stranger.logs("shop"))


def test_events_arrive_while_they_happen(client, server, world):
    found = []
    listening = threading.Event()

    def listen():
        events = client.events()
        listening.set()
        found.append(next(events))
        events.close()

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(START_S_MAX)
    publish = lambda: world.events.publish(Event("block", 7, {}))  # noqa: E731 - runs on the loop
    for _ in range(200):
        server.loop.call_soon_threadsafe(publish)
        thread.join(0.05)
        if not thread.is_alive():
            break
    assert [event.kind for event in found] == ["block"]


def test_a_gateway_that_stopped_is_unavailable(world):
    server = Server(world)
    server.close()
    with Client(server.url) as client, pytest.raises(PeerUnavailableError, match="no gateway"):
        client.status()


def test_an_upload_over_the_gateways_bound_says_so(client, world):
    data = bytes(8 * 2**20)
    cid = CID.of(RAW, data[: 2**20])
    blocks = [(cid, data[: 2**20])] * 8
    with pytest.raises(BodyTooLargeError, match="100000 bytes"):
        client.upload_car(write_car([cid], blocks))
    assert world.store.size(cid) is None
