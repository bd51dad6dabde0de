"""The blocks of a DAG from one long answer, for who reads them in the order in which they come.

Asking for each block costs a round trip: 30,000 small files took minutes. A CAR has the blocks in
the order in which a reader needs them. Where it does not (it broke off, it is another order, or the
content is not read as a whole), blocks are asked for one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from lichen.content.car import CarError
from lichen.content.cid import IDENTITY
from lichen.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lichen.content.blocks import Blocks
    from lichen.content.cid import CID

KEPT_BYTES_MAX = 32 * 2**20
PASSED_OVER_BYTES_MAX = 16 * 2**20  # less than is kept: what was passed over is still at hand
BLOCK_OVERHEAD_BYTES = 512


class StreamedBlocks:
    """Blocks from the stream that `follow` opens, and singly from `single`; both are verified."""

    def __init__(
        self,
        single: Blocks,
        open_stream: Callable[[CID], Iterator[tuple[CID, bytes]]],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Take blocks singly until `follow`; `progress` hears how many bytes have come."""
        self._single = single
        self._open = open_stream
        self._progress = progress
        self._stream: Iterator[tuple[CID, bytes]] | None = None
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._come_bytes = 0

    def follow(self, root: CID) -> None:
        """Expect that all below `root` is read, in order; nothing is asked for before it is."""
        self._stream = self._open(root)

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block, or None where the source has none."""
        block = self._kept.get(cid.multihash)
        if block is None and cid.hash_code != IDENTITY:  # those are in no CAR
            block = self._await(cid)
        if block is None:
            block = self._single.get_block(cid)
            if block is not None:
                self._keep(cid, block)
        return block

    def _await(self, cid: CID) -> bytes | None:
        """Read on in the stream until the block comes; give the stream up where it does not."""
        passed_bytes = 0
        try:
            for found, block in self._stream or ():
                self._keep(found, block)
                if found.multihash == cid.multihash:
                    return block
                passed_bytes += len(block) + BLOCK_OVERHEAD_BYTES
                if passed_bytes > PASSED_OVER_BYTES_MAX:
                    break
        except (PeerError, CarError):  # it broke off; one by one shows what is really missing
            pass
        self._stream = None
        return None

    def _keep(self, cid: CID, block: bytes) -> None:
        self._come_bytes += len(block)
        if self._progress is not None:
            self._progress(self._come_bytes)
        before = self._kept.pop(cid.multihash, None)
        if before is not None:
            self._kept_bytes -= len(before) + BLOCK_OVERHEAD_BYTES
        self._kept[cid.multihash] = block
        self._kept_bytes += len(block) + BLOCK_OVERHEAD_BYTES
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old) + BLOCK_OVERHEAD_BYTES
