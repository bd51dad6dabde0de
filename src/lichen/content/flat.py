"""Flat files: a file's content as it is, named by its root CID, ready for sendfile."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from lichen.content.cid import CID
from lichen.content.disk import fsync_folder
from lichen.content.spool import write_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

OPEN_FILES_MAX = 512
FOLDER_LETTERS = 2


class _Descriptor:
    """An open file; closed when the cache and every transfer have let go of it."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        fd = getattr(self, "fd", -1)
        if fd >= 0:
            os.close(fd)


class FlatFile:
    """A run of an open file: send `size` bytes of `fd` from `offset`.

    The descriptor stays open, and the bytes readable, as long as this object lives, whatever is
    evicted or removed meanwhile. Never close it or move its position: it is shared; use `pread`
    or `sendfile` with an offset.
    """

    __slots__ = ("_descriptor", "fd", "offset", "size")

    def __init__(self, descriptor: _Descriptor, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self.fd = descriptor.fd
        self.offset = offset
        self.size = size

    def pread(self, length: int, offset: int = 0) -> bytes:
        """Return up to `length` bytes from `offset` within the run."""
        length = max(0, min(length, self.size - offset))
        return os.pread(self.fd, length, self.offset + offset)

    def run(self, offset: int, size: int) -> FlatFile:
        """Return a part of this."""
        return FlatFile(self._descriptor, self.offset + offset, size)


class FlatFiles:
    """The folder of flat files, and a bounded cache of open ones; safe from any thread."""

    def __init__(self, folder: str, open_files_max: int = OPEN_FILES_MAX) -> None:
        self._folder = folder
        self._open_files_max = open_files_max
        self._open: OrderedDict[bytes, FlatFile] = OrderedDict()
        self._lock = threading.Lock()
        os.makedirs(folder, exist_ok=True)

    def cached(self, file: bytes) -> FlatFile | None:
        """Return a flat file if it is open."""
        with self._lock:
            flat = self._open.get(file)
            if flat is not None:
                self._open.move_to_end(file)
            return flat

    def open(self, file: bytes) -> FlatFile | None:
        """Return the flat file of that root (binary CIDv1), or None when there is none."""
        flat = self.cached(file)
        if flat is not None:
            return flat
        try:
            descriptor = _Descriptor(self.path(file))
        except FileNotFoundError:
            return None
        flat = FlatFile(descriptor, 0, os.fstat(descriptor.fd).st_size)
        with self._lock:
            self._open[file] = flat
            while len(self._open) > self._open_files_max:
                self._open.popitem(last=False)
        return flat

    def path(self, file: bytes) -> str:
        """Return where the flat file of that root is."""
        name = str(CID.decode(file))
        return os.path.join(self._folder, name[-FOLDER_LETTERS:], name)

    def place(self, temporary: str, file: bytes) -> None:
        """Give a written and synced temporary file its name; durable after `sync_names`."""
        path = self.path(file)
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            fsync_folder(self._folder)
        os.rename(temporary, path)

    def sync_names(self, files: Iterable[bytes]) -> None:
        """Make the names of these files durable."""
        for folder in {os.path.dirname(self.path(file)) for file in files}:
            fsync_folder(folder)

    def remove(self, file: bytes) -> None:
        """Delete a flat file; transfers that have it open finish."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._let_go(file))

    def bury(self, file: bytes, folder: str) -> str | None:
        """Take a flat file away under a temporary name, quickly; deleting it may take its time."""
        grave = tempfile.mktemp(prefix="gone-", dir=folder)  # noqa: S306 - the folder is ours alone
        try:
            os.rename(self._let_go(file), grave)
        except FileNotFoundError:
            return None
        return grave

    def _let_go(self, file: bytes) -> str:
        with self._lock:
            self._open.pop(file, None)
        return self.path(file)

    def collect_leftovers(self, known: set[bytes]) -> int:
        """Delete files that no index entry names (a crash came before the commit)."""
        names = {str(CID.decode(file)) for file in known}
        leftovers = [
            os.path.join(folder, name)
            for folder, _, found in os.walk(self._folder)
            for name in found
            if name not in names
        ]
        for path in leftovers:
            os.unlink(path)
        return len(leftovers)

    def close(self) -> None:
        """Let go of all open files."""
        with self._lock:
            self._open.clear()


class FlatWriter:
    """A flat file being written: under a temporary name until it is placed."""

    def __init__(self, folder: str) -> None:
        self.fd, self.path = tempfile.mkstemp(prefix="flat-", dir=folder)
        self.size = 0

    def append(self, data: bytes | memoryview) -> int:
        """Write at the end; return the offset it is at."""
        offset = self.size
        write_all(self.fd, data)
        self.size += len(data)
        return offset

    def read(self, offset: int, length: int) -> bytes:
        """Return what was written there."""
        return os.pread(self.fd, length, offset)

    def sync(self) -> None:
        """Begin to make the content durable while more of it is written."""
        os.fdatasync(self.fd)

    def finish_after(self, syncs: list[Future[None]]) -> None:
        """Make the content durable and close the file; raise what an earlier sync raised."""
        try:
            for sync in syncs:
                sync.result()
            os.fchmod(self.fd, 0o400)
            os.fsync(self.fd)
        finally:
            self._close()

    def discard_after(self, syncs: list[Future[None]]) -> None:
        """Delete the file, unless it was placed."""
        for sync in syncs:
            sync.exception()
        self._close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
