"""Four validators in network namespaces of their own, under load, while things are done to them.

    unshare -n python -m tests.hostile.validators_chaos --minutes 20

At random one is killed (-9) and started again, one is cut off from the others for some seconds, one
loses all but its keys and begins again from a snapshot of the others; sometimes two are killed, and
the others have to say that they have stopped. Meanwhile accounts pay each other, register nodes and
apps, open channels and redeem vouchers, through whichever validator they like. In the end nothing
that was acknowledged may be missing, nobody may differ, no money may have come or gone, and the
embedded rules have to find the same in everybody's blocks.

The process has to be root in a network namespace without anything in it: it makes a bridge there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from lichen.errors import LichenError, PeerUnavailableError
from lichen.ledger import (
    BadNonceError,
    Capacity,
    CreateApp,
    OpenChannel,
    Prices,
    RedeemVouchers,
    RegisterNode,
    Transfer,
    channel_id,
    encode_transaction,
    network_id,
    sign_transaction,
    sign_voucher,
)
from lichen.ledger.client import LedgerClient
from lichen.ledger.engine import create
from lichen.ledger.replay import replay_home, stored_genesis
from lichen.ledger.state import State
from lichen.ledger.store import LmdbStore
from lichen.ledger.tables import CHANNELS
from lichen.ledger.views import View
from lichen.testing.ledger import genesis_of, key_of
from lichen.testing.validators import LocalValidators, Member, wait_until
from lichen.units import FLK, Amount

NET = "10.77.0"
COUNT = 4
KEPT_WHOLE = 2  # the first two are killed and cut off, but keep their blocks: they are replayed
PAYERS = 6
SETTINGS = {"answer_ms": 4000, "snapshot_blocks": 40, "propose_ms": 1000}
PRICES = Prices(*(Amount(1) for _ in range(5)))
ACKNOWLEDGED_S_MAX = 120.0


def ip(*words, inside=None):
    enter = [] if inside is None else ["nsenter", "-t", str(inside), "-n"]
    subprocess.run([*enter, "ip", *words], check=True, capture_output=True)


class Spaced(Member):
    """A member in a network namespace of its own, on a wire that can be cut."""

    def __init__(self, home, number):
        self.wire = f"wire{number}"
        super().__init__(home, rpc=True, host=f"{NET}.{number + 1}")

    def spawn(self, command):
        with (self.home / "log").open("ab") as log:
            # it waits for its network, then becomes the ledger: the process id stays
            process = subprocess.Popen(
                ["unshare", "-n", "sh", "-c", 'read _; exec "$@"', "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        own = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own, "a namespace")
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", self.wire)  # a killed one's, where the kernel has not done so yet
        ip("link", "add", self.wire, "type", "veth", "peer", "name", f"end-{self.wire}")
        ip("link", "set", self.wire, "master", "hub", "up")
        ip("link", "set", f"end-{self.wire}", "netns", str(process.pid), "name", "eth0")
        for words in ("link set lo up", f"addr add {self.host}/24 dev eth0", "link set eth0 up"):
            ip(*words.split(), inside=process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
        return process

    def cut(self, *, off):
        ip("link", "set", self.wire, "down" if off else "up")


class Payer:
    """An account, a node that it has opened a channel with, and what they were told is done."""

    def __init__(self, number, world):
        self.names = (f"payer-{number}", f"node-{number}")
        self.keys = [key_of(name) for name in self.names]
        self.nonces = [0, 0]
        self.world = world
        self.random = random.Random(f"{world.seed} {number}")
        self.cumulative = 0
        self.rounds = 0

    def sign(self, who, body):
        nonce = self.nonces[who]
        self.nonces[who] += 1
        return encode_transaction(sign_transaction(self.world.network, self.keys[who], nonce, body))

    async def run(self):
        node = self.keys[1]
        offer = Capacity(1, 1024, 1 << 30)
        register = RegisterNode(
            node.public, "http://127.0.0.1:1", offer, PRICES, ("process",), Amount(10 * FLK)
        )
        await self.world.acknowledged([self.sign(1, register)], self.random)
        self.channel = channel_id(self.world.network, self.keys[0].address, 0)
        channel = OpenChannel(node.address, self.keys[0].address, "", Amount(100 * FLK), None)
        await self.world.acknowledged([self.sign(0, channel)], self.random)
        while not self.world.over.is_set():
            await self.round()

    async def round(self):
        self.rounds += 1
        to = key_of(f"payer-{self.random.randrange(PAYERS)}").address
        pays = [Transfer(to, Amount(self.random.randint(1, 10**9))) for _ in range(8)]
        app = CreateApp(f"{self.names[0]}-{self.rounds}", "made in a storm")
        await self.world.acknowledged([self.sign(0, body) for body in (*pays, app)], self.random)
        self.cumulative += 1000
        voucher = sign_voucher(self.world.network, self.keys[0], self.channel, self.cumulative)
        await self.world.acknowledged([self.sign(1, RedeemVouchers((voucher,)))], self.random)


class World:
    def __init__(self, validators, seed):
        self.validators = validators
        self.members = validators.members
        self.network = network_id(validators.genesis)
        self.seed = seed
        self.over = asyncio.Event()
        self.acks = {}
        self.retries = 0
        self.clients = [LedgerClient(member.url) for member in self.members]

    async def acknowledged(self, raws, chance):
        """Send until every one is acknowledged, to whichever validator answers."""
        deadline = time.monotonic() + ACKNOWLEDGED_S_MAX
        while True:
            try:
                results = await chance.choice(self.clients).submit(raws)
                heights = [result.accepted() for result in results]
            except (PeerUnavailableError, BadNonceError) as error:
                # one that lags does not know our last transaction yet
                self.retries += 1
                if time.monotonic() > deadline:
                    raise SystemExit(f"not acknowledged in time: {error}") from error
                await asyncio.sleep(0.2)
                continue
            for raw, height in zip(raws, heights, strict=True):
                self.acks[raw] = height
            return

    async def storm(self, minutes):
        chance = random.Random(self.seed)
        end = time.monotonic() + 60 * minutes
        counts = {}
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(1, 4))
            what = chance.choice((self.kill, self.kill, self.cut, self.cut, self.wipe, self.two))
            began = time.monotonic()
            await what(chance)
            counts[what.__name__] = counts.get(what.__name__, 0) + 1
            print(f"{what.__name__}: {time.monotonic() - began:.1f} s, {len(self.acks)} done")
            await self.go_on()
        return counts

    async def go_on(self):
        """The network has to make blocks, with everybody there."""
        before = len(self.acks)
        for member in self.members:
            await asyncio.to_thread(member.wait_healthy)
        async with asyncio.timeout(ACKNOWLEDGED_S_MAX):
            while len(self.acks) <= before + PAYERS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def kill(self, chance):
        member = chance.choice(self.members)
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(chance.uniform(0, 3))
        await asyncio.to_thread(member.start)

    async def cut(self, chance):
        member = chance.choice(self.members)
        member.cut(off=True)
        await asyncio.sleep(chance.uniform(1, 8))
        member.cut(off=False)

    async def wipe(self, chance):
        """All but the keys and the last vote is lost; the others' snapshot brings it back."""
        member = chance.choice(self.members[KEPT_WHOLE:])
        others = [one for one in self.members if one is not member]
        await asyncio.to_thread(member.kill)
        shutil.rmtree(member.home / "data")
        shutil.rmtree(member.home / "snapshots", ignore_errors=True)
        for path in (member.home / "comet" / "data").iterdir():
            if path.name != "priv_validator_state.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        await asyncio.to_thread(create, member.home, self.validators.genesis)
        trust = await asyncio.to_thread(trusted, others[0].rpc)
        member.configure(self.validators.peers, **SETTINGS)
        with (member.home / "config.toml").open("a") as config:
            servers = [f"http://{one.rpc}" for one in others[:2]]
            config.write(f"[cometbft.state_sync]\nservers = {servers}\n{trust}\n")
        await asyncio.to_thread(member.start)

    async def two(self, chance):
        """Two of four are away: the others stop, and say so."""
        lost = chance.sample(self.members, 2)
        left = next(member for member in self.members if member not in lost)
        for member in lost:
            await asyncio.to_thread(member.kill)
        await asyncio.to_thread(wait_until, lambda: not left.healthy(), "a word about the quorum")
        for member in lost:
            await asyncio.to_thread(member.start)

    async def settled(self):
        """Wait until all stand at the same block; return it."""
        deadline = time.monotonic() + ACKNOWLEDGED_S_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(PeerUnavailableError):
                heads = [await client.status() for client in self.clients]
                if len({head.height for head in heads}) == 1:
                    return heads
            await asyncio.sleep(0.2)
        raise SystemExit("the validators do not come to the same height")


