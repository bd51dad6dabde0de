"""A gateway and a node settle while messages are lost on the way and the gateway restarts.

Both sides are the real ones: books, receipt log, till, sessions, vouchers; only the wire between
them is played here, so that it can lose what it carries.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from lichen.encoding import from_json, to_json
from lichen.errors import PeerError, PeerUnavailableError
from lichen.gateway.config import GatewayConfig
from lichen.gateway.links import Link, Links
from lichen.gateway.runs import RunLog, RunRecord
from lichen.identity import KeyKind, PrivateKey
from lichen.ledger.types import Channel, ChannelStatus, Prices
from lichen.ledger.voucher import sign_voucher
from lichen.market.account import Line
from lichen.market.receipt_log import ReceiptLog
from lichen.node.api import PayRequest, SessionAnswer
from lichen.node.sessions import Sessions
from lichen.node.till import Till
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lichen.gateway.links import NodePeer

NETWORK = bytes(range(32))
GATEWAY = PrivateKey(KeyKind.SECP256K1, b"\x11" * 32)
NODE = PrivateKey(KeyKind.SECP256K1, b"\x22" * 32)
CEILING = 50
CHANNEL = Channel(
    id=b"c" * 32,
    payer=GATEWAY.address,
    payee=NODE.address,
    signer=GATEWAY.address,
    opener=GATEWAY.address,
    app="app",
    deposit=Amount(10**6),
    redeemed=Amount(0),
    status=ChannelStatus.OPEN,
    closes_ms=0,
)
FREE = Prices(*[Amount(0)] * len(Prices.__struct_fields__))


class Node:
    """The paid side of one channel."""

    def __init__(self, home: Path) -> None:
        self.log = ReceiptLog(str(home), NODE, NETWORK)
        self.sessions = Sessions(NODE.address, self.log)
        self.till = Till(self.log, self.sessions, NETWORK)
        self.account = self.sessions.account(CHANNEL)
        self.count = 0

    def bill(self, run: str, amount: int) -> None:
        self.account.book.charge(amount)
        self.account.book.record(Line(self.count, run, amount))
        self.count += 1


class Wire(Links):
    """Links whose wire leads to a `Node`; `losses` says what happens to each message."""

    def __init__(self, node: Node, runs: RunLog) -> None:
        state = SimpleNamespace(channel=lambda _: CHANNEL)
        config = GatewayConfig(
            network="", ledger="", listen="", channel_deposit=Amount(CHANNEL.deposit)
        )
        follower = SimpleNamespace(state=state)
        super().__init__(GATEWAY, NETWORK, config, follower, None, runs)
        self.node = node
        self.losses: Iterator[str] = iter(())
        self.claimed = False

    async def _post(
        self, peer: NodePeer, path: str, body: bytes, *, signed: bool = False, bearer: bytes = b""
    ) -> bytes:
        account = self.node.account
        if path == "/v1/sessions":
            session, _ = self.node.sessions.open(CHANNEL, GATEWAY.address)
            answer = SessionAnswer(
                session, Amount(0), FREE, Amount(0), Amount(account.book.paid), (),
                account.latest_voucher(),
            )  # fmt: skip
            return to_json(self.changed(answer))
        loss = next(self.losses, "")
        if loss == "request":
            raise PeerUnavailableError("the request was lost")
        answer = await self.node.till.pay(account, from_json(body, PayRequest).voucher)
        if loss == "answer":
            raise PeerUnavailableError("the answer was lost")
        return to_json(answer)

    def changed(self, answer: SessionAnswer) -> SessionAnswer:
        """Return what a node that lies would answer, if this one does."""
        if not self.claimed:
            return answer
        return msgspec.structs.replace(answer, paid=Amount(900_000), voucher=None)

    async def link(self) -> Link:
        """Open a link as a gateway that just started does: it remembers nothing."""
        registered = SimpleNamespace(address=NODE.address, endpoint="http://127.0.0.1:1")
        link = Link("app", GATEWAY.address, self.peer(registered))
        await self._open_session(link, CHANNEL)
        link.due = True
        return link


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "node")
    yield node
    node.log.close()


@pytest.fixture
def wire(tmp_path: Path, node: Node) -> Iterator[Wire]:
    runs = RunLog(str(tmp_path / "runs"), GATEWAY.address)
    yield Wire(node, runs)
    runs.close()


def run_once(wire: Wire, link: Link, amount: int, *, recorded: bool = True) -> None:
    run = wire._runs.next_run()
    link.place(run, CEILING)
    link.left()
    wire.node.bill(run, amount)
    if recorded:
        name = "0x" + bytes(NODE.address).hex()
        wire._runs.add(RunRecord(run, "app/1/f", "GET", "/", 0, CEILING, node=name))


@pytest.mark.parametrize("loss", ["request", "answer"])
async def test_a_lost_voucher_is_sent_again_and_the_node_stays_trusted(wire, node, loss):
    link = await wire.link()
    run_once(wire, link, 7)
    wire.losses = iter(["", loss])
    with pytest.raises(PeerUnavailableError):
        await wire.settle(link)
    run_once(wire, link, 5)
    await wire.settle(link)
    assert link.trusted
    assert node.account.book.paid == node.account.book.owed == link.book.signed == 12
    assert node.log.vouchers()[0][1] == 12


async def test_every_run_is_paid_once_whatever_is_lost_and_whenever_the_gateway_restarts(
    wire, node
):
    chance, owed = random.Random(7), 0
    link = await wire.link()
    for _ in range(300):
        amount = chance.randint(0, CEILING)
        run_once(wire, link, amount)
        owed += amount
        if chance.random() < 0.1:
            link = await wire.link()
        if chance.random() < 0.5:
            wire.losses = iter(chance.choices(["", "request", "answer"], [3, 1, 1], k=4))
            try:
                await wire.settle(link)
            except PeerUnavailableError:
                link.due = True  # as `settle_all` notes it
    wire.losses = iter(())
    while link.due:
        await wire.settle(link)
    assert link.trusted
    assert node.account.book.paid == node.account.book.owed == link.book.signed == owed


async def test_runs_that_a_crash_took_from_the_records_are_paid_up_to_a_bound(wire, node):
    for number in range(3):
        run_once(wire, await wire.link(), 10, recorded=False)
        link = await wire.link()  # as after kill -9, before the record was written
        await wire.settle(link)
        assert node.account.book.paid == 10 * (number + 1)


async def test_a_node_that_claims_more_than_was_promised_is_not_believed(wire, node):
    wire.claimed = True
    link = await wire.link()
    assert link.book.signed == 0
    run_once(wire, link, 10)
    await wire.settle(link)
    assert link.book.signed == node.account.book.paid == 10


async def test_a_voucher_of_somebody_else_opens_no_link(wire, node):
    node.account.book.charge(10)
    node.account.book.record(Line(0, "x", 10))
    forged = sign_voucher(NETWORK, NODE, CHANNEL.id, 10)
    node.account.book.accept(10)
    node.account.voucher = forged.signature
    with pytest.raises(PeerError, match="never signed"):
        await wire.link()
