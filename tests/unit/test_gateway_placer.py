"""Where runs go: over nodes of a real ledger state, with links that are opened by hand."""

import time

import msgspec
import pytest

from lichen.gateway.config import GatewayConfig
from lichen.gateway.links import Links
from lichen.gateway.placement import BUSY_IN_FLIGHT
from lichen.gateway.placer import RANKING_S_MAX, Placer
from lichen.gateway.routes import AppRoutes
from lichen.gateway.runs import RunLog
from lichen.ledger.tables import NODES
from lichen.ledger.transactions import CreateApp, ExitNode, PublishRelease, RegisterNode
from lichen.ledger.types import Capacity, Prices
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import FLK, Amount
from tests.unit.test_gateway_front import function

GATEWAY, OWNER = key_of("gateway"), key_of("owner")
NAMES = ("one", "two", "three")


class Replica:
    """The ledger as links see it."""

    def __init__(self, ledger):
        self.state = ledger.view

    async def sync(self):
        """There is nothing to catch up with."""


class World:
    def __init__(self, folder):
        self.ledger = MemoryLedger(genesis_of("owner", "gateway", *NAMES))
        for number, name in enumerate(NAMES):
            self.register(name, 1 + number)
        self.ledger.submit(OWNER, CreateApp("shop", ""))
        self.ledger.submit(OWNER, PublishRelease("shop", None, (function(),), None))
        self.runs = RunLog(str(folder), GATEWAY.address)
        config = GatewayConfig(network="", ledger="", listen="")
        network = self.ledger.network
        self.links = Links(GATEWAY, network, config, Replica(self.ledger), None, self.runs)
        self.placer = Placer(self.ledger.view, self.links, self.runs, replicas=2)
        release = self.ledger.view.active_release("shop")
        (self.function,) = AppRoutes(OWNER.address, release).functions

    def register(self, name, price):
        key = key_of(name)
        prices = Prices(*[Amount(price << 20)] * 5)  # classes of price that are apart
        endpoint = f"http://127.0.0.1:{price}"
        body = RegisterNode(
            key.public, endpoint, Capacity(4, 1024, 0), prices, ("process",), Amount(10 * FLK)
        )
        self.ledger.submit(key, body)

    def open(self, *names):
        for name in names:
            node = self.ledger.view.node(key_of(name).address)
            self.links.get(self.function, node).session = name.encode()

    def placed(self):
        link = self.placer.place(self.function)
        return None if link is None else link.session.decode()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.runs.close()


def test_nothing_is_placed_on_a_link_that_is_not_open(world):
    assert world.placed() is None
    assert "not opened yet" in world.placer.explain(world.function)


def test_the_cheapest_node_with_an_open_link_is_taken(world):
    world.placer.ranking(world.function)
    world.open("two")
    assert world.placed() == "two"
    world.open("one")
    assert world.placed() == "one"


def test_only_so_many_replicas_are_considered(world):
    world.open("three")
    assert world.placed() is None
    ranking = world.placer.ranking(world.function)
    assert [key_of(name).address for name in NAMES] == list(ranking.nodes)


def test_a_busy_node_gives_way_to_the_next_one(world):
    world.open("one", "two")
    placed = [world.placed() for _ in range(BUSY_IN_FLIGHT + 1)]
    assert placed == ["one"] * BUSY_IN_FLIGHT + ["two"]


def test_a_run_that_is_over_frees_its_place(world):
    world.open("one", "two")
    links = [world.placer.place(world.function) for _ in range(BUSY_IN_FLIGHT)]
    links[0].place("run", 1)
    links[0].left()
    assert world.placed() == "one"


def test_a_failed_node_rests_and_says_so(world):
    world.open("one", "two")
    link = world.placer.place(world.function)
    world.placer.failed(link)
    assert world.placed() == "two"
    assert "not answering lately" in world.placer.explain(world.function)
    health = world.placer.health[bytes(key_of("one").address)]
    assert health.rest_until_ms > time.monotonic() * 1000


def test_a_block_that_changes_the_registry_changes_the_ranking_at_once(world):
    world.open("one", "two")
    assert world.placed() == "one"
    world.ledger.submit(key_of("one"), ExitNode())
    assert RANKING_S_MAX > 0.5
    world.placer.on_block(None, frozenset({NODES.prefix + key_of("one").address}))
    assert world.placed() == "two"
    assert "leaving the network" in world.placer.explain(world.function)


def test_blocks_that_change_nothing_of_interest_keep_the_ranking(world):
    ranking = world.placer.ranking(world.function)
    world.placer.on_block(None, frozenset({b"unrelated"}))
    assert world.placer.ranking(world.function) is ranking


def test_a_node_that_moves_loses_its_session_and_gets_another_pool(world):
    node = world.ledger.view.node(key_of("one").address)
    link = world.links.get(world.function, node)
    link.session, before = b"s", link.peer
    moved = msgspec.structs.replace(node, endpoint="http://127.0.0.1:99")
    assert world.links.get(world.function, moved) is link
    assert (link.session, link.peer is before) == (b"", False)
    assert link.peer.host == "127.0.0.1:99"


def test_a_session_is_lost_only_if_it_is_still_the_one_that_was_refused(world):
    node = world.ledger.view.node(key_of("one").address)
    link = world.links.get(world.function, node)
    link.session = b"new"
    world.links.lost_session(link, b"old")
    assert link.session == b"new"
    world.links.lost_session(link, b"new")
    assert link.session == b""


async def test_nobody_waits_where_waiting_cannot_help(world):
    began = time.monotonic()
    assert await world.placer.place_when_open(world.function, (), began + 60) is None
    assert time.monotonic() - began < 30
    assert "has not granted this gateway any spending" in world.placer.explain(world.function)
