"""Where the ledger's bytes are: an ordered map with atomic writes, in memory or in LMDB."""

from __future__ import annotations

import fcntl
import os
import threading
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any, Protocol, Self

import lmdb

from lichen.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STORE_BYTES_MAX = 1 << 36
LOCK_FILE = "ledger.lock"


class Store(Protocol):
    """An ordered map of bytes. Reads see the last write that was adopted by `refresh`."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None."""
        ...

    def scan(
        self, prefix: bytes, *, before: bytes | None = None, after: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries under `prefix`: upwards, past `after`; with `before` downwards."""
        ...

    def write(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Put (None: remove) all entries or none; returns when that is on disk."""
        ...

    def refresh(self) -> None:
        """Let reads see everything that has been written."""
        ...

    def snapshot(self) -> StoreSnapshot:
        """Return what has been written as it is now."""
        ...

    def close(self) -> None:
        """Let go of files and locks."""
        ...


class StoreSnapshot(Protocol):
    """A store as it was at one moment, for one other thread to read. Close it."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries under `prefix`, upwards."""
        ...

    def close(self) -> None:
        """Let go: the space of what has changed since can be used again."""
        ...


class MemoryStore:
    """A store for tests and for followers that keep nothing."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None."""
        return self._values.get(key)

    def scan(
        self, prefix: bytes, *, before: bytes | None = None, after: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries under `prefix`: upwards, past `after`; with `before` downwards."""
        low = bisect_left(self._keys, prefix)
        high = bisect_left(self._keys, _end_of(prefix))
        if before is not None:
            keys = self._keys[low : min(high, bisect_left(self._keys, before))][::-1]
        else:
            keys = self._keys[
                low if after is None else bisect_left(self._keys, after + b"\0") : high
            ]
        for key in keys:
            yield key, self._values[key]

    def write(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Put (None: remove) all entries."""
        for key, value in entries.items():
            if value is not None:
                if key not in self._values:
                    insort(self._keys, key)
                self._values[key] = value
            elif self._values.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    def refresh(self) -> None:
        """Do nothing: reads see writes at once."""

    def snapshot(self) -> MemoryStore:
        """Return a copy."""
        copy = MemoryStore()
        copy.write(self._values)
        return copy

    def close(self) -> None:
        """Do nothing."""


class LmdbSnapshot:
    """What one read transaction sees."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries under `prefix`, upwards."""
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(prefix)
            for key, value in cursor.iternext() if found else ():
                if not key.startswith(prefix):
                    return
                yield key, value

    def close(self) -> None:
        """Let go."""
        self._transaction.abort()


class LmdbStore:
    """A store in a folder that this process holds alone, read by the thread that opened it.

    One other thread, the writer, may read and write as well.

    `durable` writes are fsynced with their commit record. A follower, which can fetch its last
    blocks again, does without the latter: still never a torn state.
    """

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        """Open or create; MachineError when the folder is in use or cannot be written."""
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(home)
        except OSError as error:
            raise MachineError(
                f"the folder {home} cannot be used: {error.strerror}",
                hint="choose a folder that you may write to",
            ) from error
        try:
            self._env = lmdb.open(
                str(home / "data"), map_size=STORE_BYTES_MAX, metasync=durable, max_dbs=0
            )
        except lmdb.Error as error:
            os.close(self._lock)
            raise MachineError(
                f"the store in {home} cannot be opened: {error}",
                hint="look at the disk's space and rights",
            ) from error
        # One snapshot for the thread that owns the store, one for the thread that writes.
        self._owner = threading.get_ident()
        self._snapshots: list[Any] = [self._env.begin(), self._env.begin()]

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None."""
        value: bytes | None = self._snapshot().get(key)
        return value

    def scan(
        self, prefix: bytes, *, before: bytes | None = None, after: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries under `prefix`: upwards, past `after`; with `before` downwards."""
        with self._snapshot().cursor() as cursor:
            if before is not None:
                found = cursor.prev() if cursor.set_range(before) else cursor.last()
                entries = cursor.iterprev() if found else ()
            else:
                found = cursor.set_range(prefix if after is None else after + b"\0")
                entries = cursor.iternext() if found else ()
            for key, value in entries:
                if not key.startswith(prefix):
                    return
                yield key, value

    def write(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Put (None: remove) all entries or none; returns when that is on disk."""
        try:
            with self._env.begin(write=True) as txn:
                for key in sorted(entries):
                    value = entries[key]
                    if value is None:
                        txn.delete(key)
                    else:
                        txn.put(key, value)
        except lmdb.Error as error:
            raise MachineError(
                f"the ledger's store could not be written: {error}",
                hint="free some space on the disk and start again; nothing acknowledged is lost",
            ) from error

    def refresh(self) -> None:
        """Let reads see everything that has been written. No write may be under way."""
        for snapshot in self._snapshots:
            snapshot.abort()
        self._snapshots = [self._env.begin(), self._env.begin()]

    def snapshot(self) -> LmdbSnapshot:
        """Return what has been written as it is now; close it before this store."""
        return LmdbSnapshot(self._env.begin())

    def close(self) -> None:
        """Let go of files and locks."""
        for snapshot in self._snapshots:
            snapshot.abort()
        self._env.close()
        os.close(self._lock)

    def _snapshot(self) -> Any:
        return self._snapshots[threading.get_ident() != self._owner]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hold(home: Path) -> int:
    lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise MachineError(
            f"another process is using {home}",
            hint="stop it first, or choose another folder",
        ) from error
    return lock


def _end_of(prefix: bytes) -> bytes:
    """Return the first key behind all that start with `prefix` (which never ends in 0xff)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
