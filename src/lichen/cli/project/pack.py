"""Files of this machine as blocks, on their way to a gateway: each block once, nothing copied.

Every file is read and hashed each time, whatever its times say: they can lie, its hash cannot.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Self

from lichen.content.car import CarReader, write_car
from lichen.content.chunks import Hasher, groups
from lichen.content.cid import CID, IDENTITY
from lichen.content.importer import (
    FileBuilder,
    Root,
    import_directory,
    import_symlink,
    leaf_block,
    leaf_cid,
    leaf_digest,
)
from lichen.content.places import SPOOL, Places
from lichen.content.profile import V1_2025, Profile
from lichen.content.tree import reading
from lichen.errors import LimitError, NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

FILES_MAX = 1 << 20
DEPTH_MAX = 128
BYTES_MAX = 1 << 40
SPOOLED_BYTES_MAX = 64 * 1024  # small files are kept: opening them again costs more
HASH_THREADS = 1


class Pack:
    """Collects blocks, children before parents; `parts` gives them as a CAR of chosen roots."""

    def __init__(
        self,
        profile: Profile = V1_2025,
        *,
        with_hidden: bool = False,
        as_is: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Take files for a site, or (`as_is`) a folder as other IPFS tools do.

        A site has no symlinks, and its `.well-known` belongs to it. Other hidden files are left out
        `with_hidden` is asked for. `progress` hears how many bytes were read.
        """
        self._profile = profile
        self._with_hidden = with_hidden
        self._as_is = as_is
        self._progress = progress
        self._hashers = ThreadPoolExecutor(HASH_THREADS, "pack-hash")
        self._places = Places()
        self.files = 0
        self.size = 0

    @property
    def blocks_bytes(self) -> int:
        """Return the bytes of all blocks."""
        return self._places.bytes

    def put(self, cid: CID, block: bytes) -> None:
        """Take a block, unless it is here already."""
        self._places.put(cid, block)

    def add(self, path: Path) -> Root:
        """Import a file or a folder; raise UserError for what is neither.

        A symlink given here is followed where a folder is taken as it is.
        """
        with reading(path):
            if path.is_dir():
                return self._add_folder(str(path), 0)
            return self._add_path(str(path), os.O_RDONLY if self._as_is else _NO_LINK)

    def add_bytes(self, data: bytes) -> Root:
        """Import a file that is in memory."""
        import io

        return self.add_stream(io.BytesIO(data))

    def add_stream(self, stream: IO[bytes]) -> Root:
        """Import what a stream gives; it is kept in a temporary file until it is sent."""
        return self._add_stream(stream, SPOOL)

    def parts(self, *roots: CID) -> Iterator[bytes]:
        """Yield the CAR of everything that was put."""
        return write_car(roots, ((cid, self.read(cid)) for cid, _ in self._places.blocks()))

    def blocks(self) -> Iterator[tuple[CID, int]]:
        """Yield each block and its bytes, parents before children."""
        return self._places.blocks_from_last()

    def read(self, cid: CID) -> bytes:
        """Read a block again; raise UserError when its file has changed."""
        return self._places.read(cid)

    def close(self) -> None:
        """Forget everything."""
        self._hashers.shutdown()
        self._places.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_stream(self, stream: IO[bytes], source: int) -> Root:
        builder = FileBuilder(self._profile, self.put)
        chunk_bytes = self._profile.chunk_bytes
        head = _read_full(stream, chunk_bytes)
        if len(head) < chunk_bytes:
            self._take_small(head, builder)
        else:
            self._take_large(groups(head, stream, chunk_bytes), builder, source)
        self._count_file()
        return builder.finish()

    def _take_small(self, chunk: bytes, builder: FileBuilder) -> None:
        digest = leaf_digest(chunk, self._profile)
        self.put(leaf_cid(digest, self._profile), leaf_block(chunk, self._profile))
        builder.leaf(digest, len(chunk))
        self._count(len(chunk))

    def _take_large(
        self, source_groups: Iterator[memoryview], builder: FileBuilder, source: int
    ) -> None:
        """Hash in one thread what another one reads; a leaf is kept before its parent is."""
        hasher = Hasher(self._hashers, self._profile)
        starts: deque[int] = deque()
        place = 0
        for group in source_groups:
            hasher.submit(group)
            chunks = range(0, len(group), self._profile.chunk_bytes)
            at = self._places.spool(group) if source == SPOOL else place
            starts.extend(at + chunk for chunk in chunks)
            place += len(group)
            self._count(len(group))
            self._take(hasher.due(), starts, builder, source)
        self._take(hasher.finish(), starts, builder, source)

    def _take(
        self,
        digests: Iterable[tuple[bytes, int]],
        starts: deque[int],
        builder: FileBuilder,
        source: int,
    ) -> None:
        wrapped = not self._profile.raw_leaves
        for digest, length in digests:
            cid = leaf_cid(digest, self._profile)
            self._places.put_at(cid, source, starts.popleft(), length, wrapped=wrapped)
            builder.leaf(digest, length)

    def _add_path(self, path: str, flags: int) -> Root:
        try:
            fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if flags & os.O_NOFOLLOW and os.path.islink(path):
                raise _neither(path) from error
            raise
        with open(fd, "rb", buffering=0) as stream:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise _neither(path)
            small = found.st_size <= SPOOLED_BYTES_MAX
            return self._add_stream(stream, SPOOL if small else self._places.source(path))

    def _add_folder(self, folder: str, depth: int) -> Root:
        if depth > DEPTH_MAX:
            raise LimitError(f"{folder} is nested too deep", hint=f"at most {DEPTH_MAX} folders")
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        links = [
            self._add_entry(entry, depth).link(entry.name)
            for entry in entries
            if self._is_taken(entry.name)
        ]
        return import_directory(links, self._profile, self.put)

    def _add_entry(self, entry: os.DirEntry[str], depth: int) -> Root:
        if entry.is_symlink() and self._as_is:
            self._count_file()
            return import_symlink(os.readlink(entry.path), self._profile, self.put)
        if entry.is_dir(follow_symlinks=False):
            return self._add_folder(entry.path, depth + 1)
        return self._add_path(entry.path, _NO_LINK)

    def _is_taken(self, name: str) -> bool:
        if self._with_hidden or not name.startswith("."):
            return True
        return name == ".well-known" and not self._as_is

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > BYTES_MAX:
            raise LimitError(f"over {BYTES_MAX} bytes of content", hint="add it in smaller parts")
        if self._progress is not None:
            self._progress(self.size)

    def _count_file(self) -> None:
        self.files += 1
        if self.files > FILES_MAX:
            raise LimitError(f"over {FILES_MAX} files", hint="add them in smaller parts")


