"""Four validators with the real CometBFT, as processes: they agree, lose some, and go on."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from lichen.cli.network.folder import write_config
from lichen.errors import PeerUnavailableError, UserError
from lichen.ledger import BadNonceError, OverdraftError, Transfer, network_id, sign_transaction
from lichen.ledger.client import LedgerClient
from lichen.ledger.comet import binary, files
from lichen.ledger.engine import Engine, create
from lichen.ledger.follower import Follower
from lichen.ledger.replay import replay_home
from lichen.ledger.types import Validator
from lichen.testing.ledger import genesis_of, key_of
from lichen.units import FLK, Amount

VALIDATORS = 4
WAIT_S_MAX = 40.0
ANSWER_MS = 3000
SNAPSHOT_BLOCKS = 8
NAMES = ("alice", "bob", "carol", "dave")


class Member:
    """A ledger's process with its CometBFT, and a client of it."""

    def __init__(self, home: Path, rpc: str = "") -> None:
        self.home = home
        self.keys = files.ensure_keys(home)
        self.port, p2p = free_port(), free_port()
        self.p2p, self.rpc = f"127.0.0.1:{p2p}", rpc
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    @property
    def peer(self) -> str:
        return f"{self.keys.peer_id}@{self.p2p}"

    def configure(self, peers, **more) -> None:
        comet = {
            "p2p": self.p2p,
            "peers": [peer for peer in peers if peer != self.peer],
            "rpc": self.rpc,
            "answer_ms": ANSWER_MS,
            "snapshot_blocks": SNAPSHOT_BLOCKS,
        }
        config = {"listen": f"127.0.0.1:{self.port}", "engine": "cometbft", "cometbft": comet}
        write_config(self.home, config)
        if more:
            lines = "\n".join(f"{key} = {value}" for key, value in more.items())
            with (self.home / "config.toml").open("a") as config:
                config.write(f"[cometbft.state_sync]\n{lines}\n")

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            command = [sys.executable, "-m", "lichen", "ledger", "run", "--home", str(self.home)]
            self.process = subprocess.Popen(
                [*command, "--engine", "cometbft"], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Kill -9; its CometBFT has to notice by itself."""
        self.process.kill()
        self.process.wait()
        comets = comets_of(self.home)
        wait_until(lambda: not any(map(alive, comets)), f"CometBFT of {self.home.name} ends")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(WAIT_S_MAX)

    def healthy(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"{self.home.name} ended: {(self.home / 'log').read_text()[-2000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def wait_healthy(self) -> None:
        wait_until(self.healthy, f"{self.home.name} is healthy")


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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def comets_of(home):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(home / "comet") in words:
            found.append(int(path.parent.name))
    return found


def alive(pid):
    return os.path.exists(f"/proc/{pid}/cmdline") and Path(f"/proc/{pid}/cmdline").read_bytes()


def wait_until(holds, what):
    deadline = time.monotonic() + WAIT_S_MAX
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


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
    root = tmp_path_factory.mktemp("validators")
    rpc = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", "", ""]
    members = [Member(root / f"v{number}", rpc[number]) for number in range(VALIDATORS)]
    voters = tuple(Validator(member.keys.validator, 10) for member in members)
    genesis = replace(genesis_of(*NAMES), validators=voters)
    try:
        for member in members:
            create(member.home, genesis)
            member.configure([other.peer for other in members])
            member.start()
        for member in members:
            member.wait_healthy()
        yield World(members, genesis)
    finally:
        for member in members:
            if member.process is not None:
                member.process.terminate()
        for member in members:
            member.stop()


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
    newcomer.configure(
        [member.peer for member in world.members],
        servers=[f"http://{member.rpc}" for member in helpers],
        height=2,
        hash=f'"{trusted["result"]["block_id"]["hash"]}"',
    )
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
        assert not comets_of(member.home), "CometBFT stops with it"
    replayed = {replay_home(member.home).head.state_root.hex() for member in world.members}
    assert replayed == {head.state_root for head in heads}
