"""kill -9 of any process at any moment: nothing that was acknowledged is lost, `up` resumes.

A seeded schedule kills ledger, nodes, gateway and supervisor while a background load deploys,
transfers, calls and fetches receipts. Moments come without regard to what is going on: also while
processes start, recover, or wait for each other. `LICHEN_CRASH_SEED` repeats a schedule,
`LICHEN_CRASH_MOMENTS` makes it longer or shorter.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Self

import lmdb

from lichen.cli.network import processes, state
from lichen.cli.project import build, manifest, release
from lichen.cli.project.pack import Pack
from lichen.encoding import from_json
from lichen.errors import LichenError
from lichen.identity import Address, KeyKind, PrivateKey
from lichen.ledger.replay import replay_home
from lichen.ledger.types import network_id
from lichen.market.receipt_log import ChannelRecord
from lichen.testing.network import LocalNetwork
from lichen.units import FLK
from lichen.verify.receipt import verify_receipt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lichen.ledger.types import Release
    from lichen.sdk.client import Client

MOMENTS = int(os.environ.get("LICHEN_CRASH_MOMENTS", "50"))
PAUSE_S_MAX = 2.2
UP_S_MAX = 60.0
KINDS = ("ledger", "node-1", "node-2", "node-3", "gateway", "supervisor")
CALLERS = 2
CALL_EVERY_S = 0.05
TRANSFER_EVERY_S = 0.1
DEPLOY_EVERY_S = 1.0
WATCH_EVERY_S = 0.3
EVENT_S_MAX = 60.0

FUNCTION = """
export default {
  fetch(request: Request): Response {
    return new Response(`VERSION ${new URL(request.url).pathname}`);
  },
};
"""


class Acknowledged:
    """What somebody was told is done; filled by the load's threads, read at the end."""

    def __init__(self) -> None:
        self.releases: dict[int, Release] = {}
        self.transfers: dict[str, int] = {}
        self.receipts: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}
        self.paid: dict[tuple[str, bytes], int] = {}
        self.wrong: list[str] = []


class Worker(threading.Thread):
    """Does one thing again and again; an expected failure means that nothing was promised."""

    def __init__(self, stop: threading.Event, every_s: float, work: Callable[[], None]) -> None:
        super().__init__(name=work.__name__)
        self.error: BaseException | None = None
        self._stop_all = stop
        self._every_s = every_s
        self._work = work

    def run(self) -> None:
        while not self._stop_all.wait(self._every_s):
            try:
                self._work()
            except (LichenError, OSError, http.client.HTTPException):
                continue
            except BaseException as error:  # noqa: BLE001 - told by the main thread
                self.error = error
                return


class Load:
    """Deploys, transfers, calls, and a look at the nodes' vouchers, until stopped."""

    def __init__(self, network: LocalNetwork, payer: PrivateKey) -> None:
        self.network = network
        self.told = Acknowledged()
        self.deployer: Client = network.client(network.key("developer"))
        self.payer: Client = network.client(payer)
        self._payee = network.key("gateway").address
        self.stop = threading.Event()
        self._count = 0
        self._version = 0
        works = [
            (DEPLOY_EVERY_S, self.deploy),
            (TRANSFER_EVERY_S, self.transfer),
            (WATCH_EVERY_S, self.watch_vouchers),
            *[(CALL_EVERY_S, self.call)] * CALLERS,
        ]
        self.workers = [Worker(self.stop, every_s, work) for every_s, work in works]

    def deploy(self) -> None:
        self._version += 1
        folder = self.network.project("crash", FUNCTION.replace("VERSION", str(self._version)))
        project = manifest.load(folder)
        with Pack() as pack:
            built = build.build(project, pack)
            done = release.publish(self.deployer, "crash", "", built, pack, None)
        if release.is_same(done.release, built):
            self.told.releases[done.release.number] = done.release

    def transfer(self) -> None:
        result = self.payer.transfer(self._payee, 1)
        self.told.transfers[result.id] = result.accepted()

    def call(self) -> None:
        self._count += 1
        answer = self.network.get("crash", f"/{self._count}")
        if answer.status != 200:
            return
        connection = self.network.connect()
        try:
            connection.request("GET", f"/api/v1/runs/{answer.run}/receipt")
            response = connection.getresponse()
            receipt = response.read()
        finally:
            connection.close()
        if response.status == 200:
            self.told.receipts[answer.run] = receipt
            self.told.bodies[answer.run] = answer.body

    def watch_vouchers(self) -> None:
        """Note what the nodes' logs say is paid; it never goes down."""
        for name in self.network.folder.nodes():
            for channel, record in books_of(self.network, name).items():
                paid = int(record.paid)
                if paid < self.told.paid.get((name, channel), 0):
                    self.told.wrong.append(f"{name}: paid went down to {paid}")
                self.told.paid[name, channel] = paid

    def __enter__(self) -> Self:
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for worker in self.workers:
            worker.join(EVENT_S_MAX + release.SERVE_S_MAX)
        self.deployer.close()
        self.payer.close()


