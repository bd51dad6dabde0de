"""Nodes and gateways that die or hang under load: visitors do not notice what may be repeated."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from lichen.errors import MachineError
from lichen.testing.network import Answer, LocalNetwork
from lichen.verify.receipt import verify_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 4
LOAD_S = 8.0
UNTIL_KILLED_S = 2.0
HUNG_S = 4.0
# A visitor of a node that hangs waits for the gateway to notice (a bound, then one unanswered
# probe) and for the other node; the rest is room for a busy machine.
HUNG_ANSWER_S_MAX = 8.0
# Noticing that the only node hangs, then the wait for it to come back, and room.
NO_NODE_S_MAX = 15.0

ECHO = """
export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (request.method === "POST") console.log("ran", url.pathname);
    const wait = Number(url.searchParams.get("wait") ?? "0");
    if (wait) await new Promise((done) => setTimeout(done, wait));
    return new Response(`hello ${url.pathname}`);
  },
};
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("failover")) as network:
        network.deploy("echo", ECHO)
        network.wait("the app answers", lambda: network.get("echo").status == 200)
        yield network


class Load:
    """Visitors on keep-alive connections, each with one GET after the other."""

    def __init__(self, network: LocalNetwork) -> None:
        self.network = network
        self.answers: list[tuple[float, float, Answer]] = []  # when, how long, what
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(number,)) for number in range(THREADS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, visitor: int) -> None:
        connection, count = self.network.connect(), 0
        while not self._stop.is_set():
            count += 1
            target, started = f"/{visitor}/{count}", time.monotonic()
            try:
                answer = self.network.request("echo", target, connection=connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{target}: {error!r}")
                connection.close()
                continue
            if answer.status != 200 or answer.body != f"hello {target}".encode():
                self.failures.append(f"{target}: {answer.status} {answer.body[:300]!r}")
            self.answers.append((started, time.monotonic() - started, answer))
        connection.close()

    def nodes_since(self, moment: float) -> set[str]:
        """Return who answered requests that began after a moment."""
        return {
            answer.headers["lichen-node"].lower()
            for began, _, answer in self.answers
            if began > moment
        }


def names_by_address(network: LocalNetwork) -> dict[str, str]:
    """Return the process name of each node's address."""
    return {json_of(network, name)["address"].lower(): name for name in network.folder.nodes()}


def json_of(network: LocalNetwork, name: str) -> dict[str, object]:
    connection = http.client.HTTPConnection(network.url(name).removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/v1/status")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def serving_node(network: LocalNetwork) -> tuple[str, str]:
    """Return address and process name of the node that comes first for the app."""
    names = names_by_address(network)
    first = min(names, key=lambda text: hashlib.sha256(bytes.fromhex(text[2:]) + b"echo").digest())
    return first, names[first]


def require_steady(network: LocalNetwork) -> None:
    """Wait until all nodes serve and the first one answers, so that each test begins alike."""
    network.wait("all nodes serve", lambda: all(map(is_healthy(network), network.folder.nodes())))
    first, _ = serving_node(network)
    network.wait(
        "the first node answers",
        lambda: network.get("echo").headers.get("lichen-node", "").lower() == first,
    )


def is_healthy(network: LocalNetwork) -> Callable[[str], bool]:
    def healthy(name: str) -> bool:
        try:
            return bool(json_of(network, name)["registered"])
        except (OSError, http.client.HTTPException, ValueError):
            return False

    return healthy


def test_a_node_killed_under_load_costs_no_visitor_an_answer_and_comes_back(network):
    require_steady(network)
    address, name = serving_node(network)
    with Load(network) as load:
        time.sleep(UNTIL_KILLED_S)
        killed = time.monotonic()
        network.kill(name)
        network.wait(
            "another node answers", lambda: bool(load.nodes_since(killed) - {address}), 10.0
        )
        back = time.monotonic()
        network.wait("the killed node answers again", lambda: address in load.nodes_since(back))
    assert load.failures == []
    assert len(load.answers) > 100
    moved = next(
        answer
        for began, _, answer in load.answers
        if answer.headers["lichen-node"].lower() != address and began > killed - 1
    )
    why = network.api(f"/runs/{moved.run}/why")
    assert why["run"]["status"] == 200
    assert [attempt["node"].lower() for attempt in why["run"]["attempts"]][-1] != address


def test_why_tells_the_attempts_of_a_run_that_moved(network):
    require_steady(network)
    address, name = serving_node(network)
    found: list[Answer] = []
    visitor = threading.Thread(
        target=lambda: found.append(network.get("echo", "/slow?wait=1500")), daemon=True
    )
    visitor.start()
    network.wait("it runs", lambda: json_of(network, name)["in_flight"] == 1)
    network.kill(name)
    visitor.join(30)
    assert found[0].status == 200
    told = network.lichen("why", found[0].run)
    attempts = told["run"]["attempts"]
    assert attempts[0]["node"].lower() == address
    assert attempts[0]["outcome"] in {"closed", "unreachable"}
    assert attempts[-1]["outcome"] == "complete"
    assert attempts[-1]["node"].lower() != address


def test_a_node_that_hangs_delays_visitors_by_a_bounded_time_and_fails_none(network):
    require_steady(network)
    address, name = serving_node(network)
    with Load(network) as load:
        time.sleep(UNTIL_KILLED_S)
        hung = time.monotonic()
        pid = network.kill(name, signal.SIGSTOP)
        try:
            time.sleep(HUNG_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        back = time.monotonic()
        network.wait("the node answers again", lambda: address in load.nodes_since(back))
    assert load.failures == []
    assert max(took for _, took, _ in load.answers) < HUNG_ANSWER_S_MAX
    meanwhile = [entry for entry in load.answers if hung < entry[0] < back]
    assert meanwhile, "nobody was answered while the node hung"
    assert {answer.headers["lichen-node"].lower() for _, _, answer in meanwhile[THREADS:]} != {
        address
    }


def test_a_post_in_flight_at_a_killed_node_is_answered_502_and_never_run_twice(network):
    require_steady(network)
    _, name = serving_node(network)
    answers: dict[int, Answer] = {}

    def post(number: int) -> None:
        answers[number] = network.request(
            "echo", f"/post-{number}?wait=1500", method="POST", body=b"x"
        )

    visitors = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for visitor in visitors:
        visitor.start()
    network.wait("all four run", lambda: json_of(network, name)["in_flight"] == 4)
    network.kill(name)
    for visitor in visitors:
        visitor.join(30)
    assert [answers[number].status for number in range(4)] == [502] * 4
    problem = answers[0].json()
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert "not repeated" in problem["hint"]
    assert all(answer.run for answer in answers.values())
    for number, answer in answers.items():
        run = network.api(f"/runs/{answer.run}")
        assert [attempt["outcome"] for attempt in run["attempts"]] == ["closed"], number
    require_steady(network)
    # The killed node's lines are gone with it: a line means that another node ran one.
    assert "/post-" not in network.command("logs", "echo").stdout


def test_receipts_of_earlier_runs_are_answered_after_the_gateway_was_killed(network):
    require_steady(network)
    runs = [network.get("echo", f"/{number}").run for number in range(20)]
    before = {run: receipt_of(network, run) for run in runs}
    network.kill("gateway")
    network.wait("the gateway answers", lambda: gateway_answers(network))
    for run, receipt in before.items():
        assert receipt_of(network, run) == receipt
        assert verify_receipt(receipt).receipt.run == run


def gateway_answers(network: LocalNetwork) -> bool:
    try:
        return network.get("echo").status == 200
    except (OSError, http.client.HTTPException):
        return False


def receipt_of(network: LocalNetwork, run: str) -> bytes:
    connection = network.connect()
    try:
        connection.request("GET", f"/api/v1/runs/{run}/receipt")
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    assert response.status == 200, body
    return body


def test_unpaid_runs_are_paid_after_the_gateway_was_killed_without_new_traffic(network):
    require_steady(network)
    for _ in range(20):
        network.get("echo")
    network.kill("gateway")
    network.wait("the gateway answers its API", lambda: is_up(network))
    network.wait("every run is paid", lambda: unpaid(network) == 0)


def is_up(network: LocalNetwork) -> bool:
    try:
        return bool(network.api("/status"))
    except (OSError, http.client.HTTPException, MachineError):
        return False


def unpaid(network: LocalNetwork) -> int:
    """Return what the nodes are owed and have no voucher for."""
    total = 0
    for name in network.folder.nodes():
        connection = http.client.HTTPConnection(network.url(name).removeprefix("http://"))
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        total += sum(
            int(line.split()[1]) for line in lines if line.startswith("lichen_node_unpaid")
        )
    return total


def test_the_ledger_can_be_killed_without_a_visitor_noticing(network):
    require_steady(network)
    with Load(network) as load:
        time.sleep(UNTIL_KILLED_S / 2)
        height = network.api("/status")["height"]
        network.kill("ledger")
        network.wait("blocks come again", lambda: network.api("/status")["height"] > height)
    assert load.failures == []
    assert len(load.answers) > 100


def test_visitors_wait_for_nodes_that_are_all_about_to_be_back(network):
    require_steady(network)
    with Load(network) as load:
        time.sleep(UNTIL_KILLED_S / 2)
        killed = time.monotonic()
        for name in network.folder.nodes():
            network.kill(name)
        network.wait("somebody is answered", lambda: bool(load.nodes_since(killed + 1)))
    assert load.failures == []


def test_a_gateway_that_is_back_answers_its_first_visitor(network):
    require_steady(network)
    old = network.kill("gateway")
    network.wait("another one is started", lambda: network.pids()["gateway"] != old)
    network.wait("it listens", lambda: listens(network))
    assert network.get("echo", "/first").body == b"hello /first"


def listens(network: LocalNetwork) -> bool:
    try:
        socket.create_connection(("127.0.0.1", network.port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_network_without_nodes_says_so_within_a_bound(tmp_path):
    with LocalNetwork(tmp_path, nodes=1) as network:
        network.deploy("echo", ECHO)
        network.wait("the app answers", lambda: network.get("echo").status == 200)
        pid = network.kill("node-1", signal.SIGSTOP)
        started = time.monotonic()
        try:
            got = network.request("echo", timeout_s=2 * NO_NODE_S_MAX)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - started < NO_NODE_S_MAX
        assert got.status == 503
        assert "not answering lately" in got.json()["detail"]
        network.wait("it is back", lambda: network.get("echo").status == 200)
