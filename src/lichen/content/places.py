"""Where blocks can be read again: in files of this machine that are not copied, or in a spool.

What is kept for each block is its place, in memory while these are few, so that content of any size
is on its way in bounded memory. A file may change meanwhile: what is read is checked.
"""

from __future__ import annotations

import os
import struct
import tempfile
from typing import TYPE_CHECKING, Self

from lichen.content import unixfs
from lichen.content.blocks import check_block
from lichen.content.cid import CID, RAW
from lichen.content.scratch import ScratchTable
from lichen.content.spool import write_all
from lichen.errors import UserError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

MEMORY_ENTRIES_MAX = 1 << 17
LEAVES_IN_ORDER = 4096
SPOOL = 0  # the number of the temporary file among the sources
_PLACE = struct.Struct(">QQI?")
_NUMBER = struct.Struct(">Q")


class Places:
    """Blocks by CID, in the order in which they came; each once."""

    def __init__(self) -> None:
        self._places = ScratchTable(None, MEMORY_ENTRIES_MAX)
        self._order = ScratchTable(None, MEMORY_ENTRIES_MAX)
        self._paths = ScratchTable(None, MEMORY_ENTRIES_MAX)
        self._spool: IO[bytes] | None = None
        self._spooled_bytes = 0
        self._opened: tuple[int, int] = (-1, -1)
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, cid: CID) -> bool:
        return self._places.get(cid.encode()) is not None

    def put(self, cid: CID, block: bytes | memoryview) -> None:
        """Keep a block in the spool, unless it is here already."""
        if cid not in self:
            self._put(cid, SPOOL, self.spool(block), len(block), wrapped=False)

    def spool(self, data: bytes | memoryview) -> int:
        """Keep bytes in the spool; return where they begin."""
        if self._spool is None:
            self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close
        offset = self._spooled_bytes
        write_all(self._spool.fileno(), data)
        self._spooled_bytes += len(data)
        return offset

    def source(self, path: str) -> int:
        """Return the number of a file that blocks are in."""
        number = len(self._paths) + 1
        self._paths.put(_NUMBER.pack(number), os.fsencode(path))
        return number

    def put_at(
        self, cid: CID, source: int, offset: int, length: int, *, wrapped: bool = False
    ) -> None:
        """Take a block that is in a file, or whose chunk is, as `unixfs.wrap_leaf` describes."""
        if cid not in self:
            self._put(cid, source, offset, length, wrapped=wrapped)

    def _put(self, cid: CID, source: int, offset: int, length: int, *, wrapped: bool) -> None:
        self._order.put(_NUMBER.pack(len(self._places)), cid.encode())
        self._places.put(cid.encode(), _PLACE.pack(source, offset, length, wrapped))
        self.bytes += _block_bytes(length, wrapped=wrapped)

    def blocks(self) -> Iterator[tuple[CID, int]]:
        """Yield each block and its bytes in the order in which they came."""
        return (self._block(number) for number in range(len(self)))

    def blocks_from_last(self) -> Iterator[tuple[CID, int]]:
        """Yield each block and its bytes, from the last to the first, so parents before children.

        Leaves in a row stay in their order (as many as LEAVES_IN_ORDER): whoever stores them has
        the file then as it is.
        """
        leaves: list[tuple[CID, int]] = []
        for number in range(len(self) - 1, -1, -1):
            block = self._block(number)
            if block[0].codec == RAW and len(leaves) < LEAVES_IN_ORDER:
                leaves.append(block)
                continue
            yield from reversed(leaves)
            leaves = [block] if block[0].codec == RAW else []
            if not leaves:
                yield block
        yield from reversed(leaves)

    def _block(self, number: int) -> tuple[CID, int]:
        key = self._order.get(_NUMBER.pack(number)) or b""
        _, _, length, wrapped = _PLACE.unpack(self._places.get(key) or b"")
        return CID.decode(key), _block_bytes(length, wrapped=wrapped)

    def read(self, cid: CID) -> bytes:
        """Read a block again; raise UserError when its file has changed."""
        source, offset, length, wrapped = _PLACE.unpack(self._places.get(cid.encode()) or b"")
        data = os.pread(self._fd(source), length, offset)
        if wrapped:
            before, behind = unixfs.wrap_leaf(length)
            data = before + data + behind
        try:
            check_block(cid, data)
        except VerificationError as error:
            raise UserError(
                f"{self._path(source)} changed while it was being added", hint="add it again"
            ) from error
        return data

    def _path(self, source: int) -> str:
        return os.fsdecode(self._paths.get(_NUMBER.pack(source)) or b"the temporary file")

    def _fd(self, source: int) -> int:
        if source == SPOOL and self._spool is not None:
            return self._spool.fileno()
        if self._opened[0] != source:
            self._let_go()
            self._opened = source, self._open(source)
        return self._opened[1]

    def _open(self, source: int) -> int:
        try:
            return os.open(self._path(source), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(
                f"{self._path(source)} cannot be read any more: {error.strerror}",
                hint="add it again",
            ) from error

    def _let_go(self) -> None:
        if self._opened[1] >= 0:
            os.close(self._opened[1])
        self._opened = (-1, -1)

    def close(self) -> None:
        """Forget everything."""
        self._let_go()
        for table in (self._places, self._order, self._paths):
            table.close()
        if self._spool is not None:
            self._spool.close()


def _block_bytes(length: int, *, wrapped: bool) -> int:
    return length + (sum(map(len, unixfs.wrap_leaf(length))) if wrapped else 0)
