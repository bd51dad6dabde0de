"""What a DAG weighs, whether all of it is here, and which of its files are large."""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from lichen.content import dag_pb, unixfs
from lichen.content.cid import CID, DAG_PB, IDENTITY
from lichen.content.dag import LINKED_CODECS, links_of
from lichen.content.scratch import ScratchTable
from lichen.errors import LimitError, UserError

BLOCK_OVERHEAD_BYTES = (
    64  # what keeping a block takes beside its bytes: many tiny ones are not free
)
BLOCKS_MAX = 1 << 22
MISSING_MAX = 1000
BLOCKS_UNTIL_REST = 128
REST_S = 0.001


class Weighable(Protocol):
    """Blocks whose sizes are known without reading them."""

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block, or None when it is not here."""
        ...

    def size(self, cid: CID) -> int | None:
        """Return the bytes of a block; None when it is not here."""
        ...


class Weight(msgspec.Struct, frozen=True):
    """A DAG: the bytes and number of its blocks, some of those missing, the roots of its files.

    `bytes` has BLOCK_OVERHEAD_BYTES for each block in it.
    """

    bytes: int
    blocks: int
    missing: tuple[CID, ...]
    files: tuple[CID, ...]


def weigh(
    source: Weighable,
    root: CID,
    folder: str,
    bytes_max: int | None,
    file_bytes_min: int = 1 << 62,
    *,
    missing_max: int = MISSING_MAX,
) -> Weight:
    """Walk a whole DAG, each block once; stop at `missing_max` missing ones, or above `bytes_max`.

    `missing` names up to MISSING_MAX of them, `files` those of `file_bytes_min` at least. What was
    seen is noted below `folder` when it is much. The walk rests now and then, so that a process
    that has other things to do gets to them. Raises LimitError for over BLOCKS_MAX blocks.
    """
    seen = ScratchTable(folder)
    try:
        return _weigh(source, root, seen, bytes_max, file_bytes_min, missing_max)
    finally:
        seen.close()


def _weigh(
    source: Weighable,
    root: CID,
    seen: ScratchTable,
    bytes_max: int | None,
    file_bytes_min: int,
    missing_max: int,
) -> Weight:
    total = blocks = lacking = 0
    missing: list[CID] = []
    files: list[CID] = []
    waiting = [(root, False)]
    while waiting and lacking < missing_max and (bytes_max is None or total <= bytes_max):
        cid, is_in_file = waiting.pop()
        size = source.size(cid)
        if size is None:
            lacking += 1
            missing += [cid] if lacking <= MISSING_MAX else []
            continue
        blocks += 1
        if blocks % BLOCKS_UNTIL_REST == 0:
            time.sleep(REST_S)
        if blocks > BLOCKS_MAX:
            raise LimitError(f"{root} has over {BLOCKS_MAX} blocks", hint="keep parts of it")
        total += size + BLOCK_OVERHEAD_BYTES
        if cid.codec not in LINKED_CODECS:
            continue
        block = cid.digest if cid.hash_code == IDENTITY else source.get_block(cid)
        links, file_bytes = _look(cid, block or b"")
        if file_bytes is not None and not is_in_file and file_bytes >= file_bytes_min:
            files.append(cid)
        for link in links:
            key = link.as_v1().encode()
            if seen.get(key) is None:
                seen.put(key, b"")
                waiting.append((link, is_in_file or file_bytes is not None))
    return Weight(total, blocks, tuple(missing), tuple(files))


def _look(cid: CID, block: bytes) -> tuple[list[CID], int | None]:
    """Return a block's links and, of a UnixFS file, the length that its root claims."""
    try:
        if cid.codec != DAG_PB:
            return links_of(cid, block), None
        node = dag_pb.decode(block)
    except UserError:  # its codec cannot read it: nothing is below
        return [], None
    return [link.cid for link in node.links], _file_bytes(node.data)


def _file_bytes(data: bytes | None) -> int | None:
    try:
        message = unixfs.decode(data or b"")
    except UserError:
        return None
    if message.kind not in {unixfs.Kind.FILE, unixfs.Kind.RAW}:
        return None
    return len(message.data or b"") + sum(message.child_bytes)
