"""A node that lies to the gateway that pays it: it gets what it earned, and nothing breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from lichen.errors import NotFoundError, PeerError
from lichen.gateway.config import GatewayConfig
from lichen.gateway.links import Link, Links, NodePeer
from lichen.gateway.runs import Attempt, RunRecord
from lichen.market.account import Line, PayerBook
from lichen.units import FLK
from tests.unit.gateway_api_world import GATEWAY, NODE, OWNER, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

CEILING = 1000
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
