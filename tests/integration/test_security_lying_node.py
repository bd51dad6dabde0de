"""A node that lies to the gateway that pays it: it gets what it earned, and nothing breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from lichen.errors import NotFoundError, PeerError
from lichen.gateway.call import Call
from lichen.gateway.config import GatewayConfig
from lichen.gateway.links import Link, Links, NodePeer
from lichen.gateway.placer import Placer
from lichen.gateway.routes import AppRoutes
from lichen.gateway.runs import Attempt, RunRecord
from lichen.ledger.transactions import UpdateNode
from lichen.market.account import Line, PayerBook
from lichen.units import FLK, Amount
from lichen.wire import ListenerConfig, listening
from tests.integration.wire_world import client
from tests.unit.gateway_api_world import CAPACITY, GATEWAY, NODE, OWNER, PRICES, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

CEILING = 1000
NO_UPGRADE = b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n"
NODE_TEXT = "0x" + NODE.address.hex()


class LyingNode:
    """Answers every control request with what the test says; remembers what it was sent."""

    def __init__(self) -> None:
        self.port = 0
        self.answer: Callable[[str, Any], tuple[int, Any]] = lambda _path, _body: (500, {})
        self.heard: list[Any] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\nupgrade: lichen" in head:
                    writer.write(NO_UPGRADE)
                    continue
                lines = head.lower().split(b"\r\n")
                sizes = [int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length:")]
                body = json.loads(await reader.readexactly(sizes[0]))
                self.heard.append(body)
                status, said = self.answer(head.split(b" ")[1].decode(), body)
                data = json.dumps(said).encode()
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(data)))
                writer.write(data)
        writer.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path).populate()
    yield world
    world.close()


@pytest.fixture
async def node() -> AsyncIterator[LyingNode]:
    node = LyingNode()
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.port = server.sockets[0].getsockname()[1]
    yield node
    server.close()


@pytest.fixture
def links(world: World) -> Links:
    config = GatewayConfig(network="", ledger="", listen="", private_nodes=True)
    return Links(GATEWAY, world.network, config, world.replica, None, world.runs)  # type: ignore[arg-type]


@pytest.fixture
def link(world: World, node: LyingNode) -> Link:
    peer = NodePeer(bytes(NODE.address), f"http://127.0.0.1:{node.port}", private=True)
    link = Link("shop", OWNER.address, peer)
    (channel,) = world.ledger.channels_of(signer=GATEWAY.address)
    link.channel, link.session, link.book = channel.id, b"s" * 16, PayerBook(FLK)
    return link


def placed(world: World, link: Link) -> str:
    """A run that the node answered and the gateway noted."""
    run = world.runs.next_run()
    link.place(run, CEILING)
    link.left()
    attempts = (Attempt(NODE_TEXT, "complete", 1),)
    world.runs.add(
        RunRecord(run, "shop/2/api", "GET", "/", 1, CEILING, node=NODE_TEXT, attempts=attempts)
    )
    return run


async def test_a_run_cannot_be_billed_again_by_hiding_that_its_voucher_came(
    world: World, node: LyingNode, links: Links, link: Link
) -> None:
    run, taken = placed(world, link), [0]

    def answer(_path: str, body: Any) -> tuple[int, Any]:
        if body.get("voucher"):
            taken[0] = max(taken[0], int(body["voucher"]["cumulative"]))
            return 500, {"detail": "I never saw it"}
        owed = taken[0] + CEILING
        return 200, {"owed": str(owed), "paid": str(taken[0]), "runs": [[0, run, CEILING]]}

    node.answer = answer
    for _ in range(5):
        with contextlib.suppress(PeerError):
            await links.settle(link)
    recall = FLK // 100
    assert link.book.signed <= CEILING + recall
    assert link.book.signed - CEILING == link.book.forgiven


async def test_a_run_paid_for_on_a_channel_is_not_billed_again_on_the_next(
    world: World, links: Links, link: Link
) -> None:
    run = placed(world, link)
    link.unconfirmed = (Line(0, run, CEILING),)
    links._confirm(link)
    assert world.runs.ceiling(run, NODE_TEXT) is None


@pytest.mark.parametrize("run", ["", "\0", "x" * 5000, "../../etc", "é" * 200])
async def test_a_statement_with_an_odd_run_id_ends_the_trust_and_not_the_gateway(
    world: World, node: LyingNode, links: Links, link: Link, run: str
) -> None:
    placed(world, link)
    links._links["shop", bytes(NODE.address)] = link
    bill = FLK // 10
    node.answer = lambda _path, _body: (
        200,
        {"owed": str(bill), "paid": "0", "runs": [[0, run, bill]]},
    )
    await links.settle_all()
    assert not link.trusted
    assert link.book.signed == 0
    with pytest.raises(NotFoundError):
        world.runs.get(run)


async def test_a_negative_line_is_refused(
    world: World, node: LyingNode, links: Links, link: Link
) -> None:
    run = placed(world, link)
    runs = [[0, run, CEILING], [1, "0" * 8 + "-" + "0" * 12, -1]]
    node.answer = lambda _path, _body: (
        200,
        {"owed": str(CEILING - 1), "paid": "0", "runs": runs},
    )
    with pytest.raises(PeerError, match="bills -1"):
        await links.settle(link)


@pytest.mark.parametrize("session", ["x\r\nlichen-ceiling: 9", "", "a b" * 10, "a" * 5000])
async def test_a_session_that_is_no_token_opens_nothing(
    node: LyingNode, links: Links, link: Link, world: World, session: str
) -> None:
    prices = {"request": "1", "cpu_s": "1", "memory_gib_s": "1", "egress_gib": "1",
              "storage_gib_month": "1"}  # fmt: skip
    node.answer = lambda _path, _body: (
        200,
        {"session": session, "credit": "1", "prices": prices, "owed": "0", "paid": "0",
         "tiers": []},
    )  # fmt: skip
    link.session = b""
    (channel,) = world.ledger.channels_of(signer=GATEWAY.address)
    with pytest.raises(PeerError, match="session"):
        await links._open_session(link, channel)
    assert link.session == b""


@contextlib.asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[int]:
    """A node that answers every run with these bytes; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\nupgrade: lichen" in head:
                    writer.write(NO_UPGRADE)
                    continue
                node_heard.append(head)
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


