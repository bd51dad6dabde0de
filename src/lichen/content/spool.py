"""Bytes set aside until they are committed: in memory while few, in an unnamed file when many."""

from __future__ import annotations

import os
import tempfile

MEMORY_BYTES_MAX = 1 << 20


class Spool:
    """An append-only run of bytes that vanishes when closed or when the process dies."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._memory = bytearray()
        self._fd: int | None = None
        self.size = 0

    def append(self, data: bytes) -> int:
        """Keep `data`; return the offset to read it from."""
        offset = self.size
        if self._fd is None and offset + len(data) > MEMORY_BYTES_MAX:
            self._move_to_file()
        if self._fd is None:
            self._memory += data
        else:
            write_all(self._fd, data)
        self.size += len(data)
        return offset

    def read(self, offset: int, length: int) -> bytes:
        """Return what was appended there."""
        if self._fd is None:
            return bytes(self._memory[offset : offset + length])
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Forget everything."""
        self._memory = bytearray()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _move_to_file(self) -> None:
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
            self._fd = os.dup(file.fileno())
        write_all(self._fd, self._memory)
        self._memory = bytearray()


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` at the file's position."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])
