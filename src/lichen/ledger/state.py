"""The state at one height, and a draft of the next one.

`State` is what has been written. A `Draft` lies over it while a block is worked out: every
transaction writes into a layer of its own, which is accepted or refused as a whole, and the state
tree is brought up to date once, over all keys that the block touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import libipld
import msgspec

from lichen.encoding import canonical, convert, from_canonical
from lichen.errors import CorruptionError, UserError
from lichen.identity import Address
from lichen.ledger.cache import Cache
from lichen.ledger.tables import ACCOUNTS, ALL, Table
from lichen.ledger.tree import Tree, Update, path_key
from lichen.ledger.types import Account, Genesis, Record, check_genesis, network_id
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lichen.ledger.store import Store, StoreSnapshot
    from lichen.ledger.tree import Proof

T = TypeVar("T")

RECORDS_CACHED_MAX = 100_000
_STATE = b"s/"
_TREE = b"t"
_HEAD = b"m/head"
GENESIS_KEY = b"m/genesis"
_NEW_ACCOUNT = Account(0, Amount(0))


class Head(Record, frozen=True):
    """Where the ledger stands: the last block and the state after it (height 0: the genesis)."""

    height: int
    hash: bytes
    time_ms: int
    state_root: bytes


class Movement(Record, frozen=True):
    """What one transaction did to one account's balance, for its history."""

    address: bytes
    change: int
    balance: int


class Changes(msgspec.Struct, frozen=True):
    """All that a block changes: entries for the store, and records for whoever keeps caches."""

    head: Head
    entries: dict[bytes, bytes | None]
    records: dict[bytes, tuple[Table[Any], Any]]
    tree: Update

    @property
    def keys(self) -> frozenset[bytes]:
        """The keys of the records that changed, such as `node/` and 20 bytes."""
        return frozenset(self.records)


