"""Four validators with the real CometBFT, as processes: they agree, lose some, and go on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time

import httpx
import pytest

from lichen.errors import PeerUnavailableError, UserError
from lichen.ledger import BadNonceError, OverdraftError, Transfer, network_id, sign_transaction
from lichen.ledger.client import LedgerClient
from lichen.ledger.comet import binary
from lichen.ledger.engine import Engine, create
from lichen.ledger.follower import Follower
from lichen.ledger.replay import replay_home
from lichen.testing.ledger import genesis_of, key_of
from lichen.testing.validators import LocalValidators, Member
from lichen.units import FLK, Amount

WAIT_S_MAX = 40.0
ANSWER_MS = 3000
SNAPSHOT_BLOCKS = 8
NAMES = ("alice", "bob", "carol", "dave")


class World:
    """The members, and accounts that pay."""

    def __init__(self, members: list[Member], genesis) -> None:
        self.members = members
        self.genesis = genesis
        self.network = network_id(genesis)
        self.nonces = dict.fromkeys(NAMES, 0)

    def pay(self, name, amount=1):
        nonce = self.nonces[name]
        self.nonces[name] += 1
        body = Transfer(key_of("bob").address, Amount(amount))
        return sign_transaction(self.network, key_of(name), nonce, body)

    async def submit(self, member, *signed):
        async with LedgerClient(member.url) as client:
            return [result.accepted() for result in await client.submit(signed)]

    async def heads(self, members=None):
        found = []
        for member in members or self.members:
            async with LedgerClient(member.url) as client:
                found.append(await client.status())
        return found

    async def wait_equal(self, height):
        deadline = time.monotonic() + WAIT_S_MAX
        while True:
            heads = await self.heads()
            if min(head.height for head in heads) >= height:
                break
            assert time.monotonic() < deadline, heads
            await asyncio.sleep(0.05)
        assert len({(head.height, head.block_hash, head.state_root) for head in heads}) == 1
        return heads[0]


@pytest.fixture(scope="module")
def program():
    if binary.find() is None and shutil.which("go") is None:
        pytest.skip("CometBFT is not here, nor Go to build it: run make cometbft")
    try:
        return binary.install()
    except binary.CometMissingError as error:
        pytest.skip(f"CometBFT cannot be had: {error.what} ({error.hint})")


@pytest.fixture(scope="module")
def world(program, tmp_path_factory):
    settings = {"answer_ms": ANSWER_MS, "snapshot_blocks": SNAPSHOT_BLOCKS, "propose_ms": 500}
    folder = tmp_path_factory.mktemp("validators")
    with LocalValidators(folder, genesis_of(*NAMES), **settings) as validators:
        yield World(validators.members, validators.genesis)


async def test_validators_order_what_any_of_them_is_given(world):
    paid = [[world.pay(name) for _ in range(20)] for name in NAMES]
    heights = await asyncio.gather(
        *(world.submit(member, *pays) for member, pays in zip(world.members, paid, strict=True))
    )
    assert all(len(one) == 20 for one in heights)
    for member in world.members:  # each needs what the one before has ordered
        (height,) = await world.submit(member, world.pay("alice"))
    await world.wait_equal(height)


async def test_clients_and_followers_do_not_notice_the_engine(world, tmp_path):
    first, last = world.members[0], world.members[-1]
    async with LedgerClient(last.url) as client:
        assert await client.genesis() == world.genesis
        signed = world.pay("carol")
        result = await client.submit_one(signed)
        assert (await client.submit_one(signed)).height == result.height, "sent again"
        (again,) = await world.submit(first, signed)
        assert again == result.height, "and to somebody else"
        stale = Transfer(key_of("bob").address, Amount(2))
        with pytest.raises(BadNonceError):
            await client.submit_one(sign_transaction(world.network, key_of("carol"), 0, stale))
        dear = Transfer(key_of("bob").address, Amount(10**9 * FLK))
        nonce = world.nonces["carol"]
        with pytest.raises(OverdraftError):
            await client.submit_one(sign_transaction(world.network, key_of("carol"), nonce, dear))
    async with Follower(tmp_path / "replica", first.url, world.genesis) as follower:
        async with asyncio.timeout(WAIT_S_MAX):
            await follower.sync()
        (head,) = await world.heads([first])
        assert follower.state_root.hex() == head.state_root


async def test_the_embedded_engine_does_not_order_alone_for_validators(world):
    home = world.members[0].home.with_name("alone")
    create(home, world.genesis)
    with pytest.raises(UserError, match="validators"):
        Engine(home)


async def test_three_go_on_without_the_fourth_which_catches_up(world):
    lost, others = world.members[3], world.members[:3]
    lost.kill()
    for member in others:
        _, height = await world.submit(member, world.pay("dave"), world.pay("dave"))
    lost.start()
    lost.wait_healthy()
    await world.wait_equal(height)
    (height,) = await world.submit(lost, world.pay("dave"))
    await world.wait_equal(height)


async def test_a_ledger_ends_with_its_cometbft_and_says_so(world):
    member = world.members[1]
    (comet,) = member.comets()
    os.kill(comet, signal.SIGKILL)
    assert member.process.wait(WAIT_S_MAX) != 0
    assert "CometBFT ended" in (member.home / "log").read_text()
    member.start()
    member.wait_healthy()


async def test_two_stop_and_say_so_and_go_on_when_the_others_are_back(world):
    here, lost = world.members[0], world.members[2:]
    for member in lost:
        member.kill()
    waiting = world.pay("bob")
    with pytest.raises(PeerUnavailableError, match="do not agree"):
        await world.submit(here, waiting)
    assert not here.healthy()
    started = time.monotonic()
    with pytest.raises(PeerUnavailableError, match="do not agree"):
        await world.submit(here, waiting)
    assert time.monotonic() - started < ANSWER_MS / 2000, "no need to wait to say it again"
    for member in lost:
        member.start()
    for member in (*lost, here):
        member.wait_healthy()
    async with LedgerClient(here.url) as client:
        result = await client.submit_one(waiting)
    await world.wait_equal(result.height)
    (height,) = await world.submit(lost[0], world.pay("bob"))
    await world.wait_equal(height)


async def test_a_newcomer_begins_from_a_snapshot_and_follows(world):
    helpers = world.members[:2]
    for _ in range(SNAPSHOT_BLOCKS):
        (height,) = await world.submit(helpers[0], world.pay("alice"))
    head = await world.wait_equal(height)
    async with httpx.AsyncClient(trust_env=False) as client:
        trusted = (await client.get(f"http://{helpers[0].rpc}/block?height=2")).json()
    newcomer = Member(helpers[0].home.with_name("newcomer"))
    create(newcomer.home, world.genesis)
    newcomer.configure([member.peer for member in world.members])
    with (newcomer.home / "config.toml").open("a") as config:
        servers = [f"http://{member.rpc}" for member in helpers]
        trust = trusted["result"]["block_id"]["hash"]
        config.write(f"[cometbft.state_sync]\nservers = {servers}\nheight = 2\nhash = '{trust}'\n")
    newcomer.start()
    try:
        newcomer.wait_healthy()
        (height,) = await world.submit(newcomer, world.pay("alice"))
        assert height == head.height + 1
        await world.wait_equal(height)
        assert (await world.heads([newcomer]))[0].block_hash == (await world.heads())[0].block_hash
        async with LedgerClient(newcomer.url) as client:
            with pytest.raises(UserError, match="snapshot"):
                await anext(client.blocks(1))
    finally:
        newcomer.stop()


async def test_replaying_everybodys_blocks_without_cometbft_gives_the_same_state(world):
    heads = await world.heads()
    for member in world.members:
        member.stop()
        assert not member.comets(), "CometBFT stops with it"
    replayed = {replay_home(member.home).head.state_root.hex() for member in world.members}
    assert replayed == {head.state_root for head in heads}
