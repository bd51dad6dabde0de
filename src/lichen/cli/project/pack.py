"""Files of this machine as blocks, on their way into a CAR: each block once, memory bounded."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import IO, TYPE_CHECKING, Self

from lichen.content.car import write_car
from lichen.content.importer import (
    FileBuilder,
    Root,
    import_directory,
    leaf_block,
    leaf_digest,
)
from lichen.content.profile import V1_2025, Profile
from lichen.errors import LimitError, NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lichen.content.cid import CID

MEMORY_BYTES_MAX = 16 * 2**20
FILES_MAX = 50_000
DEPTH_MAX = 64
BYTES_MAX = 2 * 2**30


class Pack:
    """Collects blocks in a temporary file; `parts` gives them as a CAR of chosen roots."""

    def __init__(self, profile: Profile = V1_2025, *, with_hidden: bool = False) -> None:
        self._profile = profile
        self._with_hidden = with_hidden
        self._places: dict[CID, tuple[int, int]] = {}
        self._blocks: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES_MAX)  # noqa: SIM115 - closed by close
        self.files = 0
        self.size = 0

    def put(self, cid: CID, block: bytes) -> None:
        """Take a block, unless it is here already."""
        if cid in self._places:
            return
        self._places[cid] = (self._blocks.seek(0, os.SEEK_END), len(block))
        self._blocks.write(block)

    def add(self, path: Path) -> Root:
        """Import a file or a folder; raise UserError for what is neither."""
        return self._add_folder(path, 0) if path.is_dir() else self._add_path(path)

    def add_bytes(self, data: bytes) -> Root:
        """Import a file that is in memory."""
        import io

        return self.add_stream(io.BytesIO(data))

    def add_stream(self, stream: IO[bytes]) -> Root:
        """Import what a stream gives, chunk by chunk."""
        builder = FileBuilder(self._profile, self.put)
        chunk = _read_full(stream, self._profile.chunk_bytes)
        while True:
            cid = builder.leaf(leaf_digest(chunk, self._profile), len(chunk))
            self.put(cid, leaf_block(chunk, self._profile))
            self._count(len(chunk))
            chunk = _read_full(stream, self._profile.chunk_bytes)
            if not chunk:
                self.files += 1
                return builder.finish()

    def parts(self, *roots: CID) -> Iterator[bytes]:
        """Yield the CAR of everything that was put."""
        return write_car(roots, self._read_blocks())

    def close(self) -> None:
        """Remove the temporary file."""
        self._blocks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_path(self, path: Path) -> Root:
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no {path}", hint="check the path") from error
        if not stat.S_ISREG(mode):
            raise UserError(
                f"{path} is neither a file nor a folder",
                hint="put the file itself in its place; links and devices are not taken",
            )
        with path.open("rb") as stream:
            return self.add_stream(stream)

    def _add_folder(self, folder: Path, depth: int) -> Root:
        if depth > DEPTH_MAX:
            raise LimitError(f"{folder} is nested too deep", hint=f"at most {DEPTH_MAX} folders")
        links = []
        for path in sorted(folder.iterdir()):
            if self._is_taken(path.name):
                inner = not path.is_symlink() and path.is_dir()
                root = self._add_folder(path, depth + 1) if inner else self._add_path(path)
                links.append(root.link(path.name))
        return import_directory(links, self._profile, self.put)

    def _is_taken(self, name: str) -> bool:
        return self._with_hidden or not name.startswith(".") or name == ".well-known"

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > BYTES_MAX:
            raise LimitError("over 2 GiB of content", hint="add it in smaller parts")
        if self.files > FILES_MAX:
            raise LimitError(f"over {FILES_MAX} files", hint="add them in smaller parts")

    def _read_blocks(self) -> Iterator[tuple[CID, bytes]]:
        for cid, (offset, size) in self._places.items():
            self._blocks.seek(offset)
            yield cid, self._blocks.read(size)


def _read_full(stream: IO[bytes], size: int) -> bytes:
    """Read exactly `size` bytes, less only at the end: chunk borders decide the CID."""
    data = stream.read(size)
    while data and len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
