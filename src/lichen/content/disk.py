"""What disks do wrong, told in our errors; and the one process that may write a store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
from typing import TYPE_CHECKING

import lmdb

from lichen.errors import LimitError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = tuple(os.strerror(code) for code in _FULL)
FULL_HINT = "free disk space, remove content nobody needs, or raise the store's capacity"


class DiskFullError(MachineError):
    """There is no room: the disk, a quota or the store's capacity is used up; nothing was added."""

    code = "disk-full"
    status = 507


class QuotaError(LimitError):
    """An account's pins would weigh more than it may keep here."""

    code = "quota-exceeded"


class StoreBusyError(MachineError):
    """Another process has the store open."""

    code = "store-busy"
    status = 503


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what a full disk raises, in files or in LMDB, into DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise MachineError(
                f"the content store's disk failed: {error}", hint="check the folder and the disk"
            ) from error
        raise DiskFullError(f"no room to store this: {error.strerror}", hint=FULL_HINT) from error
    except lmdb.MapFullError as error:
        raise DiskFullError("the store's index is full", hint=FULL_HINT) from error
    except lmdb.Error as error:
        if not any(text in str(error) for text in _FULL_TEXTS):
            raise MachineError(
                f"the store's index failed: {error}", hint="restart, and check the disk's health"
            ) from error
        raise DiskFullError(f"no room to store this: {error}", hint=FULL_HINT) from error


def has_room(path: str, size: int) -> bool:
    """Tell whether a file could grow by `size`, as far as the disk and this process's limits go."""
    found = os.statvfs(path)
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    fits_limit = limit == resource.RLIM_INFINITY or os.stat(path).st_size + size <= limit
    return fits_limit and found.f_bavail * found.f_frsize >= size


def free_bytes(path: str) -> int:
    """Return what the disk of a folder has room for."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def lock_folder(home: str) -> int:
    """Take the folder's lock for this process; raise StoreBusyError. Closing the fd releases it."""
    fd = os.open(os.path.join(home, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreBusyError(
            f"the content store in {home} is open in another process",
            hint="stop that process, or talk to it over HTTP",
        ) from error
    return fd


def fsync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
