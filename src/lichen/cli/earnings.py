"""What a node has earned, read from its account's history on the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.identity import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.gateway.api.views import HistoryEntry
    from lichen.sdk.client import Client

DAY_MS = 86_400_000
PAYING_KINDS = frozenset({"redeem-vouchers", "settle-epoch"})
PAGES_MAX = 1000


class Earned(msgspec.Struct, frozen=True):
    """What vouchers brought a node, in 10^-18 FLK less its own fees, and how many receipts."""

    node: Address
    day: int
    week: int
    total: int
    receipts: int
    epochs: int


def earned_by(client: Client, node: Address) -> Earned:
    """Add up a node's history."""
    now_ms = client.status().time_ms
    day = week = total = 0
    for entry in _history(client, node):
        if entry.kind in PAYING_KINDS:
            change, age_ms = int(entry.change), now_ms - entry.time_ms
            total += change
            week += change if age_ms <= 7 * DAY_MS else 0
            day += change if age_ms <= DAY_MS else 0
    batches = list(client.epochs(node))
    epochs = len({batch.epoch for batch in batches})
    return Earned(node, day, week, total, sum(batch.receipts for batch in batches), epochs)


def _history(client: Client, node: Address) -> Iterator[HistoryEntry]:
    cursor = ""
    for _ in range(PAGES_MAX):
        page = client.history(node, cursor=cursor)
        yield from page.items
        if page.cursor is None:
            return
        cursor = page.cursor
