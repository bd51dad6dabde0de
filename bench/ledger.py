"""How fast the embedded ledger is: transfers from signed bytes to fsynced blocks.

    python bench/ledger.py [--transfers 10000] [--accounts 20000]

Three figures, each from a run of its own on the same transfers: the engine in this process, the
ledger's process over HTTP (with one follower's worth of nothing else running), and a replay. Then
the CPU time of each step alone, per transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lichen.errors import PeerUnavailableError
from lichen.identity import Address
from lichen.ledger import GenesisAccount, Transfer, encode_transaction, network_id, sign_transaction
from lichen.ledger.blocks import BLOCK_TRANSACTIONS_MAX
from lichen.ledger.client import LedgerClient
from lichen.ledger.engine import Engine, create
from lichen.ledger.machine import apply_transaction, seal
from lichen.ledger.replay import replay_home
from lichen.ledger.state import State
from lichen.ledger.store import LmdbStore
from lichen.ledger.transactions import decode_transaction
from lichen.testing.ledger import genesis_of, key_of
from lichen.units import FLK, Amount

SENDERS = 1000
PER_REQUEST = 500  # a multiple of the transfers each sender makes
TARGET_PER_S = 5000
START_S_MAX = 20

SERVE = "import pathlib, sys; from lichen.ledger.server import serve; serve(pathlib.Path(sys.argv[1]), '127.0.0.1', int(sys.argv[2]))"


def make_genesis(accounts):
    senders = genesis_of(*(f"sender-{number}" for number in range(SENDERS)))
    crowd = tuple(
        GenesisAccount(Address(secrets.token_bytes(20)), Amount(FLK))
        for _ in range(max(0, accounts - SENDERS))
    )
    return type(senders)(senders.name, senders.time_ms, senders.params, senders.accounts + crowd)


def make_transfers(genesis, count):
    """All of one sender's in a row, so that a request holds them in order."""
    network = network_id(genesis)
    recipients = [account.address for account in genesis.accounts]
    each = -(-count // SENDERS)
    return [
        encode_transaction(
            sign_transaction(
                network,
                key_of(f"sender-{number // each}"),
                number % each,
                Transfer(recipients[number * 7919 % len(recipients)], Amount(1)),
            )
        )
        for number in range(count)
    ]


def requests_of(raws):
    return [raws[first : first + PER_REQUEST] for first in range(0, len(raws), PER_REQUEST)]


def check(parts):
    results = [result for part in parts for result in part]
    refused = [result for result in results if result.error is not None]
    if refused:
        raise SystemExit(f"{len(refused)} transfers were refused: {refused[0]}")


async def through_engine(home, raws):
    async with Engine(home) as engine:
        wall, cpu = time.perf_counter(), time.process_time()
        check(await asyncio.gather(*(engine.submit(part) for part in requests_of(raws))))
        return time.perf_counter() - wall, time.process_time() - cpu, engine.state.head.height


async def through_http(home, raws):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(home), str(port)]
    with subprocess.Popen(command) as server:  # noqa: ASYNC220 - nothing else runs meanwhile
        try:
            async with LedgerClient(f"http://127.0.0.1:{port}") as client:
                await until_up(client)
                wall, cpu = time.perf_counter(), cpu_s(server.pid)
                check(await asyncio.gather(*(client.submit(part) for part in requests_of(raws))))
                return time.perf_counter() - wall, cpu_s(server.pid) - cpu
        finally:
            server.terminate()


async def until_up(client):
    async with asyncio.timeout(START_S_MAX):
        while True:
            try:
                return await client.status()
            except PeerUnavailableError:
                await asyncio.sleep(0.05)


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def steps(home, genesis, raws):
    """CPU microseconds per transaction of each step, one after the other on one thread."""
    store = LmdbStore(home)
    state = State(store, genesis)
    split = dict.fromkeys(("decode", "verify", "apply", "tree, block", "write, fsync"), 0.0)
    for first in range(0, len(raws), BLOCK_TRANSACTIONS_MAX):
        part = raws[first : first + BLOCK_TRANSACTIONS_MAX]
        marks = [time.process_time()]
        received = [decode_transaction(raw) for raw in part]
        marks.append(time.process_time())
        holds = [one.signature_holds() for one in received]
        marks.append(time.process_time())
        draft = state.draft(genesis.time_ms)
        outcomes = [
            apply_transaction(draft, one, signature_holds=ok)
            for one, ok in zip(received, holds, strict=True)
        ]
        marks.append(time.process_time())
        applied = seal(state, draft, part, outcomes)
        marks.append(time.process_time())
        store.write(applied.changes.entries)
        state.adopt(applied.changes)
        marks.append(time.process_time())
        for name, start, end in zip(split, marks, marks[1:], strict=False):
            split[name] += (end - start) / len(raws) * 1e6
    store.close()
    return split


def measure(*, transfers, rounds):
    """Return the figures of `make bench`: transfers in requests, from signed bytes to fsync."""
    from lib.table import Figure

    genesis = make_genesis(2 * SENDERS)
    raws = make_transfers(genesis, transfers)
    inner, outer, cpus = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            homes = [Path(folder) / f"{name}-{number}" for name in ("engine", "http")]
            for home in homes:
                create(home, genesis)
            wall, cpu, _ = asyncio.run(through_engine(homes[0], raws))
            inner.append(transfers / wall)
            cpus.append(cpu / transfers * 1e6)
            outer.append(transfers / asyncio.run(through_http(homes[1], raws))[0])
    note = (
        f"{min(inner):,.0f} to {max(inner):,.0f}; {statistics.median(cpus):.0f} us CPU each; "
        f"over HTTP {statistics.median(outer):,.0f}"
    )
    figure = statistics.median(inner)
    return [Figure("transfers/s of the embedded ledger", figure, "", (">=", TARGET_PER_S), note)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--dir", type=Path, default=None, help="a folder on the disk to measure")
    args = parser.parse_args()
    genesis = make_genesis(args.accounts)
    if (
        not 0 < args.transfers <= 100 * SENDERS
        or args.transfers % SENDERS
        or PER_REQUEST % (args.transfers // SENDERS)
    ):
        parser.error(f"--transfers is {SENDERS} times a divisor of {PER_REQUEST}")
    raws = make_transfers(genesis, args.transfers)
    count = len(raws)
    print(f"{count} transfers, {len(genesis.accounts)} accounts, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        homes = [Path(folder) / name for name in ("engine", "http", "steps")]
        for home in homes:
            create(home, genesis)
        wall, cpu, blocks = asyncio.run(through_engine(homes[0], raws))
        print(
            f"engine   {count / wall:8,.0f} transfers/s  {cpu / count * 1e6:6.1f} us CPU each  {blocks} blocks  ({count / wall / TARGET_PER_S:.2f}x the goal)"
        )
        wall, cpu = asyncio.run(through_http(homes[1], raws))
        print(
            f"HTTP     {count / wall:8,.0f} transfers/s  {cpu / count * 1e6:6.1f} us CPU each  {PER_REQUEST} a request  ({count / wall / TARGET_PER_S:.2f}x the goal)"
        )
        start = time.perf_counter()
        replay_home(homes[0])
        print(
            f"replay   {count / (time.perf_counter() - start):8,.0f} transfers/s  signatures checked, genesis included"
        )
        split = steps(homes[2], genesis, raws)
    print("CPU us   " + "  ".join(f"{name} {value:.1f}" for name, value in split.items()))


if __name__ == "__main__":
    main()