def trusted(rpc):
    with urllib.request.urlopen(f"http://{rpc}/commit", timeout=5) as answer:
        signed = json.load(answer)["result"]["signed_header"]
    height = int(signed["header"]["height"]) - 1
    digest = signed["header"]["last_block_id"]["hash"]
    return f"height = {height}\nhash = '{digest}'"


def verify(world, heads):
    """Look at what the validators are left with."""
    require(len({(head.block_hash, head.state_root) for head in heads}) == 1, "all agree")
    states = [replay_home(member.home) for member in world.members[:KEPT_WHOLE]]
    require({one.head.state_root.hex() for one in states} == {heads[0].state_root}, "replay agrees")
    view = View(states[0])
    stands = transactions_of(world.members[0].home)
    lost = [raw for raw, height in world.acks.items() if stands.get(raw) != height]
    require(not lost, f"nothing acknowledged is lost ({len(lost)} are)")
    balances = sum(account.balance for _, account in view.accounts())
    stakes = sum(node.stake for node in view.nodes())
    channels = sum(one.deposit - one.redeemed for one in states[0].scan(CHANNELS))
    total = sum(account.balance for account in world.validators.genesis.accounts)
    require(balances + stakes + channels == total, "no money has come or gone")


def transactions_of(home):
    """Every transaction in a folder's blocks, with its height."""
    with LmdbStore(home) as store:
        view = View(State(store, stored_genesis(store, home)))
        heights = itertools.takewhile(view.block, itertools.count(1))
        return {raw: height for height in heights for raw in view.block(height).transactions}


