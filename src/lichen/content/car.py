"""CAR (https://ipld.io/specs/transport/car): blocks in a stream; version 1 and, read only, 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import libipld

from lichen.content import dag_cbor, varint
from lichen.content.blocks import BLOCK_BYTES_MAX, Blocks, check_block
from lichen.content.cid import CID
from lichen.content.walk import walk
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HEADER_BYTES_MAX = 1 << 20
ROOTS_MAX = 4096
SECTION_BYTES_MAX = BLOCK_BYTES_MAX + 256  # a block and its CID
INDEX_BYTES_MAX = 1 << 28
_SKIP_BYTES = 1 << 16
_V2_PRAGMA = bytes.fromhex("0aa16776657273696f6e02")
_V2_HEADER_BYTES = 40
_TRUNCATED = "the CAR ends in the middle of a block"
_HINT = "transfer or export it again"


class Readable(Protocol):
    """A blocking stream of bytes; `read` returns nothing only at its end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""
        ...


class CarReader:
    """Reads a CAR block by block; each block is verified before it is handed out.

    `roots` is known after construction. Iteration yields (CID, block). Raises UserError on a
    malformed or truncated CAR or trailing bytes, VerificationError on a wrong block.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._left: int | None = None  # bytes of the inner CAR of a version 2, where known
        self.version = 1
        header = self._read_header()
        if header == _V2_PRAGMA[1:]:
            self.version = 2
            self._enter_v2()
            header = self._read_header()
        self.roots = _decode_header(header)

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        while (size := self._read_size(SECTION_BYTES_MAX)) is not None:
            section = memoryview(self._exactly(size))
            cid, offset = CID.read(section, 0)
            block = section[offset:]
            check_block(cid, block)
            yield cid, bytes(block)
        self._pass_over_index()

    def _read_header(self) -> bytes:
        size = self._read_size(HEADER_BYTES_MAX)
        if size is None:
            raise UserError("this is not a CAR: it is empty", hint=_HINT)
        return self._exactly(size)

    def _enter_v2(self) -> None:
        header = self._exactly(_V2_HEADER_BYTES)
        data_offset = int.from_bytes(header[16:24], "little")
        data_bytes = int.from_bytes(header[24:32], "little")
        skip = data_offset - len(_V2_PRAGMA) - _V2_HEADER_BYTES
        if not 0 <= skip <= HEADER_BYTES_MAX or data_bytes == 0:
            raise UserError("the CAR version 2 header is malformed", hint=_HINT)
        self._exactly(skip)
        self._left = data_bytes

    def _pass_over_index(self) -> None:
        """Read what follows the blocks of a version 2 to its end, so that all of it was seen."""
        left = INDEX_BYTES_MAX if self._left is not None else 0
        self._left = None
        while left and (data := self._stream.read(min(left, _SKIP_BYTES))):
            left -= len(data)

    def _read_size(self, bytes_max: int) -> int | None:
        """Read a section's length; None at a clean end."""
        head = bytearray()
        while not head or head[-1] & 0x80:
            byte = self._up_to(1)
            if not byte and not head:
                return None
            if not byte or len(head) == varint.VARINT_BYTES_MAX:
                raise UserError("the CAR ends in a length, or a length is too long", hint=_HINT)
            head += byte
        size, _ = varint.decode(bytes(head))
        if not 0 < size <= bytes_max:
            raise UserError(f"a CAR section of {size} bytes is not in 1 .. {bytes_max}", hint=_HINT)
        return size

    def _exactly(self, size: int) -> bytes:
        data = self._up_to(size)
        if len(data) == size:
            return data
        parts, have = [data], len(data)
        while have < size:
            data = self._up_to(size - have)
            if not data:
                raise UserError(_TRUNCATED, hint=_HINT)
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def _up_to(self, size: int) -> bytes:
        if self._left is None:
            return self._stream.read(size)
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        if not data and self._left and size:
            raise UserError(_TRUNCATED, hint=_HINT)
        return data


def _decode_header(header: bytes) -> tuple[CID, ...]:
    """Read the one canonical header of these roots."""
    roots = tuple(dag_cbor.links(header))
    if len(roots) > ROOTS_MAX:
        raise UserError(f"a CAR of over {ROOTS_MAX} roots")
    if header != _encode_header(roots):
        raise UserError("this is not a CAR of version 1 or 2", hint=_HINT)
    return roots


def _encode_header(roots: Sequence[CID]) -> bytes:
    return bytes(
        libipld.encode_dag_cbor({"roots": [root.encode() for root in roots], "version": 1})
    )


def write_car(roots: Sequence[CID], blocks: Iterable[tuple[CID, bytes]]) -> Iterator[bytes]:
    """Yield a CAR of version 1, its header first, then one piece for each block."""
    header = _encode_header(roots)
    yield varint.encode(len(header)) + header
    for cid, block in blocks:
        name = cid.encode()
        yield b"".join((varint.encode(len(name) + len(block)), name, block))


def export_car(blocks: Blocks, root: CID) -> Iterator[bytes]:
    """Yield a whole DAG as a CAR: depth first, each block once. Raises MissingBlockError."""
    return write_car((root,), walk(blocks, root))
