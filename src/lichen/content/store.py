"""The block store: file content as flat files, everything else in LMDB, verified at ingest.

What an add, put or import has acknowledged is on disk. One process at a time has a store open; any
thread may read and add while another one collects: they take turns at short commits only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from lichen.content import reader, unixfs
from lichen.content.car import CarReader, Readable
from lichen.content.cid import CID, DAG_PB, IDENTITY, RAW
from lichen.content.disk import (
    FULL_HINT,
    DiskFullError,
    disk_errors,
    free_bytes,
    fsync_folder,
    lock_folder,
)
from lichen.content.flat import FlatFile, FlatFiles
from lichen.content.index import Form, Index, IndexWriter, Run
from lichen.content.ingest import SMALL_FILE_BYTES_MAX, Ingest
from lichen.content.keeps import Keeps
from lichen.content.profile import V1_2025, Profile
from lichen.content.recent import Recent
from lichen.content.sweeper import Sweeper
from lichen.content.tree import Added, TreeImport
from lichen.content.turns import Turns
from lichen.content.weigh import Weight, weigh
from lichen.errors import CorruptionError, PeerUnavailableError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from lichen.content.collect import Collection
    from lichen.content.pins import Pin

PINS_PER_PAGE = 1024
STEP_S = 0.02
HASH_THREADS = 2
SYNC_THREADS = 2
MAP_BYTES_MAX = 16 << 40
_MAP_SLACK_BYTES = 1 << 30
NOTES_MAX = 1 << 21  # blocks that all additions together keep in mind, some 500 bytes each
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
        self._turns = Turns()
        self._space_lock = threading.Lock()
        self._keeps = Keeps()
        self._recent = Recent()
        self._sweeper = Sweeper(
            self._index, self._flats, self._keeps, self._turns, self.get_block_quietly,
            self.temporary_folder,
        )  # fmt: skip
        self._reserved_bytes = 0
        self._notes = 0
        self.refusals = 0  # additions for which there was no room

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
        """Close the store; no thread may be using it, except for a collection, which ends."""
        self._sweeper.close()
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
        if isinstance(found, Run):
            self._recent.add(found.file)
            return self._read_run(cid, found)
        if found is not None:
            self._recent.add(cid.multihash)
        return found

    def get_part(self, cid: CID, start: int, end: int) -> tuple[bytes, int] | None:
        """Return the bytes `start` .. `end` of a block and its length; see `blocks.read_part`."""
        if cid.hash_code == IDENTITY:
            return None
        found = self._index.part(cid.multihash, start, end)
        if not isinstance(found, Run):
            if found is not None:
                self._recent.add(cid.multihash)
            return found
        flat = self._flats.open(found.file) if found.form is Form.RAW else None
        if flat is None:
            return None
        self._recent.add(found.file)
        size = min(end, found.length) - start
        data = flat.pread(size, found.offset + start)
        return (data, found.length) if len(data) == size else None

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
            self._recent.add(file)
            return flat
        if self._index.file_bytes(file) is not None:
            self._recent.add(file)
            return self._flats.open(file)
        found = self._index.get(cid.multihash)
        if not isinstance(found, Run) or found.form is not _FORM_OF_LEAF.get(cid.codec):
            return None
        self._recent.add(found.file)
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
        self._keeps.hold(cid)
        try:
            yield
        finally:
            self._keeps.let_go(cid)

    def get_block_quietly(self, cid: CID) -> bytes | None:
        """Return a block without counting it as used."""
        found = self._index.get(cid.multihash)
        return self._read_run(cid, found) if isinstance(found, Run) else found

    def _read_run(self, cid: CID, run: Run) -> bytes | None:
        flat = self._flats.open(run.file)
        data = b"" if flat is None else flat.pread(run.length, run.offset)
        if len(data) != run.length:
            again = self._index.get(cid.multihash)
            if again != run or (flat is None and self._flats.open(run.file) is not None):
                return self.get_block(cid)  # collected, or added again, between the two looks
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
        with self._turns.take():
            with self._index.write() as writer:
                writer.pins.put(cid)
            self._keeps.keep((cid,))

    def unpin(self, cid: CID) -> bool:
        """Let go of a pin; tell whether there was one."""
        with self._turns.take(), self._index.write() as writer:
            return writer.pins.drop(cid)

    def pins(self) -> list[CID]:
        """Return what is pinned, by the store or by any account, as CIDv1."""
        found: list[bytes] = []
        with self._index.read_pins() as txn:
            while page := self._index.pins.page(txn, found[-1] if found else b"", PINS_PER_PAGE):
                found += page
        return [CID.decode(key) for key in found]

    def is_pinned(self, cid: CID) -> bool:
        """Tell whether this very CID is pinned, by the store or by any account."""
        with self._index.read_pins() as txn:
            return self._index.pins.is_pinned(txn, cid)

    def weigh(self, root: CID, bytes_max: int | None = None) -> Weight:
        """Walk a DAG: what it weighs, what of it is missing, which of its files are large."""
        return weigh(self, root, self.temporary_folder, bytes_max, SMALL_FILE_BYTES_MAX + 1)

    def gather(self, weight: Weight) -> None:
        """Lay out flat what of a DAG's files came in parts, where there is room for it."""
        files = [cid for cid in weight.files if not self.is_flat(cid.as_v1().encode())]
        if not files:
            return
        with contextlib.suppress(DiskFullError), self.ingest() as ingest:
            ingest.gather(files, weight)
            ingest.commit()

    def pin_for(self, account: bytes, pin: Pin, bytes_max: int | None = None) -> None:
        """Keep a DAG on an account, in place of its pin of the same CID.

        Raises QuotaError when all its pins would weigh over `bytes_max` together.
        """
        with self._turns.take():
            with self._index.write() as writer:
                writer.pins.put_of(account, pin, bytes_max)
            self._keeps.keep((pin.cid,))

    def unpin_for(self, account: bytes, cid: CID) -> bool:
        """Let go of an account's pin; tell whether there was one. Others' pins stay."""
        with self._turns.take(), self._index.write() as writer:
            return writer.pins.drop_of(account, cid)

    def pin_of(self, account: bytes, cid: CID) -> Pin | None:
        """Return an account's pin of a CID, or None."""
        with self._index.read_pins() as txn:
            return self._index.pins.pin_of(txn, account, cid)

    def pins_of(self, account: bytes, after: CID | None = None, limit: int = 500) -> list[Pin]:
        """Return up to `limit` pins of an account behind a CID."""
        with self._index.read_pins() as txn:
            return self._index.pins.pins_of(txn, account, after, limit)

    def pinned_bytes_of(self, account: bytes) -> int:
        """Return what an account's pins weigh together."""
        with self._index.read_pins() as txn:
            return self._index.pins.bytes_of(txn, account)

    def drop_expired(self, now_ms: int) -> int:
        """Let go of pins whose time is over, a bounded number; return how many."""
        with self._index.read_pins() as txn:
            expired = self._index.pins.expired(txn, now_ms, PINS_PER_PAGE)
        if expired:
            with self._turns.take(), self._index.write() as writer:
                for account, cid in expired:
                    writer.pins.drop_expired_of(account, cid, now_ms)
        return len(expired)

    def remove(self, cid: CID) -> int:
        """Delete the DAG below a CID, except what pins, readers and additions need: bytes freed.

        Content that is not pinned has no promise: another DAG may lose blocks it shared with this.
        """
        if self.is_pinned(cid):
            raise UserError(f"{cid} is pinned", hint="unpin it first")
        return self._collect_at_once(cid)

    def collect(self) -> int:
        """Delete all that is not pinned, read or being added: bytes freed. Others go on."""
        return self._collect_at_once(None)

    @contextlib.contextmanager
    def collecting(
        self,
        *,
        only: CID | None = None,
        bytes_min: int | None = None,
        spare_recent: bool = False,
        needed: Iterable[CID] = (),
    ) -> Iterator[Collection]:
        """Begin a collection, to be carried on by `collect_step`; one at a time.

        `only` spares all that is not below a CID, `spare_recent` what was read or added lately, and
        what is below `needed` stays; it ends once `bytes_min` are freed.
        """
        recent = self._recent if spare_recent else None
        with self._sweeper.collecting(only, bytes_min, recent, needed) as collection:
            yield collection

    def collect_step(self, collection: Collection, step_s: float = STEP_S) -> bool:
        """Carry a collection on for about that long; tell whether there is more to do.

        Each deletion is one short transaction, for which additions wait. Raises DiskFullError.
        """
        return self._sweeper.step(collection, step_s)

    def _collect_at_once(self, only: CID | None) -> int:
        with self.collecting(only=only) as collection:
            while self.collect_step(collection):
                pass
            return collection.freed_bytes

    @property
    def usage_bytes(self) -> int:
        """Return the bytes of all blocks and files."""
        return self._index.used

    def room_bytes(self) -> int:
        """Return how much could be stored in all: the capacity, or less on a smaller disk."""
        return min(self.capacity_bytes, self._index.used + free_bytes(self.temporary_folder))

    def filled_percent(self) -> int:
        """Return how full the store is."""
        return self._index.used * 100 // max(1, self.room_bytes())

    # What an Ingest needs

    def enter_ingest(self, ingest: Ingest) -> None:
        """Count an addition among those that a collection respects."""
        self._keeps.begin_addition(ingest.relied_on)

    def leave_ingest(self, ingest: Ingest, reserved_bytes: int, notes: int) -> None:
        """Forget an addition and give back the space it had reserved."""
        self._keeps.end_addition(ingest.relied_on)
        with self._space_lock:
            self._reserved_bytes -= reserved_bytes
            self._notes -= notes

    def rely_on(self, ingest: Ingest, cid: CID) -> bool:
        """Tell whether a block is here; if so it stays until the addition ends."""
        return self._keeps.rely(ingest.relied_on, cid, self._index.where)

    def has_flat(self, ingest: Ingest, root: CID) -> bool:
        """Tell whether a file is here and laid out flat; if so it stays, as in `rely_on`."""
        if not self.rely_on(ingest, root):
            return False
        file = root.as_v1().encode()
        return self._index.file_bytes(file) is not None and not self._keeps.is_doomed(file)

    def is_flat(self, file: bytes) -> bool:
        """Tell whether the file of that root (binary CIDv1) is laid out flat."""
        return self._index.file_bytes(file) is not None

    def note(self, count: int) -> None:
        """Let an addition keep so many more blocks in mind; PeerUnavailableError beyond NOTES_MAX.

        Whole files and folders that come as such take few; CARs of many tiny blocks take most.
        """
        with self._space_lock:
            if self._notes + count > NOTES_MAX:
                raise PeerUnavailableError(
                    "too many blocks are being added here at once",
                    hint="try again shortly, or use larger blocks",
                )
            self._notes += count

    def reserve(self, size: int) -> None:
        """Set space aside; raise DiskFullError beyond the capacity."""
        with self._space_lock:
            if self._index.used + self._reserved_bytes + size > self.capacity_bytes:
                self.refusals += 1
                raise DiskFullError(
                    f"the content store's {self.capacity_bytes} bytes are used up", hint=FULL_HINT
                )
            self._reserved_bytes += size

    def commit_ingest(
        self,
        temporaries: dict[bytes, str],
        write: Callable[[IndexWriter], None],
        added: list[CID],
        scattered: set[bytes],
    ) -> None:
        """Name the flat files, then tell the index in one transaction.

        `added` is what is new, `scattered` the files that the transaction drops.
        """
        with disk_errors(), self._turns.take():
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
            self._keeps.keep(added)
            graves = self._sweeper.bury(scattered)
        self._sweeper.unlink(graves)
        self._recent.add_all(temporaries)
        self._recent.add_all(cid.multihash for cid in added)
