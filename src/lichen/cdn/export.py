"""CARs of what stands at a path: the blocks that lead there, then those below, each block once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.content import CID, Blocks, list_directory, need_block, resolve, walk, write_car
from lichen.content.cid import IDENTITY
from lichen.errors import LimitError

if TYPE_CHECKING:
    from collections.abc import Iterator

CAR_BLOCKS_MAX = 1 << 20


class _Noted:
    """Notes which blocks were read, so that a client can walk the same way."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._fresh: list[tuple[CID, bytes]] = []
        self.seen: set[bytes] = set()

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block; remember it when it is read for the first time."""
        block = self._blocks.get_block(cid)
        if block is not None and cid.multihash not in self.seen:
            self.seen.add(cid.multihash)
            self._fresh.append((cid, block))
        return block

    def take(self) -> list[tuple[CID, bytes]]:
        """Return what was read since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh


def export_path(blocks: Blocks, root: CID, path: str, scope: str) -> tuple[CID, Iterator[bytes]]:
    """Return what a path leads to, and the CAR of it. Raises NotFoundError, MissingBlockError.

    `scope` is as in the trustless gateway specification: `block` is the one block at the path,
    `entity` a whole file or the blocks that list a directory, `all` everything below.
    """
    noted = _Noted(blocks)
    if not path.strip("/"):
        need_block(noted, root)  # of any codec, not UnixFS alone
        target, is_directory = root, False
    else:
        entry = resolve(noted, root, path)
        target, is_directory = entry.cid, entry.is_directory
    if scope == "entity" and not path.strip("/"):
        is_directory = _is_directory(blocks, root)
    return target, write_car((target,), _blocks(blocks, noted, target, scope, is_directory))


def _is_directory(blocks: Blocks, cid: CID) -> bool:
    return resolve(blocks, cid).is_directory


def _blocks(
    blocks: Blocks, noted: _Noted, target: CID, scope: str, is_directory: bool
) -> Iterator[tuple[CID, bytes]]:
    yield from noted.take()
    if scope == "block":
        return
    if scope == "entity" and is_directory:
        for _ in list_directory(noted, target):
            yield from noted.take()
        yield from noted.take()
        return
    for count, (cid, block) in enumerate(walk(blocks, target)):
        if count >= CAR_BLOCKS_MAX:
            raise LimitError(f"a CAR has at most {CAR_BLOCKS_MAX} blocks", hint="export its parts")
        if cid.multihash not in noted.seen and cid.hash_code != IDENTITY:
            yield cid, block
