"""Entries of a real network's ledger, by anybody's answer: the genesis alone is trusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lichen.cli.network.folder import read_genesis
from lichen.ledger.client import LedgerClient
from lichen.ledger.light import LightClient
from lichen.testing.network import LocalNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("proofs"), nodes=1) as network:
        yield network


async def test_ledger_node_and_gateway_prove_the_same(network: LocalNetwork) -> None:
    genesis = read_genesis(network.folder.root / "genesis.json")
    sources = {name: network.url(name) for name in ("ledger", "node-1", "gateway")}
    sources["gateway"] += "/api"
    for url in sources.values():
        async with LedgerClient(url) as client:
            light = LightClient(genesis, client)
            (offer,) = network.client().market_nodes()
            seen = await light.node(offer.address)
            assert seen.record is not None
            assert (seen.record.address, light.height > 0) == (offer.address, True)
            assert (await light.app("nobody-made-it")).record is None


def test_the_command_line_proves_what_it_shows(network: LocalNetwork) -> None:
    (offer,) = network.client().market_nodes()
    found = network.lichen("ledger", "prove", f"node/{offer.address}", "--out", "proof.json")
    assert found["record"]["address"] == str(offer.address)
    assert network.lichen("ledger", "check", "proof.json") == found
    proof = json.loads((network.root / "proof.json").read_bytes())
    assert proof["siblings"]
