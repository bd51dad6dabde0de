"""The store's index in LMDB: where each block is, which files are whole, what is pinned.

Tables: `blocks` by multihash (CIDs of either version and any codec that name the same bytes share
an entry): inline bytes, or a run in a flat file. `files` by CIDv1: the length of a flat file.
`dropped` by CIDv1: flat files that are gone while runs in them still have entries; those entries
count as absent, so that a file goes at once however many blocks are in it. `meta`: the format and
the bytes in use. Those of `pins` see there.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct
from typing import TYPE_CHECKING

import lmdb
import msgspec

from lichen.content.disk import FULL_HINT, DiskFullError, disk_errors, has_room
from lichen.content.pins import PinTables, PinWriter
from lichen.errors import CorruptionError, MachineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

READERS_MAX = 1024
TABLES_MAX = 8
FORMAT = b"1"
ROOM_BYTES_MIN = 1 << 20  # what a commit may need beyond its data
Entry = bytes | memoryview
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
    """Reads are safe from any thread; one thread at a time writes.

    `used` are the bytes of all blocks and files, `dropped` the files that are gone.
    """

    def __init__(self, path: str, map_bytes: int) -> None:
        self._path = os.path.join(path, "data.mdb")
        with disk_errors():
            self._env = lmdb.open(
                path,
                map_size=map_bytes,
                max_dbs=TABLES_MAX,
                max_readers=READERS_MAX,
                meminit=False,
                mode=0o600,
            )
            self._blocks = self._env.open_db(b"blocks")
            self._files = self._env.open_db(b"files")
            self._gone = self._env.open_db(b"dropped")
            self._meta = self._env.open_db(b"meta")
            self.pins = PinTables(self._env)
            self._check_format()
            with self._env.begin(db=self._meta) as txn:
                self.used = self._used(txn)
            with self._env.begin(db=self._gone) as txn:
                self.dropped = frozenset(txn.cursor().iternext(keys=True, values=False))

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

    @contextlib.contextmanager
    def read(self) -> Iterator[IndexReader]:
        """See one state of the index for as long as this lasts; keep it short."""
        with self._env.begin(buffers=True) as txn:
            yield self._reader(txn)

    def _reader(self, txn: lmdb.Transaction) -> IndexReader:
        return IndexReader(txn, self._blocks, self._files, self.dropped)

    @contextlib.contextmanager
    def read_pins(self) -> Iterator[lmdb.Transaction]:
        """See one state of the tables of `pins`."""
        with self._env.begin() as txn:
            yield txn

    def get(self, multihash: bytes) -> bytes | Run | None:
        """Return a block's bytes, the run that holds them, or None."""
        with self._env.begin(db=self._blocks) as txn:
            value = txn.get(multihash)
        if value is None:
            return None
        found = _decode_block(value)
        if self.dropped and isinstance(found, Run) and found.file in self.dropped:
            return None
        return found

    def part(self, multihash: bytes, start: int, end: int) -> tuple[bytes, int] | Run | None:
        """Do what `get` does, but copy a part of the block only; also return its length."""
        with self._env.begin(db=self._blocks, buffers=True) as txn:
            value = txn.get(multihash)
            if value is not None and value[0] == Form.INLINE:
                return bytes(value[1 + start : 1 + end]), len(value) - 1
        found = self.get(multihash)
        return found if isinstance(found, Run) else None

    def has(self, multihash: bytes) -> bool:
        """Tell whether a block is here."""
        return self.where(multihash) is not None

    def where(self, multihash: bytes) -> bytes | None:
        """Return the flat file that holds a block, b"" for the index itself, or None."""
        with self._env.begin(buffers=True) as txn:
            return self._reader(txn).where(multihash)

    def size(self, multihash: bytes) -> tuple[Form, int] | None:
        """Return a block's form and the length of its bytes or run, without reading them."""
        with self._env.begin(buffers=True) as txn:
            value = self._reader(txn).entry(multihash)
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

    @contextlib.contextmanager
    def write(self) -> Iterator[IndexWriter]:
        """Run one transaction: durable when this returns, without effect when it raises."""
        writer: IndexWriter | None = None
        try:
            with disk_errors(), self._env.begin(write=True) as txn:
                writer = IndexWriter(
                    txn,
                    self._blocks,
                    self._files,
                    self._gone,
                    PinWriter(txn, self.pins),
                    self.dropped,
                )
                yield writer
                if writer.used_delta:
                    used = self._used(txn) + writer.used_delta
                    txn.put(b"used", _SIZE.pack(max(0, used)), db=self._meta)
            self.dropped = writer.dropped
            self.used = max(0, self.used + writer.used_delta)
        except MachineError as error:
            # LMDB calls a write that the disk cut short an input/output error.
            need = ROOM_BYTES_MIN + max(0, writer.used_delta if writer else 0)
            if isinstance(error, DiskFullError) or has_room(self._path, need):
                raise
            raise DiskFullError("no room for the store's index", hint=FULL_HINT) from error

    def turn_over(self) -> None:
        """Run a transaction that changes nothing: pages freed before the last one can be used."""
        with disk_errors(), self._env.begin(write=True, db=self._meta) as txn:
            turns = _SIZE.unpack(txn.get(b"turns") or bytes(_SIZE.size))[0]
            txn.put(b"turns", _SIZE.pack(turns + 1))

    def _used(self, txn: lmdb.Transaction) -> int:
        value = txn.get(b"used", db=self._meta)
        return 0 if value is None else int(_SIZE.unpack(value)[0])


