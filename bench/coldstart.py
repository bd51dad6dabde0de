"""The first request of a new tenant: hello deployed under new names, each called once.

Measured at the gateway as a visitor sees it, on a fresh connection: route, place, claim a process
from the node's pool, load the code, run it, answer. The second request shows what of it remains.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lib.table import Figure

if TYPE_CHECKING:
    from lichen.testing.network import LocalNetwork

HELLO = Path(__file__).parent.parent / "examples" / "hello"
P50_BOUND_MS = 20.0
REFILL_S = 0.5  # between two: the pool boots the next process meanwhile


def deploy(network: LocalNetwork, name: str) -> None:
    folder = network.root / name
    shutil.copytree(HELLO, folder, symlinks=True)
    manifest = folder / "lichen.toml"
    text = manifest.read_text().replace('name = "hello"', f'name = "{name}"', 1)
    manifest.write_text(text)
    network.lichen("deploy", name)


def first_requests_ms(network: LocalNetwork, name: str, count: int) -> list[float]:
    """Time `count` requests to an app, one after the other."""
    connection = network.connect()
    connection.connect()
    taken = []
    try:
        for _ in range(count):
            start = time.perf_counter()
            answer = network.request(name, connection=connection)
            taken.append((time.perf_counter() - start) * 1e3)
            if answer.status != 200:
                raise SystemExit(f"{name} answered {answer.status}: {answer.body[:300]!r}")
    finally:
        connection.close()
    return taken


def measure(network: LocalNetwork, *, tenants: int) -> list[Figure]:
    """Deploy `tenants` apps, then call each for the first time."""
    names = [f"cold-{number}" for number in range(tenants)]
    for name in names:
        deploy(network, name)
    first, second = [], []
    for name in names:
        time.sleep(REFILL_S)
        one, two = first_requests_ms(network, name, 2)
        first.append(one)
        second.append(two)
    note = (
        f"{tenants} tenants, {min(first):.1f} to {max(first):.1f} ms; "
        f"second request {statistics.median(second):.1f} ms"
    )
    bound = ("<=", P50_BOUND_MS)
    return [Figure("cold start of hello, p50", statistics.median(first), "ms", bound, note)]