def books_of(network: LocalNetwork, name: str) -> dict[bytes, ChannelRecord]:
    """Read what a node has on disk about its channels, from beside it."""
    path = network.folder.home(name) / "receipts"
    with contextlib.closing(
        lmdb.open(str(path), readonly=True, max_dbs=5, create=False, map_size=64 * 2**30)
    ) as environment:
        channels = environment.open_db(b"channels", create=False)
        with environment.begin(db=channels) as txn:
            return {bytes(key): from_json(data, ChannelRecord) for key, data in txn.cursor()}


class Keeper(threading.Thread):
    """Types `lichen up` again whenever no supervisor is there, as whoever runs a network would."""

    def __init__(self, network: LocalNetwork) -> None:
        super().__init__(name="keeper")
        self.network = network
        self.kills = 0  # counted by the schedule: a start that was hit may fail, others may not
        self.starts: list[float] = []
        self.failures: list[str] = []
        self._stop_it = threading.Event()

    def run(self) -> None:
        while not self._stop_it.wait(0.05):
            if not state.is_running(self.network.folder.lock):
                self.start_network()

    def start_network(self) -> None:
        kills, started = self.kills, time.monotonic()
        done = self.network.command("up", "--detach", "--port", str(self.network.port))
        self.starts.append(time.monotonic() - started)
        if done.returncode != 0 and kills == self.kills:
            self.failures.append(f"{done.stderr}{self.network.logs()}")

    def stop(self) -> None:
        self._stop_it.set()
        self.join(EVENT_S_MAX + UP_S_MAX)


def kill(network: LocalNetwork, name: str) -> bool:
    """Kill a process by its name; tell whether there was one at this moment."""
    running = state.read(network.folder.state)
    if running is None:
        return False
    for process in (*running.processes, running.supervisor):
        if process.name == name and processes.is_alive(process):
            processes.send(process, signal.SIGKILL)
            return True
    return False


