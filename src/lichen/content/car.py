"""CAR (https://ipld.io/specs/transport/car): blocks in a stream; version 1 and, read only, 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lichen.content import dag_cbor, varint
from lichen.content.blocks import BLOCK_BYTES_MAX, Blocks, check_block
from lichen.content.cid import CID, DIGEST_BYTES_MAX
from lichen.content.walk import walk
from lichen.errors import LimitError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HEADER_BYTES_MAX = 1 << 20
ROOTS_MAX = 4096
SECTION_BYTES_MAX = BLOCK_BYTES_MAX + 256  # a block and its CID
INDEX_BYTES_MAX = 1 << 28
AHEAD_BYTES = 1 << 16  # read at once
COPIED_BYTES_MAX = 1 << 16
CID_BYTES_MAX = 9 + 9 + 9 + 1 + DIGEST_BYTES_MAX
_V2_PRAGMA = bytes.fromhex("0aa16776657273696f6e02")
_V2_HEADER_BYTES = 40
_TRUNCATED = "the CAR ends in the middle of a block"


class Readable(Protocol):
    """A blocking stream of bytes; `read` returns nothing only at its end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""
        ...


class CarError(UserError):
    """This is not a CAR, or it was damaged on its way."""

    code = "malformed-car"

    def __init__(self, what: str) -> None:
        super().__init__(what, hint="transfer or export it again")


class CarReader:
    """Reads a CAR block by block; each block is verified before it is handed out.

    `roots` is known after construction. Iteration yields (CID, block). Raises CarError on a
    malformed or truncated CAR or trailing bytes, LimitError on a block that is too large,
    VerificationError on a wrong one.
    """

    def __init__(self, stream: Readable) -> None:
        self._input = _Input(stream)
        self.version = 1
        header = self._read_header()
        if header == _V2_PRAGMA[1:]:
            self.version = 2
            self._enter_v2()
            header = self._read_header()
        self.roots = _decode_header(header)

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        number = 0
        while (size := self._input.length(SECTION_BYTES_MAX)) is not None:
            number += 1
            try:
                cid, cid_bytes = CID.read(self._input.look(min(size, CID_BYTES_MAX)), 0)
            except CarError:
                raise
            except UserError as error:
                raise CarError(f"block {number} has no CID: {error.what}") from error
            self._input.take(cid_bytes)
            block = self._input.take(size - cid_bytes)
            _check(cid, block, number)
            yield cid, block
        self._input.drain()

    @property
    def position(self) -> int:
        """Return where in the stream the last block that was handed out ends."""
        return self._input.position

    def _read_header(self) -> bytes:
        size = self._input.length(HEADER_BYTES_MAX)
        if size is None:
            raise CarError("this is not a CAR: it is empty")
        return self._input.take(size)

    def _enter_v2(self) -> None:
        header = self._input.take(_V2_HEADER_BYTES)
        data_offset = int.from_bytes(header[16:24], "little")
        data_bytes = int.from_bytes(header[24:32], "little")
        skip = data_offset - len(_V2_PRAGMA) - _V2_HEADER_BYTES
        if not 0 <= skip <= HEADER_BYTES_MAX or data_bytes == 0:
            raise CarError("the header of this CAR of version 2 is malformed")
        self._input.take(skip)
        self._input.end_after(data_bytes)


class _Input:
    """A stream, read ahead: most blocks are smaller than what one read brings."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._ahead = b""
        self._at = 0
        self.position = 0  # the bytes that were taken
        self._left: int | None = None  # of the inner CAR of a version 2

    def end_after(self, size: int) -> None:
        """Take what is further away for none of the CAR's blocks."""
        self._left = size

    def length(self, size_max: int) -> int | None:
        """Read the length of what follows; None at a clean end."""
        head = self.look(varint.VARINT_BYTES_MAX)
        if not head:
            if self._left:
                raise CarError(_TRUNCATED)
            return None
        try:
            size, head_bytes = varint.decode(head)
        except UserError as error:
            raise CarError(f"a CAR's length is malformed or cut off: {error.what}") from error
        self.take(head_bytes)
        if not 0 < size <= size_max:
            raise CarError(f"a CAR section of {size} bytes is not in 1 .. {size_max}")
        return size

    def look(self, size: int) -> bytes:
        """Return the next bytes, which stay; fewer at the end."""
        if self._left is not None:
            size = min(size, self._left)
        while len(self._ahead) - self._at < size and (more := self._stream.read(AHEAD_BYTES)):
            self._ahead = self._ahead[self._at :] + more
            self._at = 0
        return self._ahead[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """Return just so many bytes; raise CarError where the CAR has fewer."""
        if self._left is not None:
            if size > self._left:
                raise CarError(_TRUNCATED)
            self._left -= size
        self.position += size
        found = self._ahead[self._at : self._at + size]
        self._at += len(found)
        return found if len(found) == size else self._read_on(found, size)

    def _read_on(self, found: bytes, size: int) -> bytes:
        parts, have = [found] if found else [], len(found)
        while have < size:
            part = self._stream.read(size - have)
            if not part:
                raise CarError(_TRUNCATED)
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read what follows the blocks of a version 2 to its end, so that all of it was seen."""
        left = INDEX_BYTES_MAX if self._left is not None else 0
        while left > 0 and (data := self._stream.read(min(left, AHEAD_BYTES))):
            left -= len(data)


def _check(cid: CID, block: bytes, number: int) -> None:
    try:
        check_block(cid, block)
    except LimitError:
        raise
    except UserError as error:
        raise CarError(f"block {number}, {cid}, cannot be verified: {error.what}") from error


def _decode_header(header: bytes) -> tuple[CID, ...]:
    """Read the one canonical header of these roots."""
    try:
        roots = tuple(dag_cbor.links(header))
    except UserError as error:
        raise CarError(f"this is not a CAR of version 1 or 2: {error.what}") from error
    if len(roots) > ROOTS_MAX:
        raise CarError(f"this CAR has over {ROOTS_MAX} roots")
    if header != _encode_header(roots):
        raise CarError("this is not a CAR of version 1 or 2")
    return roots


def _encode_header(roots: Sequence[CID]) -> bytes:
    return dag_cbor.encode({"roots": list(roots), "version": 1})


def write_car(roots: Sequence[CID], blocks: Iterable[tuple[CID, bytes]]) -> Iterator[bytes]:
    """Yield a CAR of version 1, its header first, then each block; large ones without a copy."""
    header = _encode_header(roots)
    yield varint.encode(len(header)) + header
    for cid, block in blocks:
        name = cid.encode()
        before = varint.encode(len(name) + len(block)) + name
        if len(block) > COPIED_BYTES_MAX:
            yield before
            yield block
        else:
            yield before + block


def export_car(blocks: Blocks, root: CID) -> Iterator[bytes]:
    """Yield a whole DAG as a CAR: depth first, each block once. Raises MissingBlockError."""
    return write_car((root,), walk(blocks, root))
