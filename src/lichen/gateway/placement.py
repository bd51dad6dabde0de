"""Which node runs a request: by tier, price, load and how it behaved. Pure; time is an argument.

Candidates are ranked once per function whenever the registry or a node's health changes, and each
request takes the first that is not busy. Every refusal has a reason, and reasons are counted.
"""

from __future__ import annotations

import collections
import hashlib
from typing import TYPE_CHECKING

import msgspec

from lichen.ledger.types import NodeStatus
from lichen.market.pricing import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lichen.gateway.routes import FunctionRoute
    from lichen.ledger.types import Node

TIER_ORDER = ("none", "wasm", "process", "gvisor", "microvm")
BUSY_IN_FLIGHT = 64
BACKOFF_MS_START = 200
BACKOFF_MS_MAX = 30_000
LATENCY_WEIGHT = 0.2
RESTING = "resting"


class Health:
    """How a node behaved lately. A failure rests it, doubling up to BACKOFF_MS_MAX.

    The requests in flight at a node that dies all fail together: they count as one failure.
    """

    __slots__ = ("failures", "in_flight", "latency_ms", "rest_until_ms", "successes")

    def __init__(self) -> None:
        self.failures = 0
        self.successes = 0
        self.in_flight = 0
        self.latency_ms = 0.0
        self.rest_until_ms = 0

    def succeeded(self, latency_ms: float) -> None:
        """Count a good answer and fold its latency into the average."""
        self.failures = 0
        self.successes += 1
        self.latency_ms += LATENCY_WEIGHT * (latency_ms - self.latency_ms)

    def failed(self, now_ms: int) -> None:
        """Rest the node; a failure after that rests it twice as long."""
        if now_ms < self.rest_until_ms:
            return
        rest_ms = min(BACKOFF_MS_START << min(self.failures, 16), BACKOFF_MS_MAX)
        self.failures += 1
        self.rest_until_ms = now_ms + rest_ms


class Refusal(msgspec.Struct, frozen=True):
    """Why a node was not considered: a stable code and a sentence with the figures."""

    code: str
    detail: str


class Ranking(msgspec.Struct, frozen=True):
    """The nodes that may run a function, best first, and why the others may not."""

    nodes: tuple[bytes, ...]
    refusals: dict[bytes, Refusal]

    def explain(self) -> str:
        """Summarise the refusals: `3 too dear, 1 without tier gvisor`."""
        if not self.refusals:
            return "no node is registered"
        counts = collections.Counter(refusal.detail for refusal in self.refusals.values())
        return ", ".join(f"{count} {detail}" for detail, count in counts.most_common())


def refuse(function: FunctionRoute, node: Node, health: Health, now_ms: int) -> Refusal | None:
    """Return why `node` may not run `function` now, or None."""
    spec = function.spec
    if node.status is not NodeStatus.ACTIVE:
        return Refusal("exiting", "leaving the network")
    best = max((TIER_ORDER.index(tier) for tier in node.tiers if tier in TIER_ORDER), default=-1)
    if spec.min_tier in TIER_ORDER and best < TIER_ORDER.index(spec.min_tier):
        return Refusal("tier", f"without tier {spec.min_tier}")
    if quote(node.prices, spec).typical > spec.max_price or node.prices.request > spec.max_price:
        return Refusal("price", f"too dear (over {spec.max_price})")
    if spec.memory_mb > node.capacity.memory_mb:
        return Refusal("memory", f"with less than {spec.memory_mb} MB of memory")
    if health.rest_until_ms > now_ms:
        return Refusal(RESTING, "not answering lately")
    return None


def rank(
    function: FunctionRoute, nodes: Iterable[Node], health: dict[bytes, Health], now_ms: int
) -> Ranking:
    """Order the nodes that may run `function`: cheaper class first, then the app's own order.

    Prices within a quarter octave count as equal, and among equals rendezvous hashing gives each
    app its own order, so that its code stays warm in one place and apps spread out.
    """
    refusals: dict[bytes, Refusal] = {}
    usable: list[tuple[int, bytes, bytes]] = []
    for node in nodes:
        key = bytes(node.address)
        refusal = refuse(function, node, health.setdefault(key, Health()), now_ms)
        if refusal is not None:
            refusals[key] = refusal
            continue
        price = quote(node.prices, function.spec).typical
        seat = hashlib.sha256(key + function.app.encode()).digest()
        usable.append((_price_class(price), seat, key))
    return Ranking(tuple(key for _, _, key in sorted(usable)), refusals)


def _price_class(price: int) -> int:
    """Return the quarter octave a price lies in: its bit length and the two bits below the top."""
    length = price.bit_length()
    return 4 * length + (price >> max(length - 3, 0) & 3)


def choose(
    nodes: Sequence[bytes], health: dict[bytes, Health], tried: Sequence[bytes] = ()
) -> bytes | None:
    """Take the first untried node that is not busy, else the least busy one, else None."""
    best, least = None, 1 << 62
    for key in nodes:
        if key in tried:
            continue
        load = health[key].in_flight
        if load < BUSY_IN_FLIGHT:
            return key
        if load < least:
            best, least = key, load
    return best
