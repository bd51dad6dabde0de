"""Blocks for the event loop: as many as are read in a moment, so that nobody waits for one path.

A folder may have 65,536 names, and a path may lead through 256 of them. Whoever made such a path
would stop the whole process with every request; threads, which take turns, read it instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.content import CID, RAW, MissingBlockError

if TYPE_CHECKING:
    from lichen.content import BlockStore

BYTES_MAX = 4 << 20  # some 40 ms; a folder of usual size is read six times, for 1.5 MiB


class LaterError(MissingBlockError):
    """The block is here, but to read on would keep all others waiting: threads do it."""


class PromptBlocks:
    """A store's blocks for one answer. Leaves do not count: nothing is looked for in them."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._left = BYTES_MAX

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block, or None when it is not here; raise LaterError when it takes too long."""
        block = self._store.get_block(cid)
        if block is not None and cid.codec != RAW:
            self._left -= len(block)
            if self._left < 0:
                raise LaterError(cid)
        return block