node_heard: list[bytes] = []


async def through_gateway(
    world: World, links: Links, data: bytes, host: bytes | None = None
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return what a visitor gets of a run that a node answers with `data`."""
    node_heard.clear()
    async with answering(data) as port:
        offer = (f"http://127.0.0.1:{port}", CAPACITY, PRICES, ("process",), Amount(0))
        world.do(NODE, UpdateNode(*offer))
        release = world.ledger.active_release("shop")
        assert release is not None
        function = AppRoutes(OWNER.address, release).functions[0]
        placer = Placer(world.ledger, links, world.runs, replicas=1)
        (link,) = placer._rank(function).links.values()
        (channel,) = world.ledger.channels_of(signer=GATEWAY.address)
        link.channel, link.session, link.book = channel.id, b"s" * 32, PayerBook(FLK)
        target = None if host is None else b"/api/x"
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        async with (
            listening(config, lambda _head: Call(placer, function, target, host)) as listener,
            client(listener.port) as visitor,
        ):
            return await visitor.ask(
                b"GET /api/x?token=secret HTTP/1.1\r\nhost: a\r\ncookie: other=app\r\n"
                b"Lichen-Run: 0\r\nlichen-SESSION: stolen\r\nlichen-ceiling: 1\r\n\r\n"
            )


async def test_a_visitor_cannot_write_the_fields_between_gateway_and_node(
    world: World, links: Links
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nlichen-node: x\r\n\r\n"
    await through_gateway(world, links, answer)
    head = node_heard[0].lower()
    for name in (b"lichen-run:", b"lichen-session:", b"lichen-ceiling:", b"lichen-function:"):
        assert head.count(b"\r\n" + name) == 1
    assert b"stolen" not in head
    assert b"lichen-ceiling: 1\r\n" not in head


@pytest.mark.parametrize(
    "lie",
    [
        b"lichen-run: 11111111-111111111111\r\nlichen-node: 0x%b\r\n" % (b"22" * 20),
        b"Lichen-Node: 0x%b\r\n" % (b"22" * 20),
        b"lichen-node: x\r\nlichen-node: y\r\nlichen-session: z\r\n",
    ],
)
async def test_a_node_cannot_put_its_answer_down_to_another_run_or_node(
    world: World, links: Links, lie: bytes
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n%b\r\nhi" % lie
    status, fields, body = await through_gateway(world, links, answer)
    assert (status, body) == (200, b"hi")
    assert fields[b"lichen-node"] == str(NODE.address).encode()
    assert world.runs.get(fields[b"lichen-run"].decode()).status == 200
    assert b"lichen-session" not in fields


async def test_an_app_below_a_path_gets_an_origin_of_nobody_and_leaves_nothing_there(
    world: World, links: Links
) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nlichen-node: x\r\nSet-Cookie: a=b; Path=/\r\n"
        b"service-worker-allowed: /\r\nx-kept: 1\r\n\r\n"
    )
    _, fields, _ = await through_gateway(world, links, answer, host=b"shop.app.localhost")
    assert fields[b"content-security-policy"].startswith(b"sandbox ")
    assert b"allow-same-origin" not in fields[b"content-security-policy"]
    assert fields.keys().isdisjoint({b"set-cookie", b"service-worker-allowed"})
    assert fields[b"x-kept"] == b"1"
    assert b"cookie" not in node_heard[0].lower()


async def test_an_app_at_its_own_host_keeps_its_cookies(world: World, links: Links) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nlichen-node: x\r\nset-cookie: a=b\r\n\r\n"
    _, fields, _ = await through_gateway(world, links, answer)
    assert fields[b"set-cookie"] == b"a=b"
    assert b"content-security-policy" not in fields
    assert b"cookie: other=app" in node_heard[0]


async def test_a_runs_public_record_does_not_tell_the_query(world: World, links: Links) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nlichen-node: x\r\n\r\n"
    _, fields, _ = await through_gateway(world, links, answer)
    assert b"token=secret" in node_heard[0]
    assert world.runs.get(fields[b"lichen-run"].decode()).target == "/api/x?..."
