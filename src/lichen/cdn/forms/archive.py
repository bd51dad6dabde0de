"""UnixFS as TAR: a file, symlink or directory with all below it, streamed in bounded memory.

The same content makes the same bytes: entries in the order of their directory, times and modes as
UnixFS has them, or the same for all. Content is hostile: no name leaves the archive's root, none
leads through a symlink of it, and what is too much is refused, before the first byte where the
first entries show it.
"""

from __future__ import annotations

import hashlib
import itertools
import posixpath
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.cdn.formats import NotAcceptableError
from lichen.cdn.forms import ustar
from lichen.cdn.forms.ustar import Member
from lichen.content import (
    DAG_PB,
    RAW,
    Blocks,
    DirectoryEntry,
    Entry,
    list_directory,
    read_file,
    stat,
)
from lichen.errors import LimitError, UserError

if TYPE_CHECKING:
    from lichen.content import CID

ENTRIES_MAX: Final = 1 << 20
BYTES_MAX: Final = 1 << 40
PATH_BYTES_MAX: Final = 4096
DEPTH_MAX: Final = 256
OPEN_BYTES_MAX: Final = 8 << 20  # of the directories' blocks that are being read, one in another
SYMLINKS_MAX: Final = 100_000
SURVEYED_ENTRIES: Final = 200  # looked at before the first byte is sent
PERMISSIONS: Final = 0o777  # nothing that an archive of anybody holds runs as somebody else
_MODES: Final = {
    ustar.Kind.FILE: 0o644,
    ustar.Kind.DIRECTORY: 0o755,
    ustar.Kind.SYMLINK: 0o777,
}
_HINT: Final = "fetch its parts, or a CAR of it"


class Archive(msgspec.Struct, frozen=True):
    """An archive to be sent; its length is known where it has few entries."""

    pieces: Iterator[bytes | memoryview]
    length: int | None = None


def archive(blocks: Blocks, cid: CID) -> Archive:
    """Return the archive of UnixFS content, in which all stands below a name that is its CID.

    What its first entries show to be impossible is raised here: NotAcceptableError for content that
    is not UnixFS, UserError for a name that leaves the root, LimitError, MissingBlockError.
    Otherwise the pieces raise it when they are read.
    """
    if cid.codec not in (DAG_PB, RAW):
        raise NotAcceptableError(f"{cid} is not UnixFS", hint="a TAR holds files and directories")
    members = _Walk(blocks, cid).members()
    first = list(itertools.islice(members, SURVEYED_ENTRIES + 1))
    length = None
    if len(first) <= SURVEYED_ENTRIES:
        length = sum(_bytes_of(member) for _, member in first) + len(ustar.END)
    return Archive(_pieces(blocks, itertools.chain(first, members)), length)


def _bytes_of(member: Member) -> int:
    return len(ustar.header(member)) + member.size + len(ustar.padding(member.size))


def _pieces(blocks: Blocks, members: Iterator[tuple[CID, Member]]) -> Iterator[bytes | memoryview]:
    for cid, member in members:
        yield ustar.header(member)
        if member.size:
            left = member.size
            for piece in read_file(blocks, cid):
                left -= len(piece)
                yield piece
            if left:
                raise UserError(f"{cid} has not the {member.size} bytes it claims")
            yield ustar.padding(member.size)
    yield ustar.END


class _Measured:
    """Blocks, and how many bytes the last one had."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.last_bytes = 0

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block."""
        block = self._blocks.get_block(cid)
        self.last_bytes = len(block or b"")
        return block


class _Open(msgspec.Struct, frozen=True):
    """A directory whose entries are being read."""

    path: str
    entries: Iterator[DirectoryEntry]
    block_bytes: int


class _Walk:
    """Goes through a tree, depth first; keeps the path to where it is, and where symlinks stand."""

    def __init__(self, blocks: Blocks, root: CID) -> None:
        self._blocks = _Measured(blocks)
        self._root = root
        self._name = str(root)
        self._symlinks: set[bytes] = set()
        self._open: list[_Open] = []
        self._entries = 0
        self._bytes = 0

    def members(self) -> Iterator[tuple[CID, Member]]:
        """Yield each member and the CID of its content."""
        yield self._root, self._visit(self._name, self._root)
        while self._open:
            here = self._open[-1]
            entry = next(here.entries, None)
            if entry is None:
                self._open.pop()
                continue
            yield entry.cid, self._visit(self._path(here.path, entry.name), entry.cid)

    def _visit(self, path: str, cid: CID) -> Member:
        entry = stat(self._blocks, cid)
        member = _member(path, entry)
        self._entries += 1
        self._bytes += member.size
        if self._entries > ENTRIES_MAX or self._bytes > BYTES_MAX:
            raise LimitError(
                f"a TAR has at most {ENTRIES_MAX} entries and {BYTES_MAX} bytes", hint=_HINT
            )
        if member.kind is ustar.Kind.SYMLINK:
            self._note_symlink(path)
        elif member.kind is ustar.Kind.DIRECTORY:
            self._enter(path, cid)
        return member

    def _enter(self, path: str, cid: CID) -> None:
        size = self._blocks.last_bytes
        open_bytes = size + sum(directory.block_bytes for directory in self._open)
        if len(self._open) >= DEPTH_MAX or open_bytes > OPEN_BYTES_MAX:
            raise LimitError(
                f"directories over {DEPTH_MAX} deep, or too large for their depth", hint=_HINT
            )
        self._open.append(_Open(path, list_directory(self._blocks, cid), size))

    def _path(self, folder: str, name: str) -> str:
        """Join a name; raise UserError where it leads out of the root or through a symlink."""
        path = posixpath.normpath(f"{folder}/{name}")
        if "\0" in name or not name or not path.startswith(self._name + "/"):
            raise UserError(
                f"the name {name[:80]!r} in {folder[:200]} leads out of the archive",
                hint="fetch a CAR of it instead",
            )
        if len(path.encode()) > PATH_BYTES_MAX:
            raise LimitError(f"a path in a TAR has at most {PATH_BYTES_MAX} bytes", hint=_HINT)
        if self._symlinks:
            self._check_symlinks(path)
        return path

    def _check_symlinks(self, path: str) -> None:
        at = len(path)
        while at > 0:
            if _digest(path[:at]) in self._symlinks:
                raise UserError(
                    f"{path[:200]} leads through a symlink of the same archive",
                    hint="fetch a CAR of it instead",
                )
            at = path.rfind("/", 0, at)

    def _note_symlink(self, path: str) -> None:
        if len(self._symlinks) >= SYMLINKS_MAX:
            raise LimitError(f"a TAR has at most {SYMLINKS_MAX} symlinks", hint=_HINT)
        self._symlinks.add(_digest(path))


def _digest(path: str) -> bytes:
    """Return a short name of a path, for which memory is bounded however long it is."""
    return hashlib.blake2b(path.encode(), digest_size=16).digest()


def _member(path: str, entry: Entry) -> Member:
    kind = ustar.Kind.FILE
    if entry.is_directory:
        kind = ustar.Kind.DIRECTORY
    elif entry.target is not None:
        kind = ustar.Kind.SYMLINK
    if "\0" in (entry.target or ""):
        raise UserError(f"the symlink {path[:200]} has a NUL in its target", hint=_HINT)
    mode = _MODES[kind] if entry.mode is None else entry.mode & PERMISSIONS
    seconds = 0 if entry.mtime is None else entry.mtime.seconds
    nanoseconds = 0 if entry.mtime is None else entry.mtime.nanoseconds or 0
    return Member(path, kind, entry.file_bytes, mode, seconds, nanoseconds, entry.target or "")