class CarPack:
    """The blocks of a CAR file, each checked, read again from where they are."""

    def __init__(self, path: Path, progress: Callable[[int], None] | None = None) -> None:
        """Read the whole CAR once; raise UserError or VerificationError."""
        self._places = Places()
        try:
            with path.open("rb") as stream:
                self._index(CarReader(stream), str(path), progress)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no {path}", hint="check the path") from error
        self.size = path.stat().st_size

    def _index(
        self,
        car: CarReader,
        path: str,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.roots = car.roots
        source = self._places.source(path)
        for cid, block in car:
            if cid.hash_code != IDENTITY:
                self._places.put_at(cid, source, car.position - len(block), len(block))
            if progress is not None:
                progress(car.position)

    @property
    def blocks_bytes(self) -> int:
        """Return the bytes of all blocks."""
        return self._places.bytes

    def blocks(self) -> Iterator[tuple[CID, int]]:
        """Yield each block and its bytes, in the order of the CAR."""
        return self._places.blocks()

    def read(self, cid: CID) -> bytes:
        """Read a block again; raise UserError when the file has changed."""
        return self._places.read(cid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._places.close()


_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW


def _neither(path: str) -> UserError:
    return UserError(
        f"{path} is neither a file nor a folder",
        hint="put the file itself in its place; links and devices are not taken",
    )


def _read_full(stream: IO[bytes], size: int) -> bytes:
    """Read exactly `size` bytes, less only at the end: chunk borders decide the CID."""
    data = stream.read(size)
    while data and len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
