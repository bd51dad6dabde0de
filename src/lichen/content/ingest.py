"""One addition to the store: everything it stages becomes visible at once, or nothing does.

Leaves of files go to flat files, other blocks to the index. Blocks that arrive one by one (a CAR, a
fetch) are set aside first; when they turn out to be a whole file, its content is laid out flat.
Content is on disk (fsync) and has its name before the index speaks of it in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec

from lichen.content import dag_pb, reader, unixfs
from lichen.content.blocks import check_block
from lichen.content.chunks import Hasher, groups, read_head
from lichen.content.cid import CID, DAG_PB, IDENTITY, RAW
from lichen.content.disk import disk_errors
from lichen.content.flat import FlatWriter
from lichen.content.importer import FileBuilder, Root, leaf_block, leaf_digest
from lichen.content.index import Form, IndexWriter, Run
from lichen.content.profile import V1_2025, Profile
from lichen.content.spool import Spool
from lichen.errors import LimitError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType

    from lichen.content.car import Readable
    from lichen.content.pins import AccountPins
    from lichen.content.store import BlockStore
    from lichen.content.weigh import Weight

SMALL_FILE_BYTES_MAX = 64 * 1024  # files up to this live in the index: no fsync each, one read
STAGED_BLOCKS_MAX = 1 << 20
SYNCS_PENDING_MAX = 16
SYNC_EVERY_BYTES = 16 << 20  # begin writing back early, so that the last fsync is short
AMPLIFICATION_MAX = 2  # blocks may be laid out as files of so many times the bytes received
AMPLIFICATION_FREE_BYTES = 16 << 20
AMPLIFICATION_FREE_LEAVES = 4096
LEAF_CIDV1 = {Form.RAW: bytes((1, RAW)), Form.WRAPPED: bytes((1, DAG_PB))}


class _Staged(msgspec.Struct, frozen=True, gc=False):
    """A block set aside, and where."""

    cid: CID
    where: Spool | FlatWriter
    offset: int
    length: int

    def read(self) -> bytes:
        return self.where.read(self.offset, self.length)


class _Flat:
    """A flat file that is complete but not yet placed."""

    def __init__(self, writer: FlatWriter) -> None:
        self.writer = writer
        self.runs: list[tuple[bytes, Form, int, int]] = []
        self.syncs: list[Future[None]] = []


class Ingest:
    """Stage blocks and files, then `commit`; leaving the `with` block without it drops everything.

    Used by one thread. What the store already has is not stored again, and is kept from being
    collected until this ends.
    """

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._spool = Spool(store.temporary_folder)
        self._staged: dict[bytes, _Staged] = {}
        self._leaves: _Flat | None = None
        self._file_nodes: dict[bytes, CID] = {}
        self._below_files: set[bytes] = set()
        self._flats: dict[bytes, _Flat] = {}
        self._open_flats: list[_Flat] = []
        self._syncing: list[Future[None]] = []
        self._reserved_bytes = 0
        self._notes = 0
        self._received_bytes = 0
        self._received_blocks = 0
        self._laid_out_bytes = 0
        self._laid_out_leaves = 0
        self._scattered: set[bytes] = set()
        self.relied_on: dict[bytes, CID] = {}

    def __enter__(self) -> Self:
        self._store.enter_ingest(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for future in self._syncing:
            future.exception()
        for flat in self._open_flats:
            flat.writer.discard_after(flat.syncs)
        self._spool.close()
        self._staged.clear()
        self._store.leave_ingest(self, self._reserved_bytes, self._notes)
        self._reserved_bytes = self._notes = 0

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block that is staged here or in the store."""
        staged = self._staged.get(cid.multihash)
        return self._store.get_block(cid) if staged is None else staged.read()

    def get_part(self, cid: CID, start: int, end: int) -> tuple[bytes, int] | None:
        """Return the bytes `start` .. `end` of a block and its length; see `blocks.read_part`."""
        staged = self._staged.get(cid.multihash)
        if staged is None:
            return self._store.get_part(cid, start, end)
        size = min(end, staged.length) - start
        return staged.where.read(staged.offset + start, size), staged.length

    def size(self, cid: CID) -> int | None:
        """Return the bytes of a block that is staged here or in the store, without reading it."""
        staged = self._staged.get(cid.multihash)
        return self._store.size(cid) if staged is None else staged.length

    @property
    def new_bytes(self) -> int:
        """Return the bytes of what was staged: what the store did not have."""
        return self._reserved_bytes

    def put_block(self, cid: CID, data: bytes) -> None:
        """Verify and stage a block; raise VerificationError, LimitError or DiskFullError."""
        check_block(cid, data)
        self.put_verified(cid, data)

    def put_verified(self, cid: CID, data: bytes) -> None:
        """Stage a block whose hash the caller has checked."""
        self._received_bytes += len(data)
        self._received_blocks += 1
        if cid.hash_code == IDENTITY or self._is_known(cid):
            return
        if cid.codec == DAG_PB:
            self._note_file_node(cid, data)
        is_leaf = cid.multihash in self._below_files or len(data) > SMALL_FILE_BYTES_MAX
        if cid.codec == RAW and is_leaf:
            self._stage(cid, data, self._leaves_writer())
        else:
            self._stage(cid, data, self._spool)

    def stage_node(self, cid: CID, block: bytes) -> None:
        """Stage a block that this process made itself."""
        if not self._is_known(cid):
            self._stage(cid, block, self._spool)

    def add_file(
        self,
        stream: Readable,
        profile: Profile = V1_2025,
        progress: Callable[[int], None] | None = None,
    ) -> Root:
        """Import a stream as a file; `progress` hears how many bytes were read."""
        builder = FileBuilder(profile, self.stage_node)
        head = read_head(stream, SMALL_FILE_BYTES_MAX + 1)
        if len(head) > SMALL_FILE_BYTES_MAX:
            source = groups(head, stream, profile.chunk_bytes)
            return self._write_flat(source, builder, profile, progress)
        cid = builder.leaf(leaf_digest(head, profile), len(head))
        self.stage_node(cid, leaf_block(head, profile))
        if progress is not None:
            progress(len(head))
        return builder.finish()

    def commit(self, pins: Iterable[CID] = (), of_account: AccountPins | None = None) -> None:
        """Make everything durable and visible, with pins made in the same transaction.

        Raises QuotaError when those of an account would be too heavy; then nothing is added.
        """
        pins = list(pins)
        pinned = [*pins]
        if of_account is not None:
            pinned += [pin.cid for pin in of_account.pins]
        with disk_errors():
            self._lay_out_files()
            self._wait_for_syncs(0)
        added = [staged.cid for staged in self._staged.values()]
        self._store.commit_ingest(
            {file: flat.writer.path for file, flat in self._flats.items()},
            lambda writer: self._write_index(writer, pins, of_account),
            [*pinned, *map(CID.decode, self._flats), *added],
            self._scattered,
        )

    def _write_index(
        self, writer: IndexWriter, pins: Iterable[CID], of_account: AccountPins | None
    ) -> None:
        for file, flat in self._flats.items():
            writer.put_file(file, flat.writer.size)
            for multihash, form, offset, length in flat.runs:
                writer.put_run(multihash, Run(form, file, offset, length), self._scattered)
        for file in self._scattered:
            writer.drop_empty_file(file)
        for multihash, staged in self._staged.items():
            writer.put_inline(multihash, staged.read())
        for cid in pins:
            writer.pins.put(cid)
        if of_account is not None:
            for pin in of_account.pins:
                writer.pins.put_of(of_account.account, pin, of_account.bytes_max)

    # Staging

    def _stage(self, cid: CID, data: bytes, where: Spool | FlatWriter) -> None:
        if len(self._staged) >= STAGED_BLOCKS_MAX:
            raise LimitError(
                f"over {STAGED_BLOCKS_MAX} blocks in one addition", hint="split it into parts"
            )
        self._reserve(len(data))
        self._note(1)
        with disk_errors():
            offset = where.append(data)
        self._staged[cid.multihash] = _Staged(cid, where, offset, len(data))
        if self._leaves is not None and where is self._leaves.writer:
            self._sync_early(self._leaves, offset)

    def _leaves_writer(self) -> FlatWriter:
        """Leaves are set aside one behind the other: often that already is the flat file."""
        if self._leaves is None:
            self._leaves = self._new_flat()
        return self._leaves.writer

    def _is_known(self, cid: CID) -> bool:
        if cid.multihash in self._staged:
            return True
        return self._store.rely_on(self, cid)

    def _note_file_node(self, cid: CID, data: bytes) -> None:
        """Remember dag-pb blocks that may be roots of files; malformed ones are just blocks."""
        try:
            node = dag_pb.decode(data)
            message = unixfs.decode(node.data or b"")
        except UserError:
            return
        if message.kind not in {unixfs.Kind.FILE, unixfs.Kind.RAW}:
            return
        if len(self._below_files) + len(node.links) > STAGED_BLOCKS_MAX:
            return  # more than this addition can bring: links cost memory, blocks or not
        self._note(len(node.links))
        self._file_nodes[cid.multihash] = cid
        self._below_files.update(link.cid.multihash for link in node.links)

    def _note(self, count: int) -> None:
        self._store.note(count)
        self._notes += count

    def _reserve(self, size: int) -> None:
        self._store.reserve(size)
        self._reserved_bytes += size

    # Flat files

    def _write_flat(
        self,
        source: Iterator[memoryview],
        builder: FileBuilder,
        profile: Profile,
        progress: Callable[[int], None] | None,
    ) -> Root:
        flat = self._new_flat()
        form = Form.RAW if profile.raw_leaves else Form.WRAPPED
        hasher = Hasher(self._store.hash_threads, profile)
        for group in source:
            hasher.submit(group)
            self._append(flat, group)
            self._take_leaves(flat, builder, form, hasher.due())
            if progress is not None:
                progress(len(group))
        self._take_leaves(flat, builder, form, hasher.finish())
        root = builder.finish()
        self._finish_flat(flat, root.cid)
        return root

    def _new_flat(self) -> _Flat:
        with disk_errors():
            flat = _Flat(FlatWriter(self._store.temporary_folder))
        self._open_flats.append(flat)
        return flat

    def _append(self, flat: _Flat, data: bytes | memoryview) -> int:
        self._reserve(len(data))
        with disk_errors():
            offset = flat.writer.append(data)
        self._sync_early(flat, offset)
        return offset

    def _sync_early(self, flat: _Flat, offset: int) -> None:
        if offset // SYNC_EVERY_BYTES != flat.writer.size // SYNC_EVERY_BYTES:
            flat.syncs.append(self._store.sync_threads.submit(flat.writer.sync))

    def _take_leaves(
        self,
        flat: _Flat,
        builder: FileBuilder,
        form: Form,
        digests: Iterable[tuple[bytes, int]],
    ) -> None:
        for digest, length in digests:
            cid = builder.leaf(digest, length)
            offset = flat.runs[-1][2] + flat.runs[-1][3] if flat.runs else 0
            flat.runs.append((cid.multihash, form, offset, length))

    def _finish_flat(self, flat: _Flat, root: CID) -> None:
        file = root.as_v1().encode()
        if file in self._flats or self._store.has_flat(self, root):
            self._drop_flat(flat)
        else:
            self._keep_flat(flat, root)

    def _keep_flat(self, flat: _Flat, root: CID) -> None:
        self._flats[root.as_v1().encode()] = flat
        self._syncing.append(self._store.sync_threads.submit(flat.writer.finish_after, flat.syncs))
        with disk_errors():
            self._wait_for_syncs(SYNCS_PENDING_MAX)

    def _wait_for_syncs(self, pending_max: int) -> None:
        while len(self._syncing) > pending_max:
            self._syncing.pop(0).result()

    # Blocks that came one by one

    def _lay_out_files(self) -> None:
        self._lay_out(
            [
                cid
                for multihash, cid in self._file_nodes.items()
                if multihash not in self._below_files
            ]
        )
        self._lay_out(
            [
                staged.cid
                for staged in self._staged.values()
                if staged.cid.codec == RAW and staged.length > SMALL_FILE_BYTES_MAX
            ]
        )

    def _lay_out(self, roots: list[CID]) -> None:
        if len(roots) != 1 or not self._adopt(roots[0]):
            for root in roots:
                self._lay_out_file(root)
        self._forget_covered()

    def _adopt(self, root: CID) -> bool:
        """Take the leaves set aside as the flat file, where they are just that; or return False."""
        flat, end = self._leaves, 0
        if flat is None:
            return False
        try:
            for span in reader.spans(self, root):
                staged = self._staged.get(span.cid.multihash)
                place = (span.offset, span.length)
                if staged is None or staged.where is not flat.writer:
                    return False
                if (staged.offset, staged.length) != place or span.cid.codec != RAW:
                    return False
                end = span.offset + span.length
        except UserError:
            return False
        if end != flat.writer.size or end <= SMALL_FILE_BYTES_MAX:
            return False
        flat.runs = [
            (multihash, Form.RAW, staged.offset, staged.length)
            for multihash, staged in self._staged.items()
            if staged.where is flat.writer
        ]
        self._leaves = None
        self._keep_flat(flat, root)
        return True

    def _forget_covered(self) -> None:
        """Keep leaves once: those inside flat files need no copy in the index."""
        for flat in self._flats.values():
            for multihash, *_ in flat.runs:
                self._staged.pop(multihash, None)

    def gather(self, files: Iterable[CID], weight: Weight) -> None:
        """Lay out files whose blocks are in the store one by one, where they came in parts.

        Their leaves then are in the one file, and no longer by themselves. `weight` is of the DAG
        that they are in: it bounds what is laid out.
        """
        self._received_bytes += weight.bytes
        self._received_blocks += weight.blocks
        for root in files:
            if not self._store.has_flat(self, root):
                self._lay_out_file(root)
        for flat in self._flats.values():
            for multihash, form, *_ in flat.runs:
                leaf = LEAF_CIDV1[form] + multihash
                if leaf not in self._flats and self._store.is_flat(leaf):
                    self._scattered.add(leaf)

    def _lay_out_file(self, root: CID) -> None:
        """Write a file's content flat, if all of it is here and its sizes are honest."""
        try:
            size = reader.stat(self, root).file_bytes
        except UserError:
            return
        if size <= SMALL_FILE_BYTES_MAX or not self._may_lay_out(size):
            return
        flat = self._new_flat()
        try:
            self._copy_leaves(flat, root)
        except UserError:
            self._drop_flat(flat)
        else:
            self._finish_flat(flat, root)

    def _may_lay_out(self, size: int) -> bool:
        """Keep small blocks that claim to be huge files from filling the disk: they stay blocks."""
        limit = AMPLIFICATION_MAX * self._received_bytes + AMPLIFICATION_FREE_BYTES
        if self._laid_out_bytes + size > limit:
            return False
        self._laid_out_bytes += size
        return True

    def _drop_flat(self, flat: _Flat) -> None:
        flat.writer.discard_after(flat.syncs)
        self._open_flats.remove(flat)

    def _copy_leaves(self, flat: _Flat, root: CID) -> None:
        leaves_max = AMPLIFICATION_MAX * self._received_blocks + AMPLIFICATION_FREE_LEAVES
        for leaf in reader.leaves(self, root):
            self._laid_out_leaves += 1
            if self._laid_out_leaves > leaves_max:
                raise LimitError(f"{root} repeats few blocks very often")
            offset = self._append(flat, reader.leaf_content(leaf))
            form = _form_of(leaf)
            if form is not None:
                flat.runs.append((leaf.cid.multihash, form, offset, leaf.length))


def _form_of(leaf: reader.Leaf) -> Form | None:
    """Return how the leaf's block is rebuilt from its content; None where it cannot be."""
    if leaf.cid.codec == RAW:
        return Form.RAW
    before, behind = unixfs.wrap_leaf(leaf.length)
    size = len(before) + leaf.length + len(behind)
    if len(leaf.block) == size and leaf.block.startswith(before) and leaf.block.endswith(behind):
        return Form.WRAPPED
    return None
