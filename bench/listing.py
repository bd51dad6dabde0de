"""How soon the first page of a very large directory is there, as a browser asks for it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from lib.table import Figure
from lichen.content import CID, write_car
from lichen.content.cid import DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.hamt import build

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.testing.network import LocalNetwork

ENTRIES = 100_000
PAGE_MS_MAX = 50.0


def write_directory(car: Path, entries: int) -> str:
    """Write a CAR with a sharded directory of small files; return its root."""
    blocks: dict[CID, bytes] = {}

    def put(block: bytes) -> CID:
        cid = CID.of(DAG_PB, block)
        blocks[cid] = block
        return cid

    content = b"the same in each file\n"
    file = CID.of(RAW, content)
    links = (Link(file, f"file-{number:06}.txt", len(content)) for number in range(entries))
    root, _ = build(links, put)
    with car.open("wb") as out:
        for piece in write_car([root], [*blocks.items(), (file, content)]):
            out.write(piece)
    return str(root)


def measure(network: LocalNetwork, folder: Path, *, rounds: int) -> list[Figure]:
    """Import the directory; ask for its listing, at first and again, each on a new connection."""
    car = folder / "directory.car"
    root = write_directory(car, ENTRIES)
    network.lichen("storage", "add", str(car))
    taken = []
    for _ in range(1 + 5 * rounds):
        connection = network.connect()
        start = time.perf_counter()
        connection.request("GET", f"/ipfs/{root}/", headers={"Accept": "text/html"})
        response = connection.getresponse()
        size = len(response.read())
        taken.append((time.perf_counter() - start) * 1000)
        connection.close()
        if response.status != 200 or size < 1000:
            raise SystemExit(f"the listing of {root}: status {response.status}, {size} bytes")
    name = f"first page of a directory of {ENTRIES:,} entries"
    bound = ("<=", PAGE_MS_MAX)
    again = statistics.median(taken[1:])
    return [
        Figure(f"{name}, at first", taken[0], "ms", bound, f"{size / 1000:.0f} KB of HTML"),
        Figure(f"{name}, again", again, "ms", bound),
    ]
