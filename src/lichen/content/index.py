"""The store's index in LMDB: where each block is, which files are whole, what is pinned.

Tables: `blocks` by multihash (CIDs of either version and any codec that name the same bytes share
an entry): inline bytes, or a run in a flat file. `files` by CIDv1: the length of a flat file.
`pins` by CIDv1. `meta`: the format and the bytes in use.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct
from typing import TYPE_CHECKING

import lmdb
import msgspec

from lichen.content.cid import CID
from lichen.content.disk import FULL_HINT, DiskFullError, disk_errors, has_room
from lichen.errors import CorruptionError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS_MAX = 1024
FORMAT = b"1"
ROOM_BYTES_MIN = 1 << 20  # what a commit may need beyond its data
_RUN = struct.Struct(">BQI")
_SIZE = struct.Struct(">Q")


class Form(enum.IntEnum):
    """How a block's bytes are kept."""

    INLINE = 0
    RAW = 1  # a run of a flat file
    WRAPPED = 2  # a run of a flat file, inside the dag-pb leaf that `unixfs.wrap_leaf` describes


class Run(msgspec.Struct, frozen=True):
    """Where a leaf's content is: `file` is the flat file's root (binary CIDv1)."""

    form: Form
    file: bytes
    offset: int
    length: int


class Index:
    """Reads are safe from any thread; one thread at a time writes."""

    def __init__(self, path: str, map_bytes: int) -> None:
        self._path = os.path.join(path, "data.mdb")
        with disk_errors():
            self._env = lmdb.open(
                path,
                map_size=map_bytes,
                max_dbs=4,
                max_readers=READERS_MAX,
                meminit=False,
                mode=0o600,
            )
            self._blocks = self._env.open_db(b"blocks")
            self._files = self._env.open_db(b"files")
            self._pins = self._env.open_db(b"pins")
            self._meta = self._env.open_db(b"meta")
            self._check_format()

    def _check_format(self) -> None:
        with self._env.begin(write=True, db=self._meta) as txn:
            found = txn.get(b"format")
            if found is None:
                txn.put(b"format", FORMAT)
            elif found != FORMAT:
                raise CorruptionError(
                    f"the content store has format {found!r}, this version reads {FORMAT!r}",
                    hint="use the version of lichen that wrote it",
                )

    def close(self) -> None:
        """Close the environment; no thread may be reading."""
        self._env.close()

    def get(self, multihash: bytes) -> bytes | Run | None:
        """Return a block's bytes, the run that holds them, or None."""
        with self._env.begin(db=self._blocks) as txn:
            value = txn.get(multihash)
        return None if value is None else _decode_block(value)

    def has(self, multihash: bytes) -> bool:
        """Tell whether a block is here."""
        with self._env.begin(db=self._blocks, buffers=True) as txn:
            return txn.get(multihash) is not None

    def size(self, multihash: bytes) -> tuple[Form, int] | None:
        """Return a block's form and the length of its bytes or run, without reading them."""
        with self._env.begin(db=self._blocks, buffers=True) as txn:
            value = txn.get(multihash)
            return None if value is None else _block_size(value)

    def file_bytes(self, file: bytes) -> int | None:
        """Return the length of the flat file of that root, or None."""
        with self._env.begin(db=self._files) as txn:
            value = txn.get(file)
        return None if value is None else int(_SIZE.unpack(value)[0])

    def files(self) -> set[bytes]:
        """Return the roots of all flat files."""
        with self._env.begin(db=self._files) as txn:
            return set(txn.cursor().iternext(keys=True, values=False))

    def pins(self) -> list[CID]:
        """Return what is pinned."""
        with self._env.begin(db=self._pins) as txn:
            return [CID.decode(key) for key in txn.cursor().iternext(keys=True, values=False)]

    def used_bytes(self) -> int:
        """Return the bytes of all blocks and files."""
        with self._env.begin(db=self._meta) as txn:
            value = txn.get(b"used")
        return 0 if value is None else int(_SIZE.unpack(value)[0])

    @contextlib.contextmanager
    def write(self) -> Iterator[IndexWriter]:
        """Run one transaction: durable when this returns, without effect when it raises."""
        writer: IndexWriter | None = None
        try:
            with disk_errors(), self._env.begin(write=True) as txn:
                writer = IndexWriter(txn, self._blocks, self._files, self._pins)
                yield writer
                if writer.used_delta:
                    used = self._used(txn) + writer.used_delta
                    txn.put(b"used", _SIZE.pack(max(0, used)), db=self._meta)
        except MachineError as error:
            # LMDB calls a write that the disk cut short an input/output error.
            need = ROOM_BYTES_MIN + max(0, writer.used_delta if writer else 0)
            if isinstance(error, DiskFullError) or has_room(self._path, need):
                raise
            raise DiskFullError("no room for the store's index", hint=FULL_HINT) from error

    def _used(self, txn: lmdb.Transaction) -> int:
        value = txn.get(b"used", db=self._meta)
        return 0 if value is None else int(_SIZE.unpack(value)[0])


