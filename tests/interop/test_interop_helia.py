"""Helia, the IPFS implementation in JavaScript, and Lichen fetch from each other over localhost."""

import os

import pytest

from lichen.cli.network.ports import choose_free
from lichen.content import CID, RAW
from tests.interop.world import (
    Helia,
    add_content,
    fetched_from,
    get,
    install_helia,
    make_network,
    spoil,
)

MEBIBYTES = 100
ENTRIES = 10_000
SPOILT_BYTES = 3_000_001


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a network whose gateway has a Helia as its delegated router, and that Helia."""
    root, home = tmp_path_factory.mktemp("helia"), install_helia()
    port, helia_port = choose_free(2)
    network = make_network(root, port, routers=[f"http://127.0.0.1:{helia_port}"])
    with network, Helia(home, root, f"http://127.0.0.1:{port}", helia_port) as helia:
        yield network, helia


def test_helia_finds_fetches_and_verifies_a_large_file_and_a_large_directory(world):
    network, helia = world
    big, big_hash, many, many_hash = add_content(network, MEBIBYTES, ENTRIES)
    assert helia.ask("fetch", cid=big) == {"sha256": big_hash, "bytes": MEBIBYTES << 20}
    assert helia.ask("tree", cid=many) == {"sha256": many_hash, "entries": ENTRIES}


def test_lichen_finds_and_fetches_what_only_helia_has(world):
    network, helia = world
    size, seed = 5_000_000, 7
    cid = helia.ask("add", bytes=size, seed=seed)["cid"]
    status, body = get(network, f"/ipfs/{cid}")
    assert status == 200
    assert body == bytes((seed + i + i // 251) & 255 for i in range(size))
    assert fetched_from(network)["providers"] >= 5


def test_helia_takes_no_block_that_was_changed(world):
    network, helia = world
    data = os.urandom(SPOILT_BYTES)
    (network.root / "spoilt").write_bytes(data)
    cid = network.lichen("storage", "add", "spoilt")["cid"]
    spoil(network, SPOILT_BYTES)
    spoilt = CID.of(RAW, data[1 << 20 : 2 << 20])
    assert str(spoilt) in helia.ask("fetch", cid=cid)["error"]  # that block it was, not the others
    assert get(network, f"/ipfs/{spoilt}?format=raw")[0] == 200
