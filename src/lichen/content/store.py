"""The block store: file content as flat files, everything else in LMDB, verified at ingest.

What an add, put or import has acknowledged is on disk. One process at a time has a store open; any
thread may read, additions and collections take turns at their commits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from lichen.content import collect, reader, unixfs
from lichen.content.car import CarReader, Readable
from lichen.content.cid import CID, DAG_PB, IDENTITY, RAW
from lichen.content.disk import FULL_HINT, DiskFullError, disk_errors, fsync_folder, lock_folder
from lichen.content.flat import FlatFile, FlatFiles
from lichen.content.index import Form, Index, IndexWriter, Run
from lichen.content.ingest import SMALL_FILE_BYTES_MAX, Ingest
from lichen.content.profile import V1_2025, Profile
from lichen.content.tree import Added, TreeImport
from lichen.errors import CorruptionError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

HASH_THREADS = 2
SYNC_THREADS = 2
MAP_BYTES_MAX = 16 << 40
_MAP_SLACK_BYTES = 1 << 30
_FORM_OF_LEAF = {RAW: Form.RAW, DAG_PB: Form.WRAPPED}


class BlockStore:
    """Blocks and files by CID in one folder. Open it with `BlockStore.open`."""

    def __init__(self, home: str, lock_fd: int, capacity_bytes: int, map_bytes: int) -> None:
        self._lock_fd = lock_fd
        self.capacity_bytes = capacity_bytes
        self.temporary_folder = os.path.join(home, "tmp")
        shutil.rmtree(self.temporary_folder, ignore_errors=True)
        os.makedirs(self.temporary_folder)
        self._index = Index(os.path.join(home, "index"), map_bytes)
        self._flats = FlatFiles(os.path.join(home, "flat"))
        for folder in (os.path.join(home, "index"), home, os.path.dirname(home) or "."):
            fsync_folder(folder)
        self._flats.collect_leftovers(self._index.files())
        self.hash_threads = ThreadPoolExecutor(HASH_THREADS, "content-hash")
        self.sync_threads = ThreadPoolExecutor(SYNC_THREADS, "content-sync")
        self._write_lock = threading.RLock()
        self._space_lock = threading.Lock()
        self._hold_lock = threading.Lock()
        self._held: dict[CID, int] = {}
        self._ingests: set[Ingest] = set()
        self._used_bytes = self._index.used_bytes()
        self._reserved_bytes = 0

    @classmethod
    def open(
        cls, home: str | os.PathLike[str], *, capacity_bytes: int, map_bytes: int | None = None
    ) -> Self:
        """Open or make the store in a folder, and clear away what a crash left behind.

        `capacity_bytes` bounds what is stored; `map_bytes` the index (address space, not memory;
        by default more than the capacity can need). Raises StoreBusyError while another process
        has it open.
        """
        folder = os.path.abspath(home)
        with disk_errors():
            os.makedirs(folder, exist_ok=True)
            lock_fd = lock_folder(folder)
            try:
                map_default = min(capacity_bytes * 3 // 2 + _MAP_SLACK_BYTES, MAP_BYTES_MAX)
                return cls(folder, lock_fd, capacity_bytes, map_bytes or map_default)
            except BaseException:
                os.close(lock_fd)
                raise

    def close(self) -> None:
        """Close the store; no thread may be using it."""
        self.hash_threads.shutdown()
        self.sync_threads.shutdown()
        self._flats.close()
        self._index.close()
        os.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Reading

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block, or None when it is not here."""
        if cid.hash_code == IDENTITY:
            return cid.digest
        found = self._index.get(cid.multihash)
        return self._read_run(cid, found) if isinstance(found, Run) else found

    def has(self, cid: CID) -> bool:
        """Tell whether a block is here."""
        return cid.hash_code == IDENTITY or self._index.has(cid.multihash)

    def size(self, cid: CID) -> int | None:
        """Return the bytes of a block, without reading it; None when it is not here."""
        if cid.hash_code == IDENTITY:
            return len(cid.digest)
        found = self._index.size(cid.multihash)
        if found is None:
            return None
        form, length = found
        if form is Form.WRAPPED:
            before, behind = unixfs.wrap_leaf(length)
            return len(before) + length + len(behind)
        return length

    def flat_file(self, cid: CID) -> FlatFile | None:
        """Return the content of a UnixFS file root or raw block for sendfile.

        None when it is not here, is not a file, or is not laid out flat (files of at most
        `SMALL_FILE_BYTES_MAX` are not, see `small_file`; other DAGs go through `reader.read_file`).
        """
        file = cid.as_v1().encode()
        flat = self._flats.cached(file)
        if flat is not None:
            return flat
        if self._index.file_bytes(file) is not None:
            return self._flats.open(file)
        found = self._index.get(cid.multihash)
        if not isinstance(found, Run) or found.form is not _FORM_OF_LEAF.get(cid.codec):
            return None
        flat = self._flats.open(found.file)  # a leaf inside a larger file is a file too
        return None if flat is None else flat.run(found.offset, found.length)

    def small_file(self, cid: CID) -> bytes | None:
        """Return the content of a file of at most `SMALL_FILE_BYTES_MAX`; None for all else.

        Quick enough for an event loop: a DAG of many tiny blocks counts as all else too.
        """
        if cid.codec == RAW:
            size = self.size(cid)
            return None if size is None or size > SMALL_FILE_BYTES_MAX else self.get_block(cid)
        size = self.size(cid) if cid.codec == DAG_PB else None
        if size is None or size > SMALL_FILE_BYTES_MAX + reader.SMALL_NODE_BYTES:
            return None
        return reader.small_content(self, cid, SMALL_FILE_BYTES_MAX)

    @contextlib.contextmanager
    def hold(self, cid: CID) -> Iterator[None]:
        """Keep a DAG from being collected while its blocks are read one by one."""
        with self._hold_lock:
            self._held[cid] = self._held.get(cid, 0) + 1
        try:
            yield
        finally:
            with self._hold_lock:
                self._held[cid] -= 1
                if not self._held[cid]:
                    del self._held[cid]

    def _read_run(self, cid: CID, run: Run) -> bytes | None:
        flat = self._flats.open(run.file)
        data = b"" if flat is None else flat.pread(run.length, run.offset)
        if len(data) != run.length:
            if not self._index.has(cid.multihash):
                return None  # collected between the two looks
            raise CorruptionError(
                f"the file that holds block {cid} is missing or cut off",
                hint="check the disk; remove the content and fetch it again",
            )
        if run.form is Form.WRAPPED:
            before, behind = unixfs.wrap_leaf(run.length)
            return before + data + behind
        return data

    # Adding

    def ingest(self) -> Ingest:
        """Begin an addition of many blocks or files that becomes visible as one."""
        return Ingest(self)

    def put_block(self, cid: CID, data: bytes) -> None:
        """Verify and store one block durably; for many, use `ingest` or `put_blocks`."""
        self.put_blocks(((cid, data),))

    def put_blocks(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """Verify and store blocks durably, all or none."""
        with self.ingest() as ingest:
            for cid, data in blocks:
                ingest.put_block(cid, data)
            ingest.commit()

    def add_file(
        self,
        source: Readable | str | os.PathLike[str],
        profile: Profile = V1_2025,
        *,
        pin: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[CID, int]:
        """Import a stream or the file at a path: its CID and length.

        Raises DiskFullError; then, as after a crash at any point, nothing was added.
        """
        if isinstance(source, str | os.PathLike):
            with open(source, "rb", buffering=0) as stream:
                return self.add_file(stream, profile, pin=pin, progress=progress)
        with self.ingest() as ingest:
            root = ingest.add_file(source, profile, progress)
            ingest.commit([root.cid] if pin else [])
        return root.cid, root.file_bytes

    def add_tree(
        self,
        path: str | os.PathLike[str],
        profile: Profile = V1_2025,
        *,
        hidden: bool = False,
        pin: bool = False,
        progress: Callable[[Added], None] | None = None,
    ) -> Added:
        """Import a folder (or a single file), all or nothing; `progress` hears of each file."""
        with self.ingest() as ingest:
            tree = TreeImport(ingest, profile, hidden=hidden, progress=progress)
            root = tree.add(os.fspath(path))
            ingest.commit([root.cid] if pin else [])
        return Added(root.cid, tree.bytes, tree.files)

    def import_car(self, stream: Readable, *, pin: bool = False) -> tuple[CID, ...]:
        """Import a CAR, all or nothing: its roots. Blocks may be missing; another may bring them.

        Raises UserError for a malformed CAR, VerificationError for a wrong block, DiskFullError.
        """
        with self.ingest() as ingest:
            car = CarReader(stream)
            for cid, block in car:
                ingest.put_verified(cid, block)
            ingest.commit(car.roots if pin else [])
        return car.roots

    # Keeping

    def pin(self, cid: CID) -> None:
        """Keep everything below a CID from being collected."""
        with self._write_lock, self._index.write() as writer:
            writer.put_pin(cid)

    def unpin(self, cid: CID) -> bool:
        """Let go of a pin; tell whether there was one."""
        with self._write_lock, self._index.write() as writer:
            return writer.drop_pin(cid)

    def pins(self) -> list[CID]:
        """Return what is pinned, as CIDv1."""
        return self._index.pins()

    def remove(self, cid: CID) -> int:
        """Delete the DAG below a CID, except what pins, readers and additions need: bytes freed.

        Content that is not pinned has no promise: another DAG may lose blocks it shared with this.
        """
        if cid.as_v1() in self.pins():
            raise UserError(f"{cid} is pinned", hint="unpin it first")
        return self._sweep(cid)

    def collect(self) -> int:
        """Delete all that is not pinned, read or being added: bytes freed. Additions wait."""
        return self._sweep(None)

    @property
    def usage_bytes(self) -> int:
        """Return the bytes of all blocks and files."""
        return self._used_bytes

    def _sweep(self, root: CID | None) -> int:
        with self._write_lock:
            before = self._used_bytes
            files: list[bytes] | None = None
            while files is None:
                files = self._try_sweep(root)
            for file in files:
                self._flats.remove(file)
            self._used_bytes = self._index.used_bytes()
            return before - self._used_bytes

    def _try_sweep(self, root: CID | None) -> list[bytes] | None:
        """Run one sweep; None when a reader came to hold more while it was marking."""
        held = self._holds()
        relied = [cid for ingest in self._ingests for cid in ingest.relied_on.values()]
        live = collect.reachable(self._index, [*self.pins(), *held, *relied])
        doomed = None
        if root is not None:
            doomed = collect.reachable(self._index, [root], with_files=False)
        with self._hold_lock:
            if not set(self._held) <= held:
                return None
            with self._index.write() as writer:
                return collect.sweep(self._index, writer, live, doomed)

    def _holds(self) -> set[CID]:
        with self._hold_lock:
            return set(self._held)

    # What an Ingest needs

    def enter_ingest(self, ingest: Ingest) -> None:
        """Count an addition among those that a collection respects."""
        with self._write_lock:
            self._ingests.add(ingest)

    def leave_ingest(self, ingest: Ingest, reserved_bytes: int) -> None:
        """Forget an addition and give back the space it had reserved."""
        with self._write_lock:
            self._ingests.discard(ingest)
        with self._space_lock:
            self._reserved_bytes -= reserved_bytes

    def rely_on(self, ingest: Ingest, cid: CID) -> bool:
        """Tell whether a block is here; if so it stays until the addition ends."""
        with self._write_lock:
            known = self._index.has(cid.multihash)
            if known:
                ingest.relied_on[cid.multihash] = cid
            return known

    def has_flat(self, ingest: Ingest, root: CID) -> bool:
        """Tell whether a file is here and laid out flat; if so it stays, as in `rely_on`."""
        with self._write_lock:
            return self.rely_on(ingest, root) and (
                self._index.file_bytes(root.as_v1().encode()) is not None
            )

    def reserve(self, size: int) -> None:
        """Set space aside; raise DiskFullError beyond the capacity."""
        with self._space_lock:
            if self._used_bytes + self._reserved_bytes + size > self.capacity_bytes:
                raise DiskFullError(
                    f"the content store's {self.capacity_bytes} bytes are used up", hint=FULL_HINT
                )
            self._reserved_bytes += size

    def commit_ingest(
        self, temporaries: dict[bytes, str], write: Callable[[IndexWriter], None]
    ) -> None:
        """Name the flat files, then tell the index in one transaction."""
        with disk_errors(), self._write_lock:
            placed: list[bytes] = []
            try:
                for file, temporary in temporaries.items():
                    if self._index.file_bytes(file) is None:
                        self._flats.place(temporary, file)
                        placed.append(file)
                self._flats.sync_names(placed)
                with self._index.write() as writer:
                    write(writer)
            except BaseException:
                for file in placed:
                    if self._index.file_bytes(file) is None:
                        self._flats.remove(file)
                raise
            self._used_bytes = self._index.used_bytes()
