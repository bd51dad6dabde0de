"""The embedded engine: what it acknowledged is there, whatever happens to the process."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from lichen.errors import CorruptionError, LichenError, LimitError, MachineError, UserError
from lichen.ledger import (
    BLOCK_TRANSACTIONS_MAX,
    OverloadError,
    Transfer,
    encode_transaction,
    network_id,
    sign_transaction,
)
from lichen.ledger import engine as engine_module
from lichen.ledger.engine import Engine, create
from lichen.ledger.history import find_transaction
from lichen.ledger.machine import block_key
from lichen.ledger.replay import replay_home
from lichen.ledger.state import State
from lichen.ledger.store import LmdbStore
from lichen.testing.ledger import GENESIS_MS, genesis_of, key_of
from lichen.units import Amount

NAMES = tuple(f"account-{number}" for number in range(8))
GENESIS = genesis_of(*NAMES)
NETWORK = network_id(GENESIS)
KILLS = 10

CHILD = """
import asyncio, pathlib, sys
from lichen.ledger import *
from lichen.ledger.engine import Engine
from lichen.testing.ledger import key_of
from lichen.units import Amount

async def spend(engine, name):
    key = key_of(name)
    while True:
        nonce = engine.view.account(key.address).nonce
        signed = [
            sign_transaction(engine.state.network, key, nonce + i, Transfer(key_of("sink").address, Amount(1)))
            for i in range(3)
        ]
        for result in await engine.submit([encode_transaction(one) for one in signed]):
            print(result.id, result.accepted(), flush=True)

async def main(home, names):
    async with Engine(pathlib.Path(home)) as engine:
        await asyncio.gather(*(spend(engine, name) for name in names))

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


@pytest.fixture
def home(tmp_path):
    create(tmp_path / "ledger", GENESIS)
    return tmp_path / "ledger"


def transfers(name, count, first=0, amount=1):
    to = key_of("sink").address
    return [
        encode_transaction(
            sign_transaction(NETWORK, key_of(name), nonce, Transfer(to, Amount(amount)))
        )
        for nonce in range(first, first + count)
    ]


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(home):
    moments = random.Random(2)
    acknowledged: dict[bytes, int] = {}
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(home), *NAMES], stdout=subprocess.PIPE
        ) as child:
            lines = [child.stdout.readline()]
            assert lines[0], "the child ended before it acknowledged anything"
            time.sleep(moments.uniform(0, 0.25))  # the moment of the kill is what is tested
            child.kill()
            lines += child.stdout.readlines()
        for line in lines:
            if line.endswith(b"\n"):
                identity, height = line.split()
                acknowledged[bytes.fromhex(identity.decode())] = int(height)
        replay_home(home)
    store = LmdbStore(home)
    try:
        places = {identity: find_transaction(store, identity) for identity in acknowledged}
    finally:
        store.close()
    assert len(acknowledged) > 50 * KILLS
    assert {identity: place and place.height for identity, place in places.items()} == acknowledged


async def test_what_arrives_together_shares_blocks_and_keeps_its_order(home):
    async with Engine(home) as engine:
        raws = transfers(NAMES[0], 300)
        parts = [engine.submit(raws[first : first + 10]) for first in range(0, 300, 10)]
        results = [result for part in await asyncio.gather(*parts) for result in part]
        heights = [result.accepted() for result in results]
        assert heights == sorted(heights)
        assert engine.state.head.height < 30
        assert engine.view.account(key_of("sink").address).balance == 300
        assert engine.queued == 0


async def test_a_block_is_bounded(home, monkeypatch):
    assert BLOCK_TRANSACTIONS_MAX == 2048
    monkeypatch.setattr(engine_module, "BLOCK_TRANSACTIONS_MAX", 7)
    async with Engine(home) as engine:
        await engine.submit(transfers(NAMES[0], 20))
        sizes = [len(engine.view.block(height).transactions) for height in (1, 2, 3)]
    assert sizes == [7, 7, 6]


async def test_a_refused_transaction_makes_no_block(home):
    async with Engine(home) as engine:
        refused, junk = await engine.submit([transfers(NAMES[0], 1, first=5)[0], b"junk"])
        assert (refused.error.code, junk.error.code) == ("bad-nonce", "bad-transaction")
        assert engine.state.head.height == 0


async def test_sending_a_transaction_again_is_safe(home):
    async with Engine(home) as engine:
        raw = transfers(NAMES[0], 1)[0]
        first, same = await engine.submit([raw, raw])
        (again,) = await engine.submit([raw])
        assert first == same == again
        assert engine.view.account(key_of("sink").address).balance == 1


async def test_a_full_queue_and_a_long_list_are_refused_as_such(home, monkeypatch):
    monkeypatch.setattr(engine_module, "QUEUE_TRANSACTIONS_MAX", 5)
    async with Engine(home) as engine:
        with pytest.raises(OverloadError):
            await engine.submit(transfers(NAMES[0], 6))
        with pytest.raises(LimitError):
            await engine.submit([b""] * 1025)
        assert await engine.submit([]) == []
        (result,) = await engine.submit(transfers(NAMES[0], 1))
        assert result.accepted() == 1
    with pytest.raises(OverloadError):
        await engine.submit(transfers(NAMES[0], 1, first=1))


async def test_a_disk_that_fails_is_said_and_the_next_try_works(home, monkeypatch):
    async with Engine(home) as engine:
        with monkeypatch.context() as broken:

            def write(*_):
                raise MachineError("the disk is full", hint="free some space")

            broken.setattr(engine.state.store, "write", write)
            with pytest.raises(MachineError, match="full"):
                await engine.submit(transfers(NAMES[0], 2))
            assert engine.state.head.height == 0
        (first, second) = await engine.submit(transfers(NAMES[0], 2))
        assert (first.accepted(), second.accepted()) == (1, 1)


