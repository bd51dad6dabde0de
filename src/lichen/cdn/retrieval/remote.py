"""The store, and behind it the network: blocks that are not here are asked for as they are needed.

Those that will be needed next are fetched meanwhile. Whatever reads blocks (paths, listings, files,
CARs) reads these without knowing. What came is kept together; `keep` stores it as one addition, so
that a file that was read whole is laid out flat.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from lichen.cdn.retrieval.ahead import Ahead, Order
from lichen.content import CID, DiskFullError, Ingest
from lichen.errors import LimitError, NotFoundError, PeerUnavailableError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.content import BlockStore

BYTES_MAX = 8 * 2**30
BLOCKS_MAX = 200_000
FILLED_PERCENT_MAX = 80  # of the store, with what visitors had fetched; the rest is for uploads

log = structlog.get_logger()


class RemoteBlocks:
    """Blocks for one request, used by one thread at a time. `fetch` blocks and verifies."""

    def __init__(
        self, store: BlockStore, fetch: Callable[[CID], bytes], ahead: Ahead | None = None
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._ahead = ahead
        self._order = Order(None if ahead is None else ahead.peek)
        self.is_local = False  # while set, what is not in the store counts as missing
        self._fetched: set[bytes] = set()
        self._foreseen = 0
        self._stack = contextlib.ExitStack()
        self._ingest: Ingest | None = None
        self._stores = True
        self._bytes = 0
        self._blocks = 0

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block from here or from the network; None when nobody has it."""
        block = self._here.get_block(cid)
        if block is not None:
            self._order.saw(cid, block)
            return block
        if self.is_local:
            return None
        try:
            block = self._fetch_one(cid)
        except NotFoundError:
            return None
        self._order.saw(cid, block)
        self._fetched.add(cid.multihash)
        self._bytes += len(block)
        self._blocks += 1
        if self._bytes > BYTES_MAX or self._blocks > BLOCKS_MAX:
            raise LimitError(
                f"over {BYTES_MAX} bytes or {BLOCKS_MAX} blocks had to be fetched",
                hint="fetch the content in parts",
            )
        self._stage(cid, block)
        return block

    def get_part(self, cid: CID, start: int, end: int) -> tuple[bytes, int] | None:
        """Return a part of a block that is here, and the block's length."""
        return self._here.get_part(cid, start, end)

    def read_all(self) -> None:
        """Expect that all of the DAG will be read: fetch ahead from the start."""
        self._order.is_eager = True

    @property
    def _here(self) -> BlockStore | Ingest:
        return self._store if self._ingest is None else self._ingest

    def _fetch_one(self, cid: CID) -> bytes:
        """Fetch a block, and begin with those behind it before waiting for it."""
        if self._ahead is None:
            return self._fetch(cid)
        ahead = self._ahead
        is_enough = self._order.is_eager and len(ahead) > self._foreseen // 2
        if cid not in ahead or not is_enough:
            self._look_ahead(ahead, cid)
        block = ahead.take(cid)
        return self._fetch(cid) if block is None else block

    def _look_ahead(self, ahead: Ahead, cid: CID) -> None:
        upcoming = self._order.after(cid)
        for next_one in upcoming:
            if next_one in ahead or next_one.multihash in self._fetched:
                continue
            if self._store.has(next_one):
                continue
            if not ahead.begin(next_one):
                ahead.drop_all_but({cid, *upcoming})
                if not ahead.begin(next_one):
                    break
        self._foreseen = len(ahead)

    def _stage(self, cid: CID, block: bytes) -> None:
        if not self._stores:
            return
        if self._ingest is None:
            self._ingest = self._stack.enter_context(self._store.ingest())
        filled = self._store.usage_bytes + self._bytes
        if filled * 100 > self._store.capacity_bytes * FILLED_PERCENT_MAX:
            self._give_up(f"over {FILLED_PERCENT_MAX} % of the store are used")
            return
        try:
            self._ingest.put_verified(cid, block)
        except (DiskFullError, PeerUnavailableError) as error:
            self._give_up(error.what)

    def keep(self) -> None:
        """Store what was fetched; a disk that is full, or a DAG that cannot be, is only logged."""
        if self._ingest is None:
            return
        try:
            self._ingest.commit()
        except (DiskFullError, UserError) as error:
            self._give_up(error.what)
        else:
            self.close()

    def _give_up(self, why: str) -> None:
        log.warning("fetched content is passed on, not kept", why=why)
        self.close()
        self._stores = False

    def close(self) -> None:
        """Let go of what was not kept."""
        if self._ahead is not None:
            self._ahead.close()
        self._ingest = None
        self._stack.close()
