"""Fetch content that is not here from peers over HTTP, block by block, every block verified.

Peers are not trusted: what they send counts only when it has the hash that was asked for. A fetch
is bounded in bytes, depth and time, and equal fetches under way are shared.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from lichen.content import BLOCK_BYTES_MAX, CID, RAW, read_file
from lichen.content.dag import links_of
from lichen.errors import LimitError, NotFoundError, PeerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lichen.content import BlockStore

BLOCK_S_MAX = 10.0
BLOCKS_MAX = 20_000
CONNECTIONS_MAX = 16


class Fetcher:
    """Gets files by CID: from the store, else from peers into the store."""

    def __init__(self, store: BlockStore, peers: Iterable[str]) -> None:
        self._store = store
        self._peers = [peer.rstrip("/") for peer in peers]
        self._under_way: dict[CID, asyncio.Future[None]] = {}
        self._http = httpx.AsyncClient(
            timeout=BLOCK_S_MAX,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def fetch_file(self, cid: CID, bytes_max: int) -> bytes:
        """Return a file's content of at most `bytes_max`.

        Raises NotFoundError when no peer has it, LimitError when it is larger.
        """
        await self.fetch(cid, bytes_max)
        content = b"".join(read_file(self._store, cid))
        if len(content) > bytes_max:
            raise LimitError(f"{cid} has {len(content)} bytes, over {bytes_max}")
        return content

    async def fetch(self, cid: CID, bytes_max: int) -> None:
        """Bring the whole DAG below `cid` into the store."""
        under_way = self._under_way.get(cid)
        if under_way is None:
            under_way = asyncio.ensure_future(self._fetch_dag(cid, bytes_max))
            self._under_way[cid] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(cid, None))
        await asyncio.shield(under_way)

    async def _fetch_dag(self, root: CID, bytes_max: int) -> None:
        waiting, seen, total = [root], {root}, 0
        fetched: list[tuple[CID, bytes]] = []
        while waiting:
            cid = waiting.pop()
            block = self._store.get_block(cid)
            if block is None:
                block = await self._fetch_block(cid)
                fetched.append((cid, block))
            total += len(block)
            if total > bytes_max + bytes_max // 8 or len(seen) > BLOCKS_MAX:
                raise LimitError(f"{root} is larger than {bytes_max} bytes")
            if cid.codec != RAW:
                below = [link for link in links_of(cid, block) if link not in seen]
                seen.update(below)
                waiting.extend(below)
        if fetched:
            await asyncio.to_thread(self._store.put_blocks, fetched)

    async def _fetch_block(self, cid: CID) -> bytes:
        reached = False
        for peer in self._peers:
            try:
                response = await self._http.get(f"{peer}/ipfs/{cid}", params={"format": "raw"})
            except httpx.HTTPError:
                continue
            reached = True
            data = response.content
            if response.status_code == 200 and len(data) <= BLOCK_BYTES_MAX and cid.matches(data):
                return data
        if not reached:
            raise PeerUnavailableError(f"no content peer could be asked for {cid}")
        raise NotFoundError(f"none of {len(self._peers)} content peers has {cid}")
