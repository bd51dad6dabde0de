"""A full disk, under each process of a network: a clear error, nothing lost, and on it goes.

The disk is made full for one process at a time by its file size limit (`prlimit`): a write beyond
it fails in the kernel, as on a full disk.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lichen.testing.network import LocalNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = "export default { fetch: () => new Response('good') };"
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("full"), nodes=1) as network:
        network.deploy("good", GOOD)
        network.wait("good answers", lambda: network.get("good").status == 200)
        yield network


@contextmanager
def full_disk(network: LocalNetwork, name: str) -> Iterator[None]:
    """Let no file of a process grow or be written beyond its first bytes."""
    pid = network.pids()[name]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        if network.pids()[name] == pid:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, UNLIMITED)


def _balance(network: LocalNetwork) -> int:
    return int(network.lichen("account", "show")["balance"])


def test_a_ledger_without_disk_acknowledges_nothing_and_goes_on_later(
    network: LocalNetwork,
) -> None:
    (address,) = {node["node"]["address"] for node in network.api("/nodes")["items"]}
    with full_disk(network, "ledger"):
        done = network.command("account", "transfer", address, "1")
        assert done.returncode in (1, 3)
        assert "disk" in done.stderr + network.logs()
    network.wait("transfers work again", lambda: _transfer(network, address))
    first = network.lichen("account", "history")
    network.kill("ledger")
    network.wait("the ledger is back", lambda: _transfer(network, address))
    kept = {entry["id"] for entry in network.lichen("account", "history")}
    assert {entry["id"] for entry in first} <= kept


def _transfer(network: LocalNetwork, address: str) -> bool:
    return network.command("account", "transfer", address, "1").returncode == 0


def test_a_node_without_disk_acknowledges_no_receipt_and_loses_none(
    network: LocalNetwork,
) -> None:
    before = network.get("good").run
    network.wait("the receipt is there", lambda: bool(network.api(f"/runs/{before}/receipt")))
    with full_disk(network, "node-1"):
        answer = network.get("good")
        done = network.command("call", "good/", "--receipt", "never.json")
        assert answer.status in (200, 503)
        assert done.returncode != 0 or answer.status == 503
        assert not (network.root / "never.json").exists()
    network.wait("receipts work again", lambda: _receipt_works(network))
    assert network.api(f"/runs/{before}/receipt")["run"] == before


def _receipt_works(network: LocalNetwork) -> bool:
    return network.command("call", "good/", "--receipt", "again.json").returncode == 0


def test_a_gateway_without_disk_refuses_an_upload_and_keeps_serving(
    network: LocalNetwork,
) -> None:
    (network.root / "new.bin").write_bytes(b"new" * 100_000)
    with full_disk(network, "gateway"):
        done = network.command("storage", "add", "new.bin")
        assert done.returncode in (1, 3)
        assert "disk" in done.stderr, done.stderr + network.logs()
        assert network.get("good").status == 200
    added = network.lichen("storage", "add", "new.bin")
    connection = network.connect()
    connection.request("GET", f"/ipfs/{added['cid']}")
    assert connection.getresponse().read() == b"new" * 100_000
    connection.close()