class IndexReader:
    """One state of the index. What it returns is valid for as long as the transaction."""

    def __init__(
        self,
        txn: lmdb.Transaction,
        blocks: lmdb._Database,
        files: lmdb._Database,
        dropped: frozenset[bytes],
    ) -> None:
        self._txn = txn
        self._blocks = blocks
        self._files = files
        self._dropped = dropped

    def entry(self, multihash: bytes) -> Entry | None:
        """Return a block's entry: see `is_run`, `file_of` and `Index.get`."""
        value = self._txn.get(multihash, db=self._blocks)
        if value is None or not self._dropped or not is_run(value):
            return value
        return None if file_of(value) in self._dropped else value

    def where(self, multihash: bytes) -> bytes | None:
        """Return the flat file that holds a block, b"" for the index itself, or None."""
        value = self.entry(multihash)
        if value is None:
            return None
        return file_of(value) if is_run(value) else b""

    def blocks(self, start: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Yield multihashes and entries from `start` on, stale ones too."""
        cursor = self._txn.cursor(db=self._blocks)
        if cursor.set_range(start):
            for key, value in cursor.iternext():
                yield bytes(key), value

    def files(self, start: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield the roots and lengths of flat files from `start` on."""
        cursor = self._txn.cursor(db=self._files)
        if cursor.set_range(start):
            for key, value in cursor.iternext():
                yield bytes(key), int(_SIZE.unpack(value)[0])


class IndexWriter:
    """The changes of one transaction; what is already there is left as it is."""

    def __init__(
        self,
        txn: lmdb.Transaction,
        blocks: lmdb._Database,
        files: lmdb._Database,
        gone: lmdb._Database,
        pins: PinWriter,
        dropped: frozenset[bytes],
    ) -> None:
        self._txn = txn
        self._blocks = blocks
        self._files = files
        self._gone = gone
        self.pins = pins
        self.dropped = dropped
        self.used_delta = 0

    def put_inline(self, multihash: bytes, data: bytes) -> None:
        """Keep a block's bytes in the index."""
        if self._put_block(multihash, bytes((Form.INLINE,)) + data):
            self.used_delta += len(data)

    def put_run(self, multihash: bytes, run: Run, instead_of: Collection[bytes] = ()) -> None:
        """Say in which flat file a leaf is; not, where it is kept in another one already.

        Unless that is one of `instead_of`. The index keeps no copy of it.
        """
        value = _RUN.pack(run.form, run.offset, run.length) + run.file
        if self._put_block(multihash, value):
            return
        found = self._txn.get(multihash, db=self._blocks) or value
        if not is_run(found):
            self.used_delta -= len(found) - 1
        elif file_of(found) not in instead_of:
            return
        self._txn.put(multihash, value, db=self._blocks)

    def _put_block(self, multihash: bytes, value: bytes) -> bool:
        if self._txn.put(multihash, value, db=self._blocks, overwrite=False):
            return True
        if not self.dropped:
            return False
        found = self._txn.get(multihash, db=self._blocks)
        if found is not None and is_run(found) and file_of(found) in self.dropped:
            self._txn.put(multihash, value, db=self._blocks)
            return True
        return False

    def put_file(self, file: bytes, size: int) -> None:
        """Make a flat file known. The same root has the same layout: its old runs hold again."""
        if self._txn.put(file, _SIZE.pack(size), db=self._files, overwrite=False):
            self.used_delta += size
        if file in self.dropped:
            self.forget_dropped([file])

    def drop_block(self, multihash: bytes) -> None:
        """Forget a block."""
        value = self._txn.pop(multihash, db=self._blocks)
        if value is not None and not is_run(value):
            self.used_delta -= len(value) - 1

    def drop_files(self, files: Iterable[bytes]) -> None:
        """Forget flat files, and with them every block in them."""
        gone = {file for file in files if self.drop_empty_file(file)}
        for file in gone:
            self._txn.put(file, b"", db=self._gone)
        self.dropped |= gone

    def drop_empty_file(self, file: bytes) -> bool:
        """Forget a flat file that no entry of a block speaks of; tell whether there was one."""
        value = self._txn.pop(file, db=self._files)
        if value is None:
            return False
        self.used_delta -= _SIZE.unpack(value)[0]
        return True

    def forget_dropped(self, files: Iterable[bytes]) -> None:
        """Forget that flat files are gone: no entry speaks of them, or they are here again."""
        gone = set(files)
        for file in gone:
            self._txn.delete(file, db=self._gone)
        self.dropped -= gone


def is_run(value: Entry) -> bool:
    """Tell whether a block's entry is a run in a flat file."""
    return value[0] != Form.INLINE


def file_of(value: Entry) -> bytes:
    """Return the flat file of a run's entry."""
    return bytes(value[_RUN.size :])


def _decode_block(value: bytes) -> bytes | Run:
    if value[0] == Form.INLINE:
        return value[1:]
    form, offset, length = _RUN.unpack_from(value)
    return Run(Form(form), value[_RUN.size :], offset, length)


def _block_size(value: Entry) -> tuple[Form, int]:
    if value[0] == Form.INLINE:
        return Form.INLINE, len(value) - 1
    form, _, length = _RUN.unpack_from(value)
    return Form(form), length
