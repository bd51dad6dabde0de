"""How fast validators agree: transfers through several CometBFT validators on this machine.

    python bench/ledger_comet.py [--validators 4] [--transfers 4800] [--single 20]

All of them share this machine's cores: with a machine each, what bounds them is the slowest one
and the network between. First transfers in requests, spread over the validators; then one after
the other, which gives the time from sending to finality; then a replay by the embedded rules.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lichen.ledger import Transfer, encode_transaction, network_id, sign_transaction
from lichen.ledger.client import LedgerClient
from lichen.ledger.comet import binary
from lichen.ledger.replay import replay_home
from lichen.testing.ledger import genesis_of, key_of
from lichen.testing.validators import LocalValidators
from lichen.units import Amount

SENDERS_EACH = 3
PER_REQUEST = 100


def pays(network, name, first, count):
    to = key_of("recipient").address
    return [
        encode_transaction(sign_transaction(network, key_of(name), nonce, Transfer(to, Amount(1))))
        for nonce in range(first, first + count)
    ]


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def send_all(client, raws):
    """One sender's transfers, in order; the time that each request took."""
    times = []
    for first in range(0, len(raws), PER_REQUEST):
        start = time.perf_counter()
        for result in await client.submit(raws[first : first + PER_REQUEST]):
            result.accepted()
        times.append(time.perf_counter() - start)
    return times


async def load(validators, work):
    clients = [LedgerClient(member.url) for member in validators.members]
    before = [spent(member) for member in validators.members]
    start = time.perf_counter()
    parts = await asyncio.gather(
        *(send_all(clients[index % len(clients)], raws) for index, raws in enumerate(work.values()))
    )
    wall = time.perf_counter() - start
    after = [spent(member) for member in validators.members]
    for client in clients:
        await client.close()
    python = sum(b[0] - a[0] for a, b in zip(before, after, strict=True))
    comet = sum(b[1] - a[1] for a, b in zip(before, after, strict=True))
    return wall, python, comet, [one for part in parts for one in part]


def spent(member):
    return cpu_s(member.process.pid), sum(map(cpu_s, member.comets()))


async def one_by_one(validators, raws):
    async with LedgerClient(validators[0].url) as client:
        return [(await send_all(client, [raw]))[0] for raw in raws]


def show(name, times):
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"{name}  p50 {statistics.median(times) * 1e3:.0f} ms  p99 {p99 * 1e3:.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--validators", type=int, default=4)
    parser.add_argument("--transfers", type=int, default=4800)
    parser.add_argument("--single", type=int, default=20)
    args = parser.parse_args()
    if binary.find() is None:
        sys.exit("CometBFT is not here: make cometbft")
    names = [f"sender-{number}" for number in range(SENDERS_EACH * args.validators)]
    genesis = genesis_of(*names, "single")
    with tempfile.TemporaryDirectory() as folder:
        with LocalValidators(Path(folder), genesis, count=args.validators) as validators:
            network = network_id(validators.genesis)
            each = args.transfers // len(names)
            work = {name: pays(network, name, 0, each) for name in names}
            count = each * len(names)
            wall, python, comet, times = asyncio.run(load(validators, work))
            print(
                f"{args.validators} validators, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: "
                f"{count / wall:,.0f} transfers/s; CPU us for each transfer, all validators: "
                f"{python / count * 1e6:.0f} ours, {comet / count * 1e6:.0f} CometBFT's"
            )
            show(f"finality of requests of {min(PER_REQUEST, each)}, under load", times)
            singles = asyncio.run(one_by_one(validators, pays(network, "single", 0, args.single)))
            show("finality of one transfer at a time", singles)
        start = time.perf_counter()
        heights = {replay_home(member.home).head for member in validators.members}
        replayed = count + args.single
        rate = args.validators * replayed / (time.perf_counter() - start)
        print(f"replay by the embedded rules {rate:,.0f} transfers/s; states: {len(heights)}")


if __name__ == "__main__":
    main()
