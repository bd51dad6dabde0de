"""Content by hash beside the other IPFS gateways, and beside nginx with the same files on disk.

Each load by all contenders in turn: objects of 1 KB (the same request again and again, and no two
alike) and of 64 KB, a file of 500 MB, and 1 MiB ranges at random places of it. All have the same blocks (Kubo and rainbow by a CAR of ours),
and all is warm: a first round is not counted.

Servers stay on one CPU, the receiver on the other. Over loopback the kernel delivers in the time of
whichever side happens to run, the server as it sends or the receiver as it acknowledges: the two
swing against each other from round to round, by a factor of two and more. So for large transfers
what is compared is the CPU time of both sides together, of which only the server's work differs; a
server's own is printed beside it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lib import gateways, nginx
from lib.machine import Processes, pin, tree_cpu_s
from lib.rounds import Contender, Results, Round, alternate
from lib.table import Figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lichen.testing.network import LocalNetwork

SIZES = {"small": 1024, "middle": 64 * 1024, "large": 500_000_000}
SMALL_BOUND = 1.0  # of nginx
LARGE_BOUND = 0.95
PEER_BOUNDS = {"kubo": 5.0, "rainbow": 3.0}  # on objects of 1 and of 64 KB
SMALL_CONNECTIONS = 32
LARGE_CONNECTIONS = 2
RANGE_CONNECTIONS = 8
SERVER_CPU, RECEIVER_CPU = 0, 1


def write_files(www: Path) -> None:
    www.mkdir()
    block = os.urandom(1_000_000)
    for name, size in SIZES.items():
        with (www / name).open("wb") as file:
            for at in range(0, size, len(block)):
                file.write(block[: size - at])


def store(network: LocalNetwork, www: Path) -> dict[str, str]:
    """Add the files to the network; return the path of each."""
    return {
        name: f"/ipfs/{network.lichen('storage', 'add', str(www / name))['cid']}" for name in SIZES
    }


def export(network: LocalNetwork, paths: dict[str, str], folder: Path) -> list[Path]:
    """Write the CAR of each file, as the gateway gives it."""
    cars = []
    for name, path in paths.items():
        car = folder / f"{name}.car"
        connection = network.connect()
        connection.request("GET", f"{path}?format=car")
        response = connection.getresponse()
        with car.open("wb") as out:
            while piece := response.read(1 << 20):
                out.write(piece)
        connection.close()
        if response.status != 200:
            raise SystemExit(f"the gateway's CAR of {name}: {response.status}")
        cars.append(car)
    return cars


def start_peers(processes: Processes, cars: list[Path]) -> dict[str, gateways.Gateway]:
    """Start the other gateways that can be had, and say how to get the others."""
    found = {}
    for name, tool, start in (
        ("kubo", gateways.KUBO, gateways.kubo),
        ("rainbow", gateways.RAINBOW, gateways.rainbow),
    ):
        program = gateways.find(tool)
        if program is not None:
            found[name] = start(processes, program, cars)
    return found


def measure(network: LocalNetwork, folder: Path, *, rounds: int, seconds: int) -> list[Figure]:
    """Store the files everywhere, then load all gateways in alternating rounds."""
    www = folder / "www"
    write_files(www)
    paths = store(network, www)
    with Processes(folder) as processes:
        static = nginx.static(processes, www)
        peers = start_peers(processes, export(network, paths, folder))
        lichen = gateways.Gateway(network.port, network.pids()["gateway"])
        by_hash = {"lichen": lichen, **peers}
        for server in (static, *by_hash.values()):
            pin(server.pid, SERVER_CPU)

        def load(name: str, connections: int, script: str, **how: object) -> Results:
            urls = {"nginx": (static, f"/{name}")}
            urls |= {who: (server, paths[name]) for who, server in by_hash.items()}
            sides = {
                who: Contender(
                    f"http://127.0.0.1:{server.port}{path}", lambda pid=server.pid: tree_cpu_s(pid)
                )
                for who, (server, path) in urls.items()
            }
            return alternate(
                sides, folder / script, rounds=rounds, connections=connections,
                cpu=RECEIVER_CPU, **how,
            )  # fmt: skip

        small = load("small", SMALL_CONNECTIONS, "plain.lua", seconds=seconds)
        varied = load("small", SMALL_CONNECTIONS, "varied.lua", seconds=seconds)
        middle = load("middle", SMALL_CONNECTIONS, "plain.lua", seconds=seconds)
        large = load("large", LARGE_CONNECTIONS, "plain.lua", seconds=1, cut_off=True)
        ranges = load("large", RANGE_CONNECTIONS, "ranges.lua", seconds=1, cut_off=True)
    return [
        *small_figures("1 KB objects", small, SMALL_BOUND),
        *small_figures("1 KB objects, no two requests alike", varied, None, compared=False),
        *small_figures("64 KB objects", middle, None),
        *large_figures("500 MB file", large),
        *large_figures("random 1 MiB ranges of it", ranges),
        *_missing(set(peers)),
    ]


def compare(
    name: str,
    results: Results,
    value: Callable[[Round], float],
    bound: float | None,
    other: str = "nginx",
) -> Figure:
    """Compare Lichen with another one by the rounds of both."""
    mine, theirs = results.median("lichen", value), results.median(other, value)
    note = f"lichen {mine:,.0f}, {other} {theirs:,.0f}"
    ratio = results.ratio("lichen", other, value)
    limit = None if bound is None else (">=", bound)
    return Figure(f"{name} : {other}", ratio, "x", limit, note)


def small_figures(
    name: str, results: Results, bound: float | None, *, compared: bool = True
) -> list[Figure]:
    """Compare by requests per CPU-second of the servers."""

    def value(one: Round) -> float:
        return one.requests_per_cpu_s

    title = f"{name}, requests per CPU-second"
    figures = [compare(title, results, value, bound)]
    for peer, least in PEER_BOUNDS.items():
        if peer in results and compared:
            figures.append(compare(title, results, value, least, peer))
    return figures


def large_figures(name: str, results: Results) -> list[Figure]:
    """Compare by bytes per CPU-second of server and receiver; name the servers' own."""

    def value(one: Round) -> float:
        return one.mb_per_cpu_s_of_both

    def own(one: Round) -> float:
        return one.mb_per_cpu_s

    title = f"{name}, MB per CPU-second"
    figures = []
    for peer in (who for who in results if who != "lichen"):
        bound = LARGE_BOUND if peer == "nginx" else None
        figure = compare(title, results, value, bound, peer)
        alone = (
            f"; the servers alone: {results.median('lichen', own):,.0f} and "
            f"{results.median(peer, own):,.0f}, {results.ratio('lichen', peer, own):.2f}x"
        )
        figures.append(figure._replace(note=figure.note + alone))
    return figures


def _missing(found: set[str]) -> list[Figure]:
    tools = {"kubo": gateways.KUBO, "rainbow": gateways.RAINBOW}
    return [
        Figure(f"{name}, which is not here", None, "", note=tool.how_to_get())
        for name, tool in tools.items()
        if name not in found
    ]
