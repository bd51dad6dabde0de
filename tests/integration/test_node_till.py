"""Sessions and the till over a real receipt log: what is owed, promised and redeemed."""

import msgspec
import pytest

from lichen.encoding import to_builtins
from lichen.errors import NotAllowedError, NotFoundError, UserError, VerificationError
from lichen.identity import Address
from lichen.ledger.transactions import CreateApp, GrantSpending, OpenChannel, RegisterNode
from lichen.ledger.types import Capacity, ChannelStatus, Prices
from lichen.ledger.voucher import sign_voucher
from lichen.market.receipt_log import ReceiptLog
from lichen.node.sessions import SESSIONS_PER_CHANNEL_MAX, Sessions, UnknownSessionError
from lichen.node.till import Till
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import FLK, Amount
from tests.unit.test_market_receipt import make_body

OWNER, NODE, GATEWAY = key_of("owner"), key_of("node"), key_of("gateway")


class World:
    """A channel of the ledger, and the node that it pays."""

    def __init__(self, folder):
        self.folder = folder
        self.ledger = MemoryLedger(genesis_of("owner", "node", "gateway"))
        prices = Prices(*[Amount(1)] * 5)
        register = RegisterNode(
            NODE.public, "http://127.0.0.1:9", Capacity(1, 128, 0), prices, (), Amount(10 * FLK)
        )
        self.ledger.submit(NODE, register)
        self.ledger.submit(OWNER, CreateApp("shop", ""))
        expires_ms = self.ledger.time_ms + 10**9
        self.ledger.submit(OWNER, GrantSpending("shop", GATEWAY.address, Amount(FLK), expires_ms))
        opened = OpenChannel(NODE.address, GATEWAY.address, "shop", Amount(1000), OWNER.address)
        self.ledger.submit(GATEWAY, opened)
        (self.channel,) = self.ledger.view.channels_of(signer=GATEWAY.address)
        self.runs = 0
        self.start()

    def start(self):
        self.log = ReceiptLog(str(self.folder), NODE, self.ledger.network)
        self.sessions = Sessions(NODE.address, self.log)
        self.till = Till(self.log, self.sessions, self.ledger.network)
        self.token, self.account = self.sessions.open(self.channel, GATEWAY.address)

    def restart(self):
        self.log.close()
        self.start()

    def run(self, amount):
        self.runs += 1
        name = f"ab-{self.runs}"
        self.account.book.charge(amount)
        body = to_builtins(make_body(self.runs, amount))
        self.log.append(name, self.channel.id, amount, body)
        self.till.record()
        return name

    def voucher(self, cumulative, key=GATEWAY):
        return sign_voucher(self.ledger.network, key, self.channel.id, Amount(cumulative))


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.log.close()


async def test_a_statement_names_each_finished_run_and_a_voucher_settles_it(world):
    names = [world.run(amount) for amount in (5, 7)]
    asked = await world.till.pay(world.account, None)
    assert (asked.owed, asked.paid, [line.run for line in asked.runs]) == (12, 0, names)
    settled = await world.till.pay(world.account, world.voucher(12))
    assert (settled.owed, settled.paid, settled.runs) == (12, 12, ())


async def test_what_was_owed_and_promised_is_known_after_a_restart(world):
    world.run(5)
    await world.till.pay(world.account, world.voucher(3))
    world.restart()
    assert (world.account.book.owed, world.account.book.paid) == (5, 3)
    assert world.account.latest_voucher() == world.voucher(3)
    again = await world.till.pay(world.account, world.voucher(5))
    assert (again.paid, again.runs) == (5, ())


async def test_a_voucher_sent_again_is_taken_as_said_before(world):
    world.run(5)
    for _ in range(2):
        assert (await world.till.pay(world.account, world.voucher(5))).paid == 5


@pytest.mark.parametrize(
    ("cumulative", "key", "error"),
    [
        (5, OWNER, UserError),
        (1001, GATEWAY, VerificationError),
        (2, GATEWAY, VerificationError),
    ],
)
async def test_a_wrong_voucher_changes_nothing(world, cumulative, key, error):
    world.run(5)
    await world.till.pay(world.account, world.voucher(3))
    with pytest.raises(error):
        await world.till.pay(world.account, world.voucher(cumulative, key))
    assert world.account.book.paid == 3
    assert world.account.latest_voucher() == world.voucher(3)


async def test_a_voucher_for_another_channel_is_refused(world):
    other = sign_voucher(world.ledger.network, GATEWAY, bytes(32), Amount(1))
    with pytest.raises(UserError, match="another channel"):
        await world.till.pay(world.account, other)


async def test_a_receipt_is_durable_before_it_is_handed_out(world):
    name = world.run(5)
    assert not world.log.is_durable(name)
    receipt = await world.till.receipt(name)
    assert receipt.price.amount == 5
    assert world.log.is_durable(name)
    with pytest.raises(NotFoundError):
        await world.till.receipt("ab-none")


async def test_what_is_recorded_reaches_the_disk_by_itself_and_before_the_end(world):
    name = world.run(5)
    await world.till.close()
    world.start()
    assert world.log.is_durable(name)


async def test_only_what_the_ledger_has_not_redeemed_is_redeemed(world):
    world.run(5)
    await world.till.pay(world.account, world.voucher(5))
    assert world.till._redeemable(world.ledger.view) == (world.voucher(5),)


def test_a_session_is_for_the_channels_signer_alone(world):
    with pytest.raises(NotAllowedError, match="not the signer"):
        world.sessions.open(world.channel, OWNER.address)
    with pytest.raises(NotFoundError):
        world.sessions.open(None, GATEWAY.address)
    elsewhere = Sessions(Address(b"\x09" * 20), world.log)
    with pytest.raises(NotFoundError):
        elsewhere.open(world.channel, GATEWAY.address)


def test_the_newest_sessions_of_a_channel_are_valid(world):
    tokens = [world.token.encode()]
    tokens += [
        world.sessions.open(world.channel, GATEWAY.address)[0].encode()
        for _ in range(SESSIONS_PER_CHANNEL_MAX)
    ]
    assert len(set(tokens)) == len(tokens)
    with pytest.raises(UnknownSessionError):
        world.sessions.get(tokens[0])
    for token in tokens[1:]:
        assert world.sessions.get(token) is world.account
    assert world.sessions.get(tokens[-1]).book is world.sessions.books[world.channel.id]


def test_a_top_up_raises_the_deposit_and_a_closing_channel_takes_no_more_work(world):
    richer = msgspec.structs.replace(world.channel, deposit=Amount(5000))
    world.sessions.update(richer, richer.id)
    assert world.account.book.deposit == 5000
    closing = msgspec.structs.replace(richer, status=ChannelStatus.CLOSING)
    world.sessions.update(closing, closing.id)
    with pytest.raises(UnknownSessionError):
        world.sessions.get(world.token.encode())
    with pytest.raises(NotAllowedError, match="closing"):
        world.sessions.open(closing, GATEWAY.address)