class IndexWriter:
    """The changes of one transaction; what is already there is left as it is."""

    def __init__(
        self,
        txn: lmdb.Transaction,
        blocks: lmdb._Database,
        files: lmdb._Database,
        pins: lmdb._Database,
    ) -> None:
        self._txn = txn
        self._blocks = blocks
        self._files = files
        self._pins = pins
        self.used_delta = 0

    def put_inline(self, multihash: bytes, data: bytes) -> None:
        """Keep a block's bytes in the index."""
        value = bytes((Form.INLINE,)) + data
        if self._txn.put(multihash, value, db=self._blocks, overwrite=False):
            self.used_delta += len(data)

    def put_run(self, multihash: bytes, run: Run) -> None:
        """Say in which flat file a leaf is."""
        value = _RUN.pack(run.form, run.offset, run.length) + run.file
        self._txn.put(multihash, value, db=self._blocks, overwrite=False)

    def put_file(self, file: bytes, size: int) -> None:
        """Make a flat file known."""
        if self._txn.put(file, _SIZE.pack(size), db=self._files, overwrite=False):
            self.used_delta += size

    def put_pin(self, cid: CID) -> None:
        """Pin."""
        self._txn.put(cid.as_v1().encode(), b"", db=self._pins)

    def drop_pin(self, cid: CID) -> bool:
        """Unpin; tell whether it was pinned."""
        return bool(self._txn.delete(cid.as_v1().encode(), db=self._pins))

    def blocks(self) -> Iterator[tuple[bytes, Form, bytes]]:
        """Yield each block's multihash, form and (for runs) the flat file it is in."""
        for key, value in self._txn.cursor(db=self._blocks):
            form = Form(value[0])
            yield bytes(key), form, b"" if form is Form.INLINE else bytes(value[_RUN.size :])

    def drop_block(self, multihash: bytes) -> None:
        """Forget a block."""
        value = self._txn.pop(multihash, db=self._blocks)
        if value is not None and value[0] == Form.INLINE:
            self.used_delta -= len(value) - 1

    def drop_file(self, file: bytes) -> None:
        """Forget a flat file."""
        value = self._txn.pop(file, db=self._files)
        if value is not None:
            self.used_delta -= _SIZE.unpack(value)[0]


def _decode_block(value: bytes) -> bytes | Run:
    if value[0] == Form.INLINE:
        return value[1:]
    form, offset, length = _RUN.unpack_from(value)
    return Run(Form(form), value[_RUN.size :], offset, length)


def _block_size(value: memoryview) -> tuple[Form, int]:
    if value[0] == Form.INLINE:
        return Form.INLINE, len(value) - 1
    form, _, length = _RUN.unpack_from(value)
    return Form(form), length
