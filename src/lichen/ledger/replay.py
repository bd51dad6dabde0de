"""Replaying blocks from the genesis: the test that a ledger's data is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.encoding import from_canonical
from lichen.errors import CorruptionError, MachineError
from lichen.ledger.machine import apply_block
from lichen.ledger.state import GENESIS_KEY, State
from lichen.ledger.store import LmdbStore, MemoryStore
from lichen.ledger.types import Genesis
from lichen.ledger.views import View

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.ledger.store import Store


def replay(store: Store, genesis: Genesis, *, check_signatures: bool = True) -> State:
    """Apply every stored block to a fresh state in memory; return that state.

    Its head equals the stored one, or the data is damaged (CorruptionError).
    """
    source = View(State(store, genesis))
    fresh = State(MemoryStore(), genesis)
    height = 0
    while block := source.block(height := height + 1):
        applied = apply_block(fresh, block, check_signatures=check_signatures)
        fresh.store.write(applied.changes.entries)
        fresh.adopt(applied.changes)
    return fresh


def replay_home(home: Path) -> State:
    """Replay a folder's blocks and compare the outcome with its head; CorruptionError if not equal.

    The folder must not be in use.
    """
    store = LmdbStore(home)
    try:
        genesis = stored_genesis(store, home)
        head = State(store, genesis).head
        fresh = replay(store, genesis)
    finally:
        store.close()
    if fresh.head != head:
        raise CorruptionError(
            f"replaying {home} ends at another state", hint="restore it from a copy"
        )
    return fresh


def stored_genesis(store: Store, home: Path) -> Genesis:
    """Return the genesis that a folder was made with; MachineError when there is none."""
    written = store.get(GENESIS_KEY)
    if written is None:
        raise MachineError(f"there is no ledger in {home}", hint="make one: lichen ledger init")
    return from_canonical(written, Genesis)
