"""Who keeps what: pins of the store itself, and pins and leases of accounts, with what they weigh.

Tables: `pins` by CIDv1: whether the store itself pins, and how many accounts do (an empty value is
the store's own pin, as stores wrote it before accounts had pins). `owned` by account and CIDv1: a
`Pin`. `accounts`: the bytes of all pins of each. `leases` by time, account and CIDv1: what ends.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from lichen.content.cid import CID
from lichen.content.disk import QuotaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

TABLES = (b"pins", b"owned", b"accounts", b"leases")
ACCOUNT_BYTES = 20
_KEPT = struct.Struct(">BI")
_PIN = struct.Struct(">QQQ")
_U64 = struct.Struct(">Q")
_OWN = _KEPT.pack(1, 0)


class Pin(msgspec.Struct, frozen=True):
    """An account's pin: the bytes it weighs, when it was made, and when it ends (0: never)."""

    cid: CID
    bytes: int
    added_ms: int
    expires_ms: int = 0


class AccountPins(msgspec.Struct, frozen=True):
    """Pins to make for an account, of which all together may weigh `bytes_max`."""

    account: bytes
    pins: tuple[Pin, ...]
    bytes_max: int | None = None


class PinTables:
    """The open tables, read in transactions of the caller's."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.pins, self.owned, self.accounts, self.leases = (env.open_db(name) for name in TABLES)

    def page(self, txn: lmdb.Transaction, after: bytes, limit: int) -> list[bytes]:
        """Return up to `limit` pinned CIDs (binary CIDv1) behind `after`."""
        found: list[bytes] = []
        for key, _ in _behind(txn.cursor(db=self.pins), after):
            found.append(bytes(key))
            if len(found) == limit:
                break
        return found

    def is_pinned(self, txn: lmdb.Transaction, cid: CID) -> bool:
        """Tell whether the store or any account pins this very CID."""
        return txn.get(cid.as_v1().encode(), db=self.pins) is not None

    def pin_of(self, txn: lmdb.Transaction, account: bytes, cid: CID) -> Pin | None:
        """Return an account's pin, or None."""
        value = txn.get(account + cid.as_v1().encode(), db=self.owned)
        return None if value is None else _pin(cid.as_v1(), value)

    def pins_of(
        self, txn: lmdb.Transaction, account: bytes, after: CID | None, limit: int
    ) -> list[Pin]:
        """Return up to `limit` pins of an account, in the order of their binary CIDs."""
        start = account + (after.as_v1().encode() if after else b"")
        found: list[Pin] = []
        for key, value in _behind(txn.cursor(db=self.owned), start):
            if not key.startswith(account) or len(found) == limit:
                break
            found.append(_pin(CID.decode(key[ACCOUNT_BYTES:]), value))
        return found

    def bytes_of(self, txn: lmdb.Transaction, account: bytes) -> int:
        """Return what an account's pins weigh together."""
        value = txn.get(account, db=self.accounts)
        return 0 if value is None else int(_U64.unpack(value)[0])

    def expired(self, txn: lmdb.Transaction, now_ms: int, limit: int) -> list[tuple[bytes, CID]]:
        """Return up to `limit` leases that have ended."""
        found: list[tuple[bytes, CID]] = []
        for key, _ in txn.cursor(db=self.leases):
            if _U64.unpack_from(key)[0] > now_ms or len(found) == limit:
                break
            account, cid = key[_U64.size :][:ACCOUNT_BYTES], key[_U64.size + ACCOUNT_BYTES :]
            found.append((bytes(account), CID.decode(cid)))
        return found