async def test_a_defect_met_by_one_submission_does_not_end_the_engine(home, monkeypatch):
    async with Engine(home) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(engine_module, "decode_transaction", lambda raw: 1 // 0)
            with pytest.raises(MachineError):
                await engine.submit(transfers(NAMES[0], 1))
        with monkeypatch.context() as broken:
            broken.setattr(engine_module, "seal", lambda *_: 1 // 0)
            with pytest.raises(MachineError):
                await engine.submit(transfers(NAMES[0], 1))
        assert engine.queued == 0
        (result,) = await engine.submit(transfers(NAMES[0], 1))
        assert result.accepted() == 1


async def test_an_engine_stops_when_the_disk_and_it_disagree(home, monkeypatch):
    engine = Engine(home)
    await engine.__aenter__()
    write = engine.state.store.write

    def write_and_fail(entries):
        write(entries)
        raise MachineError("fsync failed", hint="check the disk")

    monkeypatch.setattr(engine.state.store, "write", write_and_fail)
    first, waiting = await asyncio.gather(
        engine.submit(transfers(NAMES[0], 1)),
        engine.submit(transfers(NAMES[1], 1) * 1024),
        return_exceptions=True,
    )
    assert isinstance(first, MachineError)
    assert isinstance(waiting, LichenError)
    with pytest.raises(OverloadError):
        await engine.submit(transfers(NAMES[0], 1))
    assert not engine.running
    with pytest.raises(MachineError, match="disk failed"):
        await engine.__aexit__()
    async with Engine(home) as again:
        assert again.state.head.height == 1


async def test_block_time_never_goes_back(home):
    times = iter([GENESIS_MS + 5000, GENESIS_MS + 1000])
    async with Engine(home, clock_ms=lambda: next(times)) as engine:
        await engine.submit(transfers(NAMES[0], 1))
        await engine.submit(transfers(NAMES[0], 1, first=1))
        assert [engine.view.block(h).header.time_ms for h in (1, 2)] == [GENESIS_MS + 5000] * 2


async def test_what_was_submitted_is_finished_before_the_engine_closes(home):
    async with Engine(home) as engine:
        waiting = [asyncio.create_task(engine.submit(transfers(name, 50))) for name in NAMES]
        await asyncio.sleep(0)
    results = [result for part in await asyncio.gather(*waiting) for result in part]
    assert all(result.accepted() for result in results)
    async with Engine(home) as engine:
        assert engine.view.account(key_of("sink").address).balance == 50 * len(NAMES)


async def test_one_process_holds_a_folder(home):
    async with Engine(home):
        with pytest.raises(MachineError, match="another process"):
            Engine(home)


def test_a_folder_without_a_ledger_says_so(tmp_path):
    with pytest.raises(MachineError, match="no ledger"):
        Engine(tmp_path / "nothing")


def test_making_a_ledger_twice_is_harmless_and_for_another_network_refused(home):
    create(home, GENESIS)
    with pytest.raises(CorruptionError, match="another network"):
        create(home, genesis_of("somebody"))
    with pytest.raises(UserError):
        create(home, genesis_of("somebody", epoch_ms=0))


async def test_only_the_sequencer_orders_and_its_blocks_replay(tmp_path):
    key = key_of("sequencer")
    genesis = msgspec.structs.replace(GENESIS, sequencer=key.public)
    create(tmp_path, genesis)
    for other in (None, key_of("somebody")):
        with pytest.raises(UserError, match="sequencer"):
            Engine(tmp_path, key=other)
    async with Engine(tmp_path, key=key) as engine:
        to = Transfer(key_of("sink").address, Amount(1))
        signed = sign_transaction(engine.state.network, key_of(NAMES[0]), 0, to)
        assert (await engine.submit([encode_transaction(signed)]))[0].accepted() == 1
    assert replay_home(tmp_path).head.height == 1


async def test_damage_is_found_when_opening_or_replaying(home):
    async with Engine(home) as engine:
        await engine.submit(transfers(NAMES[0], 1))
        await engine.submit(transfers(NAMES[0], 1, first=1))
    replay_home(home)
    store = LmdbStore(home)
    first, last = store.get(block_key(1)), store.get(block_key(2))
    store.write({block_key(1): last})
    store.close()
    with pytest.raises(CorruptionError):
        replay_home(home)
    store = LmdbStore(home)
    store.write({block_key(1): first, block_key(2): first})
    store.close()
    with pytest.raises(CorruptionError, match="last block"):
        Engine(home)
    store = LmdbStore(home)
    store.write({block_key(2): last, b"t": bytes(96)})
    store.close()
    with pytest.raises(CorruptionError, match="state tree"):
        State(LmdbStore(home), GENESIS)


def test_a_terminated_ledger_process_exits_cleanly(home):
    script = "import pathlib, sys\nfrom lichen.ledger.server import serve\nserve(pathlib.Path(sys.argv[1]), '127.0.0.1', int(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", script, str(home), "0"]) as child:
        deadline = time.monotonic() + 20
        while not _listening(child.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=10) == 0


def _listening(pid):
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        with open(f"/proc/{pid}/net/tcp") as table:
            listening = {row.split()[9] for row in table.readlines()[1:] if row.split()[3] == "0A"}
    except FileNotFoundError:
        return False
    return any(f"socket:[{inode}]" in links for inode in listening)
