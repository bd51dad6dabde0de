"""The IPNS records that are kept here: one for each name, the newest that ever came.

A small LMDB of its own. Only verified records enter, and an older one never replaces a newer one.
There is room for so many names and bytes; when it is used up, the names that nobody has asked for
the longest go first, those whose keys are here (`own`) never.
"""

from __future__ import annotations

import asyncio
import collections
import os
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import lmdb
import msgspec

from lichen.content.disk import disk_errors
from lichen.content.ipns import Name, Record, verify_record, verify_signature
from lichen.wire.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES_MAX: Final = 50_000
BYTES_MAX: Final = 128 * 2**20
PUBLISHING_MAX: Final = 64
_MAP_BYTES: Final = 4 * BYTES_MAX  # address space: pages are not filled to their ends
_ENTRY_BYTES: Final = 128  # what an entry takes besides its record
_EOL = struct.Struct(">QQ")  # nanoseconds up to the year 9999 need 69 bits


class Version(msgspec.Struct, frozen=True):
    """Which record of a name is kept; the identity of this object changes with the record."""

    sequence: int
    eol_ns: int
    size: int


class NameStore:
    """Records by name, for any thread.

    `get` and `version` are quick enough for an event loop; `put` checks a signature and waits for
    the disk: an event loop awaits `publish` instead.
    """

    def __init__(
        self,
        path: str,
        *,
        own: frozenset[Name] = frozenset(),
        now_ns: Callable[[], int] = time.time_ns,
        names_max: int = NAMES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """Open or create the store in a folder of its own; one process at a time."""
        self._now_ns = now_ns
        self._own = frozenset(name.multihash for name in own)
        self._names_max = names_max
        self._bytes_max = bytes_max
        self._writing = threading.Lock()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="names")
        self._waiting = 0
        self._looking = threading.Lock()
        self._versions: collections.OrderedDict[bytes, Version] = collections.OrderedDict()
        self._bytes = 0
        self.changes = 0  # grows with every record that is kept or goes
        os.makedirs(path, mode=0o700, exist_ok=True)
        with disk_errors():
            self._env = lmdb.open(path, map_size=_MAP_BYTES, mode=0o600)
            with self._env.begin() as txn:
                for key, value in txn.cursor():
                    self._remember(bytes(key), _version_of(bytes(value)))

    def close(self) -> None:
        """Close the files; nothing may be asked afterwards."""
        self._writer.shutdown()
        self._env.close()

    def __len__(self) -> int:
        return len(self._versions)

    def version(self, name: Name) -> Version | None:
        """Return which record is kept, without reading it."""
        return self._versions.get(name.multihash)

    def get(self, name: Name) -> bytes | None:
        """Return a name's record as it came; None when there is none, or its time is over."""
        version = self._versions.get(name.multihash)
        if version is None or version.eol_ns <= self._now_ns():
            return None
        with self._looking:
            if name.multihash in self._versions:
                self._versions.move_to_end(name.multihash)
        return self._read(name)

    def last(self, name: Name) -> Record | None:
        """Return the newest record that came, though its time may be over."""
        encoded = self._read(name)
        return None if encoded is None else verify_signature(name, encoded)

    def put(self, name: Name, encoded: bytes, now_ns: int) -> bool:
        """Keep a record, on disk when this returns; tell whether it counts now.

        False when a newer one is here already. Raises InvalidRecordError (ExpiredRecordError) for
        what is no record of this name, DiskFullError and MachineError.
        """
        record = verify_record(name, encoded, now_ns)
        with self._writing:
            before = self._versions.get(name.multihash)
            found = Version(record.sequence, record.eol_ns, len(encoded))
            if before is not None and _order(before) >= _order(found):
                return _order(before) == _order(found) and self._read(name) == encoded
            leaving = self._leaving(name.multihash, found)
            with disk_errors(), self._env.begin(write=True) as txn:
                for key in leaving:
                    txn.delete(key)
                txn.put(name.multihash, _spell(found) + encoded)
            with self._looking:
                for key in leaving:
                    self._forget(key)
                self._forget(name.multihash)
                self._remember(name.multihash, found)
                self.changes += 1
        return True

    async def publish(self, name: Name, encoded: bytes, now_ns: int) -> bool:
        """Do what `put` does, by the one thread that writes; raise BusyError when many wait for it.

        Anybody may publish, so nobody else's threads are to wait with them.
        """
        if self._waiting >= PUBLISHING_MAX:
            raise BusyError(f"{PUBLISHING_MAX} records are being stored", hint="try again shortly")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._writer, self.put, name, encoded, now_ns)
        finally:
            self._waiting -= 1

    def _leaving(self, key: bytes, found: Version) -> list[bytes]:
        """Choose the names that have to go so that a record fits."""
        names, size = len(self._versions) + 1, self._bytes + found.size + _ENTRY_BYTES
        leaving = []
        with self._looking:
            for other, version in self._versions.items():
                if names <= self._names_max and size <= self._bytes_max:
                    break
                if other != key and other not in self._own:
                    leaving.append(other)
                    names -= 1
                    size -= version.size + _ENTRY_BYTES
        return leaving

    def _remember(self, key: bytes, version: Version) -> None:
        self._versions[key] = version
        self._bytes += version.size + _ENTRY_BYTES

    def _forget(self, key: bytes) -> None:
        version = self._versions.pop(key, None)
        if version is not None:
            self._bytes -= version.size + _ENTRY_BYTES

    def _read(self, name: Name) -> bytes | None:
        with disk_errors(), self._env.begin() as txn:
            value = txn.get(name.multihash)
        return None if value is None else bytes(value)[8 + _EOL.size :]


def _order(version: Version) -> tuple[int, int]:
    return version.sequence, version.eol_ns


def _spell(version: Version) -> bytes:
    return version.sequence.to_bytes(8, "big") + _EOL.pack(*divmod(version.eol_ns, 1 << 64))


def _version_of(value: bytes) -> Version:
    high, low = _EOL.unpack_from(value, 8)
    return Version(int.from_bytes(value[:8], "big"), (high << 64) + low, len(value) - 8 - _EOL.size)