def test_kill_9_at_random_moments_loses_nothing_acknowledged(tmp_path: Path) -> None:
    seed = os.environ.get("LICHEN_CRASH_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"LICHEN_CRASH_SEED={seed}")
    chance = random.Random(seed)
    network = LocalNetwork(tmp_path)
    network.up()
    keeper = Keeper(network)
    try:
        payer = PrivateKey.generate(KeyKind.SECP256K1)
        with network.client(network.key("developer")) as client:
            client.transfer(payer.address, 10 * FLK)
        keeper.start()
        with Load(network, payer) as load:
            killed = run_schedule(network, keeper, chance)
            network.wait("the network is whole again", lambda: is_whole(network), UP_S_MAX)
            network.wait("a deploy, a transfer and a call go through", progress_of(load))
        keeper.stop()
        told = load.told
        print(
            f"killed {killed}; up took {max(keeper.starts, default=0):.1f} s at most; acknowledged "
            f"{len(told.releases)} releases, {len(told.transfers)} transfers, "
            f"{len(told.receipts)} receipts"
        )
        assert [worker.error for worker in load.workers if worker.error] == []
        assert not any(worker.is_alive() for worker in load.workers)
        assert keeper.failures == []
        assert told.wrong == []
        assert len(told.releases) > MOMENTS // 10
        assert len(told.transfers) > MOMENTS
        assert len(told.receipts) > MOMENTS
        check_ledger_has(network, told, payer)
        check_receipts(network, told)
        check_payments(network, told)
    finally:
        keeper.stop()
        network.down()
    assert network.left_over() == []
    replay_home(network.folder.home("ledger"))


def run_schedule(network: LocalNetwork, keeper: Keeper, chance: random.Random) -> dict[str, int]:
    """Kill every kind about as often, in a random order, at random moments."""
    victims = [KINDS[number % len(KINDS)] for number in range(MOMENTS)]
    chance.shuffle(victims)
    for name in victims:
        time.sleep(chance.uniform(0.0, PAUSE_S_MAX))
        keeper.kills += 1  # before and after: no start that a kill may have hit is held against it
        network.wait(f"there is a {name} to kill", lambda name=name: kill(network, name))
        keeper.kills += 1
    return {name: victims.count(name) for name in KINDS}


def is_whole(network: LocalNetwork) -> bool:
    running = state.read(network.folder.state)
    return running is not None and running.serving and all(map(is_healthy, running.urls.values()))


def is_healthy(url: str) -> bool:
    connection = http.client.HTTPConnection(url.split("//")[1], timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def progress_of(load: Load) -> Callable[[], bool]:
    """Tell when each kind of work was acknowledged once more from now on."""
    told = load.told
    before = [len(told.releases), len(told.transfers), len(told.receipts)]

    def moved() -> bool:
        now = [len(told.releases), len(told.transfers), len(told.receipts)]
        return all(new > old for new, old in zip(now, before, strict=True))

    return moved


def check_ledger_has(network: LocalNetwork, told: Acknowledged, payer: PrivateKey) -> None:
    with network.client() as client:
        for number, promised in told.releases.items():
            assert client.release("crash", number) == promised
        history: set[str] = set()
        cursor = ""
        while True:
            page = client.history(payer.address, cursor=cursor)
            history |= {str(entry.id) for entry in page.items}
            if not page.cursor:
                break
            cursor = page.cursor
        assert set(told.transfers) <= history


def check_receipts(network: LocalNetwork, told: Acknowledged) -> None:
    with network.client() as client:
        identity = network_id(client.genesis())
    connection = network.connect()
    for run, receipt in told.receipts.items():
        connection.request("GET", f"/api/v1/runs/{run}/receipt")
        response = connection.getresponse()
        again = response.read()
        assert (response.status, again) == (200, receipt), run
        report = verify_receipt(receipt, network=identity, response=told.bodies[run])
        assert report.receipt.run == run
    connection.close()


def check_payments(network: LocalNetwork, told: Acknowledged) -> None:
    """All that nodes are owed gets paid, and what is paid reaches the ledger, without new calls."""

    nodes = {name: network.key(name).address for name in network.folder.nodes()}

    def settled() -> bool:
        with network.client() as client:
            return all(
                int(record.paid) == int(record.owed) == redeemed_of(client, nodes[name], key)
                for name in network.folder.nodes()
                for key, record in books_of(network, name).items()
            )

    network.wait("every run is paid and every voucher redeemed", settled)
    for (name, channel), paid in told.paid.items():
        assert int(books_of(network, name)[channel].paid) >= paid


def redeemed_of(client: Client, node: Address, channel: bytes) -> int:
    return next(int(view.redeemed) for view in client.channels(node) if bytes(view.id) == channel)


def test_down_leaves_nothing_when_supervisor_and_node_died_together(tmp_path: Path) -> None:
    network = LocalNetwork(tmp_path, nodes=1)
    network.up()
    try:
        network.deploy("crash", FUNCTION)
        network.wait("a tenant runs", lambda: network.get("crash").status == 200)
        pids = network.pids()
        for name in ("supervisor", "node-1"):
            os.kill(pids[name], signal.SIGKILL)
    finally:
        network.down()
    assert network.left_over() == []


def test_down_ends_processes_that_hang(tmp_path: Path) -> None:
    network = LocalNetwork(tmp_path, nodes=1)
    network.up()
    try:
        network.deploy("crash", FUNCTION)
        network.wait("a tenant runs", lambda: network.get("crash").status == 200)
        network.kill("node-1", signal.SIGSTOP)
    finally:
        network.down()
    assert network.left_over() == []
