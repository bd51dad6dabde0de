"""Snapshots: the whole state in chunks, so that a new validator need not replay every block.

Chunk 0 is our last block; each further chunk is a canonical list of entries (key, value). The
metadata is the SHA-256 of every chunk, one after the other, and the hash that of the metadata. The
light client of whoever restores vouches for the application hash alone; it is the block's hash, the
block has the state root, and the entries have to make that root. So a chunk is checked when it
comes, and everything together before anything is written.

A snapshot has no history: blocks, and which account did what, begin with its block.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from lichen.encoding import canonical, from_canonical, sha256
from lichen.errors import CorruptionError, LichenError, UserError
from lichen.ledger.blocks import BLOCK_BYTES_MAX, block_hash, decode_block, transactions_hash
from lichen.ledger.comet.messages import Message, Snapshot, encode_snapshot, read_snapshot
from lichen.ledger.machine import block_key
from lichen.ledger.state import Head, entries_of, rebuilt
from lichen.ledger.types import network_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lichen.ledger.store import Store, StoreSnapshot
    from lichen.ledger.types import Genesis

FORMAT = 1
CHUNK_BYTES = 1 << 20
CHUNK_BYTES_MAX = 8 << 20
CHUNKS_MAX = 8192
RESTORED_BYTES_MAX = 1 << 30  # of chunks held in memory until all are there
KEPT_MAX = 2
_HASH_BYTES = 32
_INDEX = "snapshot"

log = structlog.get_logger()


class SnapshotFolder:
    """Makes snapshots every so many CometBFT blocks, on a thread of its own, and keeps the last."""

    def __init__(self, folder: Path, every_blocks: int) -> None:
        """Take the folder, and how often (0: never)."""
        self._folder = folder
        self._every = every_blocks
        self._thread = ThreadPoolExecutor(1, "ledger-snapshots")
        self._making: Future[None] | None = None

    @property
    def enabled(self) -> bool:
        """Whether snapshots are made."""
        return self._every > 0

    def offer(self, store: Store, height: int, own_height: int) -> None:
        """Begin a snapshot of what is written, when it is time for one."""
        due = self._every and own_height and height % self._every == 0
        if due and (self._making is None or self._making.done()):
            view = store.snapshot()
            self._making = self._thread.submit(self._make, view, height, own_height)

    def close(self) -> None:
        """Wait for a snapshot that is being made."""
        self._thread.shutdown()

    def available(self) -> list[Snapshot]:
        """Return the snapshots that are whole, newest first."""
        found = []
        for path in sorted(self._paths(), key=lambda path: -int(path.name)):
            fields = Message((path / _INDEX).read_bytes())
            found.append(read_snapshot(fields))
        return found

    def load(self, height: int, form: int, chunk: int) -> bytes:
        """Return a chunk, or nothing when it is not here."""
        path = self._folder / str(max(height, 0)) / str(max(chunk, 0))
        return path.read_bytes() if form == FORMAT and path.is_file() else b""

    def _paths(self) -> list[Path]:
        return [path.parent for path in self._folder.glob(f"[0-9]*/{_INDEX}")]

    def _make(self, view: StoreSnapshot, height: int, own_height: int) -> None:
        fresh = self._folder / f"new-{height}"
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            hashes = []
            for index, chunk in enumerate(_chunks(view, own_height)):
                (fresh / str(index)).write_bytes(chunk)
                hashes.append(hashlib.sha256(chunk).digest())
            metadata = b"".join(hashes)
            one = Snapshot(height, FORMAT, len(hashes), sha256(metadata), metadata)
            (fresh / _INDEX).write_bytes(encode_snapshot(one))
            shutil.rmtree(self._folder / str(height), ignore_errors=True)
            fresh.rename(self._folder / str(height))
            for old in sorted(self._paths(), key=lambda path: -int(path.name))[KEPT_MAX:]:
                shutil.rmtree(old)
        except (OSError, LichenError):  # without one, the others replay blocks
            log.exception("snapshot-failed", height=height)
            shutil.rmtree(fresh, ignore_errors=True)
        finally:
            view.close()


class Restoring:
    """A snapshot on its way in: its chunks, checked one by one."""

    def __init__(self, snapshot: Snapshot, app_hash: bytes) -> None:
        """Take what was offered; raise UserError when it cannot be ours."""
        self.snapshot = snapshot
        self._app_hash = app_hash
        self._chunks: dict[int, bytes] = {}
        self._bytes = 0
        fits = (
            snapshot.format == FORMAT
            and 0 < snapshot.chunks <= CHUNKS_MAX
            and len(snapshot.metadata) == snapshot.chunks * _HASH_BYTES
            and sha256(snapshot.metadata) == snapshot.hash
        )
        if not fits:
            raise UserError("this is no snapshot of a ledger")

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return len(self._chunks) == self.snapshot.chunks

    def add(self, index: int, chunk: bytes) -> bool:
        """Take a chunk; False when it is not the one that was offered, or the snapshot is huge."""
        wanted = self.snapshot.metadata[index * _HASH_BYTES : (index + 1) * _HASH_BYTES]
        if not 0 <= index < self.snapshot.chunks or len(chunk) > CHUNK_BYTES_MAX:
            return False
        fits = self._bytes + len(chunk) <= RESTORED_BYTES_MAX
        if not fits or hashlib.sha256(chunk).digest() != wanted:
            return False
        self._bytes += 0 if index in self._chunks else len(chunk)
        self._chunks[index] = chunk
        return True

    def entries(self, genesis: Genesis, store: Store) -> Mapping[bytes, bytes | None]:
        """Return what to write over the genesis in `store`.

        Raises CorruptionError or UserError when the chunks are not the state that the application
        hash stands for.
        """
        data = self._chunks[0]
        block = decode_block(data)
        digest = block_hash(network_id(genesis), block.header)
        if digest != self._app_hash:
            raise CorruptionError("the snapshot's block is not the one that was agreed on")
        if transactions_hash(block.transactions) != block.header.transactions_hash:
            raise CorruptionError("the snapshot's block was changed")
        header = block.header
        head = Head(header.height, digest, header.time_ms, header.state_root)
        values: dict[bytes, bytes] = {}
        for index in range(1, self.snapshot.chunks):
            values.update(from_canonical(self._chunks[index], tuple[tuple[bytes, bytes], ...]))
        fresh = rebuilt(genesis, head, values)
        old = dict.fromkeys(key for prefix in (b"s/", b"t", b"x/") for key, _ in store.scan(prefix))
        return {**old, **fresh, block_key(header.height): data}


def _chunks(view: StoreSnapshot, own_height: int) -> Iterator[bytes]:
    key = block_key(own_height)
    block = next((value for found, value in view.scan(key) if found == key), b"")
    if not 0 < len(block) <= BLOCK_BYTES_MAX:
        raise CorruptionError("the last block is missing", hint="replay the ledger")
    yield block
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for entry in entries_of(view):
        part.append(entry)
        size += len(entry[0]) + len(entry[1])
        if size >= CHUNK_BYTES:
            yield canonical(part)
            part, size = [], 0
    if part:
        yield canonical(part)
