"""What a gateway believes of hosts, ledgers and receipts, and what it keeps in memory for them."""

import json

import pytest

from lichen.errors import PeerError, PeerUnavailableError, UserError
from lichen.gateway import welcome
from lichen.gateway.names import GATEWAY, HOST_BYTES_MAX, Hosts
from lichen.gateway.process import _require_receipt
from lichen.ledger.server import Budget
from lichen.ledger.types import network_id
from lichen.node.config import require_network
from tests.unit.gateway_api_world import World
from tests.unit.test_market_receipt import KEY, make_file

NODE = str(KEY.address)


def test_hosts_longer_than_names_can_be_are_not_kept() -> None:
    hosts = Hosts(("localhost",))
    for length in (HOST_BYTES_MAX + 1, 30_000):
        assert hosts.read(b"a" * length) == GATEWAY
    assert hosts._kept.cache_info().currsize == 0
    assert hosts.read(b"hello.app.localhost:8080").value == "hello"


@pytest.mark.parametrize(
    "host",
    [b"hello.app.localhost.evil.test", b"app.localhost", b"a.b.app.localhost", b".app.localhost",
     b"-x.app.localhost", b"hello_app.localhost", b"", b"[::1]:80"],
)  # fmt: skip
def test_a_host_that_only_looks_like_an_apps_is_the_gateway(host: bytes) -> None:
    assert Hosts(("localhost",)).read(host) == GATEWAY


def test_a_receipt_of_the_run_that_its_node_signed_is_passed_on() -> None:
    _require_receipt(make_file(index=3), "ab-3", NODE)


def test_a_receipt_of_another_run_is_refused() -> None:
    with pytest.raises(PeerError, match="another run"):
        _require_receipt(make_file(index=3), "ab-4", NODE)


def test_a_receipt_of_another_node_is_refused() -> None:
    with pytest.raises(PeerError, match="another run"):
        _require_receipt(make_file(index=3), "ab-3", "0x" + "11" * 20)


def test_a_receipt_that_was_changed_is_refused() -> None:
    receipt = json.loads(make_file(index=3))
    receipt["tier"] = "microvm"
    for forged in (json.dumps(receipt).encode(), b"<script>", b""):
        with pytest.raises(PeerError, match="does not hold"):
            _require_receipt(forged, "ab-3", NODE)


def test_a_ledger_of_another_network_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    world = World(tmp_path)
    require_network(network_id(world.genesis).hex(), world.genesis)
    with pytest.raises(UserError, match="the ledger is of network"):
        require_network("00" * 32, world.genesis)
    world.close()


def test_the_welcome_page_runs_no_script_and_is_framed_by_nobody() -> None:
    policy = welcome.HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy


def test_bodies_together_take_no_more_memory_than_their_budget() -> None:
    budget = Budget(100)
    with budget.share() as first, budget.share() as second:
        first.take(60)
        with pytest.raises(PeerUnavailableError):
            second.take(41)
        second.take(40)
    with budget.share() as again:
        again.take(100)
