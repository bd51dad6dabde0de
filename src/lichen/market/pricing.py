"""From a meter to an amount, and what a run may cost before it starts. Integers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.units import Amount

if TYPE_CHECKING:
    from lichen.ledger.types import FunctionSpec, Prices

US_PER_S = 10**6
MB_MS_PER_GIB_S = 1024 * 1000
BYTES_PER_GIB = 2**30


class Meter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one run used.

    `cpu_us` CPU microseconds, `memory_mb_ms` megabyte-milliseconds of resident memory,
    `egress_bytes` payload bytes sent to the caller, `wall_us` microseconds from admission to the
    last byte, `fuel` instructions of an exact engine (absent elsewhere).
    """

    cpu_us: int
    memory_mb_ms: int
    egress_bytes: int
    wall_us: int
    fuel: int | None = None


class Quote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run costs at a node: `typical` for a small answer, `ceiling` at the very most."""

    typical: Amount
    ceiling: Amount


def charge(prices: Prices, cpu_us: int, memory_mb_ms: int, egress_bytes: int, ceiling: int) -> int:
    """Return the amount for one run, each part rounded up, never above `ceiling`."""
    amount = (
        prices.request
        - (-cpu_us * prices.cpu_s // US_PER_S)
        - (-memory_mb_ms * prices.memory_gib_s // MB_MS_PER_GIB_S)
        - (-egress_bytes * prices.egress_gib // BYTES_PER_GIB)
    )
    return min(amount, ceiling)


def quote(prices: Prices, function: FunctionSpec) -> Quote:
    """Price a run of `function` before it starts.

    The ceiling assumes that the run keeps one core and all its memory busy until its timeout,
    and is cut at the function's `max_price`; egress beyond that is on the node.
    """
    worst = charge(
        prices,
        cpu_us=function.timeout_ms * 1000,
        memory_mb_ms=function.timeout_ms * function.memory_mb,
        egress_bytes=0,
        ceiling=function.max_price,
    )
    typical = charge(
        prices, cpu_us=1_000, memory_mb_ms=50, egress_bytes=10_000, ceiling=function.max_price
    )
    return Quote(Amount(typical), Amount(worst))
