"""Folders into the store: what a file system has, as UnixFS; symlinks are kept, never followed."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from lichen.content.cid import CID
from lichen.content.importer import Root, check_name, import_directory, import_symlink
from lichen.errors import LimitError, NotAllowedError, NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lichen.content.dag_pb import Link
    from lichen.content.ingest import Ingest
    from lichen.content.profile import Profile

DEPTH_MAX = 128
FILES_MAX = 1 << 20


class Added(msgspec.Struct, frozen=True):
    """What was added: the root, the bytes of all files and how many there are."""

    cid: CID
    bytes: int
    files: int


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which path is missing or may not be read, while what is below `path` is read."""
    try:
        yield
    except FileNotFoundError as error:
        what = f"there is no {error.filename or path}"
        raise NotFoundError(what, hint="check the path") from error
    except PermissionError as error:
        what = f"{error.filename or path} may not be read"
        raise NotAllowedError(what, hint="change its permissions") from error


class TreeImport:
    """Walks a folder in the order of names and stages everything in it."""

    def __init__(
        self,
        ingest: Ingest,
        profile: Profile,
        *,
        hidden: bool,
        progress: Callable[[Added], None] | None,
    ) -> None:
        self._ingest = ingest
        self._profile = profile
        self._hidden = hidden
        self._progress = progress
        self.files = 0
        self.bytes = 0

    def add(self, path: str) -> Root:
        """Stage a file or a folder; a symlink given here is followed, those below are not."""
        with reading(path):
            if os.path.isdir(path):
                return self._add_folder(path, 0)
            return self._add_file(path, os.O_RDONLY)

    def _add_folder(self, path: str, depth: int) -> Root:
        if depth > DEPTH_MAX:
            raise LimitError(f"{path} is over {DEPTH_MAX} folders deep", hint="flatten it")
        links: list[Link] = []
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if self._hidden or not entry.name.startswith("."):
                check_name(entry.name)
                links.append(self._add_entry(entry, depth).link(entry.name))
        return import_directory(links, self._profile, self._ingest.stage_node)

    def _add_entry(self, entry: os.DirEntry[str], depth: int) -> Root:
        if entry.is_symlink():
            target = os.readlink(entry.path)
            return import_symlink(target, self._profile, self._ingest.stage_node)
        if entry.is_dir(follow_symlinks=False):
            return self._add_folder(entry.path, depth + 1)
        return self._add_file(entry.path, os.O_RDONLY | os.O_NOFOLLOW)

    def _add_file(self, path: str, flags: int) -> Root:
        self.files += 1
        if self.files > FILES_MAX:
            raise LimitError(f"over {FILES_MAX} files in one addition", hint="add it in parts")
        # O_NONBLOCK: opening a pipe must not wait for its writer before we see that it is one.
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UserError(
                    f"{path} is neither a file, a folder nor a symlink", hint="leave it out"
                )
            root = self._ingest.add_file(stream, self._profile, self._count)
        if self._progress is not None:
            self._progress(Added(root.cid, self.bytes, self.files))
        return root

    def _count(self, size: int) -> None:
        self.bytes += size