def require(holds, what):
    print(f"{'ok ' if holds else 'NOT'} {what}")
    if not holds:
        raise SystemExit(1)


async def run(validators, minutes, seed):
    world = World(validators, seed)
    payers = [Payer(number, world) for number in range(PAYERS)]
    tasks = [asyncio.create_task(payer.run()) for payer in payers]
    storm = asyncio.create_task(world.storm(minutes))
    done, _ = await asyncio.wait({storm, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    world.over.set()
    for task in done:
        task.result()
    await asyncio.gather(*tasks)
    heads = await world.settled()
    for client in world.clients:
        await client.close()
    print(
        f"{heads[0].height} blocks, {len(world.acks)} acknowledged, {world.retries} sent again, "
        f"{storm.result()}"
    )
    return world, heads


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", default=None)
    args = parser.parse_args()
    seed = args.seed or str(time.time_ns())
    print(f"seed {seed}", flush=True)
    if len(socket.if_nameindex()) > 1:
        sys.exit("run it in a network namespace of its own: unshare -n")
    ip("link", "set", "lo", "up")
    ip("link", "add", "hub", "type", "bridge")
    ip("addr", "add", f"{NET}.254/24", "dev", "hub")
    ip("link", "set", "hub", "up")
    names = [f"{kind}-{number}" for kind in ("payer", "node") for number in range(PAYERS)]
    with tempfile.TemporaryDirectory(prefix="lichen-chaos-") as folder:
        genesis = genesis_of(*names, balance=10**6 * FLK)
        validators = LocalValidators(Path(folder), genesis, count=COUNT, make=Spaced, **SETTINGS)
        try:
            with validators:
                world, heads = asyncio.run(run(validators, args.minutes, seed))
            verify(world, heads)
        except LichenError as error:
            sys.exit(f"{error.what}")


if __name__ == "__main__":
    main()
