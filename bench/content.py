"""Content through the gateway's `/ipfs/{cid}` beside nginx with the same files on the same disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lib import nginx
from lib.machine import Processes, tree_cpu_s
from lib.rounds import Contender, Results, Round, alternate
from lib.table import Figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lichen.testing.network import LocalNetwork

SMALL_BYTES = 1024
LARGE_BYTES = 500_000_000
RATIO_BOUND = 0.9
SMALL_CONNECTIONS = 32
LARGE_CONNECTIONS = 2
RANGE_CONNECTIONS = 8


def write_files(www: Path) -> None:
    www.mkdir()
    (www / "small").write_bytes(os.urandom(SMALL_BYTES))
    block = os.urandom(1_000_000)
    with (www / "large").open("wb") as file:
        for _ in range(LARGE_BYTES // len(block)):
            file.write(block)


def measure(network: LocalNetwork, folder: Path, *, rounds: int, seconds: int) -> list[Figure]:
    """Store both files, then load gateway and nginx in alternating rounds."""
    www = folder / "www"
    write_files(www)
    gateway = network.pids()["gateway"]
    paths = {
        name: f"/ipfs/{network.lichen('storage', 'add', str(www / name))['cid']}"
        for name in ("small", "large")
    }
    with Processes(folder) as processes:
        static = nginx.static(processes, www)

        def sides(name: str) -> dict[str, Contender]:
            return {
                "nginx": Contender(
                    f"http://127.0.0.1:{static.port}/{name}", lambda: tree_cpu_s(static.pid)
                ),
                "lichen": Contender(
                    f"http://127.0.0.1:{network.port}{paths[name]}", lambda: tree_cpu_s(gateway)
                ),
            }

        small = alternate(
            sides("small"), folder / "plain.lua", rounds=rounds, seconds=seconds,
            connections=SMALL_CONNECTIONS,
        )  # fmt: skip
        # Which side the kernel charges for delivery over loopback swings from round to round.
        many = {"rounds": 2 * rounds - 1, "seconds": 1, "cut_off": True}
        large = alternate(
            sides("large"), folder / "plain.lua", connections=LARGE_CONNECTIONS, **many
        )
        ranges = alternate(
            sides("large"), folder / "ranges.lua", connections=RANGE_CONNECTIONS, **many
        )
    return [
        compare("1 KB content, requests per CPU-second", small, lambda one: one.requests_per_cpu_s),
        compare("500 MB file, MB per CPU-second", large, lambda one: one.mb_per_cpu_s),
        compare("1 MiB ranges of it, MB per CPU-second", ranges, lambda one: one.mb_per_cpu_s),
    ]


def compare(name: str, results: Results, value: Callable[[Round], float]) -> Figure:
    mine, other = results.median("lichen", value), results.median("nginx", value)
    p99 = results.median("lichen", lambda one: one.load.p99_us)
    note = f"lichen {mine:,.0f}, nginx {other:,.0f}; p99 {p99 / 1000:.1f} ms"
    ratio = results.ratio("lichen", "nginx", value)
    return Figure(f"{name} : nginx", ratio, "x", (">=", RATIO_BOUND), note)
