"""One network for all attacks: what one of them leaves behind, the next one meets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lichen.testing.network import LocalNetwork
from tests.hostile.network.world import Process, Truth

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("hostile"), nodes=1) as network:
        yield network
        assert set(network.pids()) == {"ledger", "node-1", "gateway", "supervisor"}


@pytest.fixture(scope="package")
def truth(network: LocalNetwork) -> Truth:
    truth = Truth(network)
    truth.check_all()
    return truth


@pytest.fixture(scope="package")
def gateway(network: LocalNetwork, truth: Truth) -> Process:
    """The gateway's process, warm; the same one to the end."""
    del truth
    return Process(network.pids()["gateway"])


@pytest.fixture(autouse=True)
def still_true(network: LocalNetwork, truth: Truth, gateway: Process) -> Iterator[None]:
    """After every attack the same gateway serves the same bytes."""
    yield
    assert network.pids()["gateway"] == gateway.pid
    truth.check_all()
