"""Tables that nobody needs afterwards: in memory while small, in an LMDB of their own when not.

What a walk over a whole store has seen does not fit into memory in general. Nothing here is
durable, and a folder that a crash leaves behind is removed with the store's temporary files.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING

import lmdb

from lichen.content.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_ENTRIES_MAX = 1 << 19
MAP_BYTES = 1 << 36  # address space; the file is as large as what is in it
BATCH_ENTRIES = 4096


class ScratchTable:
    """A mapping of bytes to bytes, used by one thread at a time; raises DiskFullError."""

    def __init__(self, folder: str | None, memory_entries_max: int = MEMORY_ENTRIES_MAX) -> None:
        """Keep up to `memory_entries_max` in memory and the rest below `folder`."""
        self._folder = folder
        self._memory_entries_max = memory_entries_max
        self._memory: dict[bytes, bytes] = {}
        self._disk: _Disk | None = None

    def __len__(self) -> int:
        return len(self._memory) + (len(self._disk) if self._disk else 0)

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None."""
        found = self._memory.get(key)
        return self._disk.get(key) if found is None and self._disk is not None else found

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        if key in self._memory or len(self._memory) < self._memory_entries_max:
            if self._disk is not None and key not in self._memory:
                self._disk.pop(key)
            self._memory[key] = value
            return
        if self._disk is None:
            self._disk = _Disk(self._folder)
        self._disk.put(key, value)

    def drop(self, key: bytes) -> None:
        """Forget an entry, if there is one."""
        if self._memory.pop(key, None) is None and self._disk is not None:
            self._disk.pop(key)

    def pop_any(self) -> tuple[bytes, bytes] | None:
        """Take out some entry; None when there is none."""
        if self._memory:
            return self._memory.popitem()
        return None if self._disk is None else self._disk.pop_first()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all entries, those in memory in the order in which they came."""
        yield from self._memory.items()
        if self._disk is not None:
            yield from self._disk.items()

    def close(self) -> None:
        """Forget everything."""
        self._memory.clear()
        if self._disk is not None:
            self._disk.close()
            self._disk = None


class _Disk:
    """The part on disk: one transaction open at a time, committed now and then to bound it."""

    def __init__(self, folder: str | None) -> None:
        with disk_errors():
            self._path = tempfile.mkdtemp(prefix="scratch-", dir=folder)
            self._env = lmdb.open(
                self._path,
                map_size=MAP_BYTES,
                sync=False,
                metasync=False,
                lock=False,
                meminit=False,
                mode=0o600,
            )
        self._txn = self._env.begin(write=True)
        self._writes = 0

    def __len__(self) -> int:
        return int(self._txn.stat(self._env.open_db(None, txn=self._txn))["entries"])

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._txn.get(key)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        with disk_errors():
            self._txn.put(key, value)
            self._wrote()

    def pop(self, key: bytes) -> None:
        with disk_errors():
            if self._txn.delete(key):
                self._wrote()

    def pop_first(self) -> tuple[bytes, bytes] | None:
        with disk_errors():
            cursor = self._txn.cursor()
            if not cursor.first():
                return None
            key, value = cursor.item()
            cursor.delete()
            self._wrote()
            return key, value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._txn.cursor()

    def _wrote(self) -> None:
        self._writes += 1
        if self._writes % BATCH_ENTRIES == 0:
            self._txn.commit()
            self._txn = self._env.begin(write=True)

    def close(self) -> None:
        self._txn.abort()
        self._env.close()
        shutil.rmtree(self._path, ignore_errors=True)
