"""What happened to an account: one small entry for each transaction that moved its balance.

Derived from the blocks, not part of the state tree. The treasury's income from fees alone is left
out: every transaction pays one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.errors import UserError
from lichen.ledger.types import Record
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lichen.identity import Address
    from lichen.ledger.state import Movement
    from lichen.ledger.store import Store
    from lichen.ledger.types import Genesis

HISTORY_PAGE_MAX = 1000
_HISTORY = b"h/"
_ID = b"i/"


class Place(Record, frozen=True, order=True):
    """Where a transaction stands: block height, and index among the block's transactions."""

    height: int
    index: int


class HistoryEntry(Record, frozen=True):
    """A transaction that moved an account's balance, by `change` (signed), to `balance`."""

    place: Place
    address: Address
    change: int
    balance: Amount
    time_ms: int
    id: bytes


class _Value(msgspec.Struct, frozen=True, array_like=True):
    change: str  # decimal: amounts reach beyond 64 bits
    balance: str
    time_ms: int
    id: bytes


def history_entries(
    genesis: Genesis,
    height: int,
    time_ms: int,
    moved: Iterable[tuple[bytes, tuple[Movement, ...]]],
) -> dict[bytes, bytes | None]:
    """Return the store entries for a block's transactions, given as id and movements."""
    entries: dict[bytes, bytes | None] = {}
    treasury = bytes(genesis.params.treasury)
    fee = genesis.params.transaction_fee
    for index, (identity, movements) in enumerate(moved):
        place = _place_bytes(Place(height, index))
        if movements:
            entries[_ID + identity] = place
        for movement in movements:
            if movement.address == treasury and movement.change == fee:
                continue
            value = _Value(str(movement.change), str(movement.balance), time_ms, identity)
            entries[_HISTORY + movement.address + place] = msgspec.msgpack.encode(value)
    return entries


def find_transaction(store: Store, identity: bytes) -> Place | None:
    """Return where an accepted transaction stands, or None."""
    place = store.get(_ID + identity)
    return None if place is None else _place(place)


def history(
    store: Store, address: Address, limit: int, before: Place | None = None
) -> list[HistoryEntry]:
    """Return an account's last entries, newest first, at most `limit`, all before `before`.

    To page on, give the last entry's place as `before`.
    """
    if before is not None and not (0 <= before.height < 1 << 63 and 0 <= before.index < 1 << 31):
        raise UserError(
            "there is no such place in the ledger", hint="page on with an entry's place"
        )
    prefix = _HISTORY + address
    bound = prefix + (b"\xff" * 12 if before is None else _place_bytes(before))
    entries = store.scan(prefix, before=bound)
    return [
        _entry(address, key, value)
        for (key, value), _ in zip(entries, range(min(limit, HISTORY_PAGE_MAX)), strict=False)
    ]


def _entry(address: Address, key: bytes, data: bytes) -> HistoryEntry:
    value = msgspec.msgpack.decode(data, type=_Value)
    return HistoryEntry(
        place=_place(key[-12:]),
        address=address,
        change=int(value.change),
        balance=Amount(int(value.balance)),
        time_ms=value.time_ms,
        id=value.id,
    )


def _place(data: bytes) -> Place:
    return Place(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))


def _place_bytes(place: Place) -> bytes:
    return place.height.to_bytes(8, "big") + place.index.to_bytes(4, "big")
