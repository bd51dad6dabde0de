"""`lichen up --validators`: a whole network whose order several ledgers agree on."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys

import pytest

from lichen.cli.network import processes, state
from lichen.cli.network.folder import NetworkFolder
from lichen.cli.network.ports import choose_free
from lichen.ledger.client import LedgerClient
from lichen.ledger.comet import binary

COMMAND_S_MAX = 120
VALIDATORS = 4


@pytest.fixture(scope="module")
def program():
    if binary.find() is None and shutil.which("go") is None:
        pytest.skip("CometBFT is not here, nor Go to build it: run make cometbft")
    try:
        return binary.install()
    except binary.CometMissingError as error:
        pytest.skip(f"CometBFT cannot be had: {error.what} ({error.hint})")


@pytest.fixture
def lichen(program, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "lichen", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        logs = "".join(path.read_text()[-1000:] for path in tmp_path.glob(".lichen/logs/*"))
        assert done.returncode == 0, done.stderr + logs
        return done

    yield run
    run("down")


async def heads(folder):
    found = []
    for name in folder.ledgers():
        async with LedgerClient(folder.url(name)) as client:
            found.append(await client.status())
    return found


def test_a_network_of_validators_starts_pays_stops_and_goes_on(lichen, tmp_path):
    (port,) = choose_free(1)
    start = ["up", "--detach", "--port", str(port)]
    lichen(*start, "--validators", str(VALIDATORS), "--nodes", "2")
    folder = NetworkFolder(tmp_path / ".lichen")
    paid = json.loads(lichen("account", "transfer", "node-1", "5", "--json").stdout)
    running = state.read(folder.state)
    assert "no process is left" in lichen("down").stderr
    assert not any(map(processes.is_alive, (*running.processes, running.supervisor)))
    lichen(*start)
    after = asyncio.run(heads(folder))
    assert len(after) == VALIDATORS
    assert len({(head.height, head.block_hash) for head in after}) == 1
    assert after[0].height >= paid["height"]