class PinWriter:
    """Changes to pins in one transaction."""

    def __init__(self, txn: lmdb.Transaction, tables: PinTables) -> None:
        self._txn = txn
        self._tables = tables

    def put(self, cid: CID) -> None:
        """Pin on the store's own account."""
        _, accounts = self._kept(cid)
        self._keep(cid, own=True, accounts=accounts)

    def drop(self, cid: CID) -> bool:
        """Let go of the store's own pin; tell whether there was one."""
        own, accounts = self._kept(cid)
        self._keep(cid, own=False, accounts=accounts)
        return own

    def put_of(self, account: bytes, pin: Pin, bytes_max: int | None = None) -> None:
        """Pin for an account, in place of its pin of the same CID; raise QuotaError."""
        own, accounts = self._kept(pin.cid)
        if self._forget(account, pin.cid) is None:
            self._keep(pin.cid, own=own, accounts=accounts + 1)
        kept = self._tables.bytes_of(self._txn, account)
        if bytes_max is not None and kept + pin.bytes > bytes_max:
            raise over_quota(kept + pin.bytes, bytes_max)
        key = account + pin.cid.as_v1().encode()
        value = _PIN.pack(pin.bytes, pin.added_ms, pin.expires_ms)
        self._txn.put(key, value, db=self._tables.owned)
        if pin.expires_ms:
            self._txn.put(_U64.pack(pin.expires_ms) + key, b"", db=self._tables.leases)
        self._weigh(account, pin.bytes)

    def drop_of(self, account: bytes, cid: CID) -> bool:
        """Let go of an account's pin; tell whether there was one."""
        if self._forget(account, cid) is None:
            return False
        own, accounts = self._kept(cid)
        self._keep(cid, own=own, accounts=accounts - 1)
        return True

    def drop_expired_of(self, account: bytes, cid: CID, now_ms: int) -> None:
        """Let go of a lease, unless it was prolonged meanwhile."""
        pin = self._tables.pin_of(self._txn, account, cid)
        if pin is not None and 0 < pin.expires_ms <= now_ms:
            self.drop_of(account, cid)

    def _forget(self, account: bytes, cid: CID) -> Pin | None:
        key = account + cid.as_v1().encode()
        value = self._txn.pop(key, db=self._tables.owned)
        if value is None:
            return None
        pin = _pin(cid, value)
        if pin.expires_ms:
            self._txn.delete(_U64.pack(pin.expires_ms) + key, db=self._tables.leases)
        self._weigh(account, -pin.bytes)
        return pin

    def _kept(self, cid: CID) -> tuple[bool, int]:
        value = self._txn.get(cid.as_v1().encode(), db=self._tables.pins)
        if value is None:
            return False, 0
        own, accounts = _KEPT.unpack(value or _OWN)
        return bool(own), accounts

    def _keep(self, cid: CID, *, own: bool, accounts: int) -> None:
        key = cid.as_v1().encode()
        if own or accounts:
            self._txn.put(key, _KEPT.pack(own, accounts), db=self._tables.pins)
        else:
            self._txn.delete(key, db=self._tables.pins)

    def _weigh(self, account: bytes, delta: int) -> None:
        total = max(0, self._tables.bytes_of(self._txn, account) + delta)
        if total:
            self._txn.put(account, _U64.pack(total), db=self._tables.accounts)
        else:
            self._txn.delete(account, db=self._tables.accounts)


def over_quota(need_bytes: int, bytes_max: int) -> QuotaError:
    """Return the error for pins that would weigh too much together."""
    return QuotaError(
        f"your pins would weigh {need_bytes:,} bytes, this gateway keeps {bytes_max:,} for you",
        hint="let go of some: lichen storage ls, then lichen storage rm CID",
    )


def _pin(cid: CID, value: bytes | memoryview) -> Pin:
    size, added_ms, expires_ms = _PIN.unpack(value)
    return Pin(cid, size, added_ms, expires_ms)


def _behind(cursor: lmdb.Cursor, after: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries whose keys are greater than `after`."""
    if not cursor.set_range(after):
        return
    for key, value in cursor.iternext():
        if bytes(key) != after:
            yield bytes(key), bytes(value)