class State:
    """The state that is written to `store`; reads only, until changes are adopted."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        """Start from `genesis` in an empty store, else go on; CorruptionError on a mismatch."""
        check_genesis(genesis)
        self.store = store
        self.genesis = genesis
        self.network = network_id(genesis)
        self._records: Cache[bytes, Any] = Cache(RECORDS_CACHED_MAX)
        written = store.get(GENESIS_KEY)
        if written is not None and written != canonical(genesis):
            raise CorruptionError(
                "the store belongs to another network",
                hint="give the genesis it was made with, or an empty folder",
            )
        self.tree = Tree(lambda key: store.get(_TREE + key))
        if written is None:
            self._found()
        self._load_head()

    def read(self, table: Table[T], key: bytes) -> T | None:
        """Return the record of `table` under `key` (without the prefix), or None."""
        full = table.prefix + key
        record: T | None = self._records.get(full)
        if record is None:
            data = self.store.get(_STATE + full)
            if data is None:
                return None
            record = _decode(data, table.kind)
            self._records.put(full, record)
        return record

    def scan(self, table: Table[T], prefix: bytes = b"", after: bytes | None = None) -> Iterator[T]:
        """Yield the records of `table` whose key starts with `prefix`, in the order of keys.

        With `after`, a whole key without the table's prefix, only those behind it.
        """
        start = None if after is None else _STATE + table.prefix + after
        for _, data in self.store.scan(_STATE + table.prefix + prefix, after=start):
            yield _decode(data, table.kind)

    def accounts(self) -> Iterator[tuple[Address, Account]]:
        """Yield every account by its address."""
        prefix = _STATE + ACCOUNTS.prefix
        for key, data in self.store.scan(prefix):
            yield Address(key[len(prefix) :]), _decode(data, Account)

    def prove(self, key: bytes) -> tuple[bytes | None, Proof]:
        """Return the bytes under a key, such as `account/` and 20 bytes (None: absent).

        With them comes the proof under `head.state_root`.
        """
        return self.store.get(_STATE + key), self.tree.prove(key)

    def draft(self, time_ms: int) -> Draft:
        """Begin the next block, at `time_ms`."""
        return Draft(self, time_ms)

    def adopt(self, changes: Changes) -> None:
        """Take over changes whose entries have been written to the store."""
        for key, (_, record) in changes.records.items():
            if record is None:
                self._records.drop(key)
            else:
                self._records.put(key, record)
        self.tree.adopt(changes.tree)
        self.head = changes.head
        self.store.refresh()

    def _found(self) -> None:
        """Write the genesis."""
        self.head = Head(0, self.network, self.genesis.time_ms, self.tree.root)
        draft = Draft(self, self.genesis.time_ms)
        for account in self.genesis.accounts:
            draft.write(ACCOUNTS, account.address, Account(0, account.balance))
        draft.accept()
        changes = draft.finish()
        changes.entries[GENESIS_KEY] = canonical(self.genesis)
        head = msgspec.structs.replace(changes.head, height=0, hash=self.network)
        changes.entries[_HEAD] = canonical(head)
        self.store.write(changes.entries)
        self.store.refresh()
        self.tree.adopt(changes.tree)

    def stored_head(self) -> Head:
        """Return the head as the store has it; CorruptionError when it is not readable."""
        try:
            return from_canonical(self.store.get(_HEAD) or b"", Head)
        except UserError as error:
            raise CorruptionError("the store has no readable head", hint="replay it") from error

    def _load_head(self) -> None:
        self.head = self.stored_head()
        if self.head.state_root != self.tree.root:
            raise CorruptionError("the state tree is not the head's", hint="replay the blocks")


class Draft:
    """The next block's state while it is worked out."""

    def __init__(self, state: State, time_ms: int) -> None:
        self.state = state
        self.genesis = state.genesis
        self.params = state.genesis.params
        self.network = state.network
        self.time_ms = time_ms
        self.height = state.head.height + 1
        self._changes: dict[bytes, tuple[Table[Any], Any]] = {}
        self._writes: dict[bytes, tuple[Table[Any], Any]] = {}

    def read(self, table: Table[T], key: bytes) -> T | None:
        """Return the record as the transactions so far have left it, or None."""
        full = table.prefix + key
        entry = self._writes.get(full) or self._changes.get(full)
        if entry is not None:
            record: T | None = entry[1]
            return record
        return self.state.read(table, key)

    def write(self, table: Table[T], key: bytes, record: T | None) -> None:
        """Put (None: remove) a record in the current transaction's layer."""
        self._writes[table.prefix + key] = (table, record)

    def account(self, address: Address) -> Account:
        """Return an account; one that never was is empty."""
        return self.read(ACCOUNTS, address) or _NEW_ACCOUNT

    def accept(self) -> tuple[Movement, ...]:
        """Keep what the current transaction wrote; return what moved on which account."""
        movements = tuple(
            self._movement(key, record)
            for key, (table, record) in self._writes.items()
            if table is ACCOUNTS
        )
        self._changes.update(self._writes)
        self._writes.clear()
        return movements

    def refuse(self) -> None:
        """Forget what the current transaction wrote."""
        self._writes.clear()

    def finish(self) -> Changes:
        """Work out the tree, and everything that has to be written.

        The head still lacks the block's hash: see `lichen.ledger.blocks.seal`.
        """
        entries: dict[bytes, bytes | None] = {}
        values: dict[bytes, bytes | None] = {}
        for key, (table, record) in self._changes.items():
            value = None if record is None else canonical(record)
            values[key] = entries[_STATE + key] = value
            if table.index is not None:
                self._index(entries, table, key, record)
        tree = self.state.tree.update(values)
        for path, node in tree.nodes.items():
            entries[_TREE + path_key(path)] = node or None
        entries[_TREE] = tree.top
        head = Head(self.height, b"", self.time_ms, tree.root)
        return Changes(head, entries, dict(self._changes), tree)

    def _index(
        self, entries: dict[bytes, bytes | None], table: Table[T], key: bytes, record: T | None
    ) -> None:
        if table.index is None:
            return
        if record is not None:
            entries.update(dict.fromkeys(table.index(record), b""))
            return
        before = self.state.read(table, key[len(table.prefix) :])
        if before is not None:
            entries.update(dict.fromkeys(table.index(before)))

    def _movement(self, key: bytes, account: Account) -> Movement:
        entry = self._changes.get(key)
        before = entry[1] if entry else self.state.read(ACCOUNTS, key[len(ACCOUNTS.prefix) :])
        change = account.balance - (before.balance if before else 0)
        return Movement(key[len(ACCOUNTS.prefix) :], change, account.balance)


def write_head(changes: Changes, block_hash: bytes) -> Changes:
    """Complete the changes with their block's hash."""
    head = msgspec.structs.replace(changes.head, hash=block_hash)
    changes.entries[_HEAD] = canonical(head)
    return msgspec.structs.replace(changes, head=head)


def entries_of(snapshot: StoreSnapshot) -> Iterator[tuple[bytes, bytes]]:
    """Yield the state's entries by their keys, such as `account/` and 20 bytes."""
    for key, value in snapshot.scan(_STATE):
        yield key[len(_STATE) :], value


def rebuilt(genesis: Genesis, head: Head, values: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what a store has to hold for a state of these entries alone, tree and indexes too.

    Raises CorruptionError when the entries do not make the head's state root, UserError when one is
    no record.
    """
    tree = Tree(lambda _: None).update(values)
    if tree.root != head.state_root:
        raise CorruptionError(
            "the entries make another state root", hint="fetch them from somebody else"
        )
    entries = {_STATE + key: value for key, value in values.items()}
    entries.update((_TREE + path_key(path), node) for path, node in tree.nodes.items() if node)
    for table in ALL:
        if table.index is not None:
            for key, value in values.items():
                if key.startswith(table.prefix):
                    entries.update(dict.fromkeys(table.index(_decode(value, table.kind)), b""))
    return {**entries, _TREE: tree.top, _HEAD: canonical(head), GENESIS_KEY: canonical(genesis)}


def _decode(data: bytes, kind: type[T]) -> T:
    """Read what this store was given in canonical form: no need to check that again."""
    return convert(libipld.decode_dag_cbor(data), kind)
