"""All benchmarks in one run, side by side with what they are measured against: `make bench`.

    python bench/run.py [--quick] [--only adding,calls,coldstart,content,ledger,listing]

Starts a whole network of its own (one node, so that gateway and node are exactly two hops), loads
it and its rivals in alternating rounds, and prints one table: each figure, the bound it has to
reach, and whether it did. CPU time is user and system time of the processes, from /proc.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import adding
import coldstart
import content
import invocation
import ledger
import listing
from lib import wrk
from lib.machine import describe, find_tool
from lib.table import Figure, show
from lichen.testing.network import LocalNetwork

PARTS = ("adding", "calls", "coldstart", "content", "ledger", "listing")
WITHOUT_NETWORK = {"adding", "ledger"}


def run(parts: list[str], *, quick: bool, root: Path) -> list[Figure]:
    rounds, seconds = (1, 1) if quick else (5, 2)
    figures: list[Figure] = []

    def part(name: str, title: str) -> bool:
        if name in parts:
            print(f"... {title}", flush=True)
        return name in parts

    if part("ledger", "transfers through the ledger"):
        figures += ledger.measure(transfers=5_000 if quick else 10_000, rounds=rounds)
    if part("adding", "adding 1 GB"):
        folder = root / "adding"
        folder.mkdir()
        figures += adding.measure(folder, rounds=min(rounds, 3))
    if WITHOUT_NETWORK.issuperset(parts):
        return figures
    print("... starting a network", flush=True)
    with LocalNetwork(root / "network", nodes=1) as network:
        if part("coldstart", "first requests of new tenants"):
            figures += coldstart.measure(network, tenants=5 if quick else 20)
        for name, title, module, each_s in (
            ("calls", "calls through gateway and node", invocation, seconds),
            ("content", "content by hash", content, 1),
        ):
            if part(name, title):
                folder = root / name
                folder.mkdir()
                wrk.write_scripts(folder)
                figures += module.measure(network, folder, rounds=rounds, seconds=each_s)
        if part("listing", "the first page of a large directory"):
            figures += listing.measure(network, root, rounds=rounds)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for tool in ("nginx", "wrk"):
        find_tool(tool)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lichen-bench-") as name:
        root = Path(name)
        (root / "network").mkdir()
        figures = run(parts, quick=options.quick, root=root)
    print(f"\n{describe()}\n\n{show(figures)}\n\n{time.monotonic() - start:.0f} s")
    missed = [figure.name for figure in figures if figure.reached is False]
    print("all bounds reached" if not missed else f"not reached: {'; '.join(missed)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
