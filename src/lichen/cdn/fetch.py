"""Fetch content that is not here from peers over HTTP, block by block, every block verified.

Peers are not trusted: what they send counts only when it has the hash that was asked for. A fetch
is bounded in bytes, blocks and time, and equal fetches under way are shared. Which peers are asked,
and in which order, follows from the CID (rendezvous hashing): each block has the same few homes for
everybody. Peers answer from what they have (`only-if-cached`), so that nobody asks in circles.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import TYPE_CHECKING, TypeVar

import httpx
import msgspec

from lichen.cdn.transport import PublicTransport
from lichen.content import BLOCK_BYTES_MAX, CID, RAW, read_file
from lichen.content.dag import links_of
from lichen.errors import LimitError, NotFoundError, PeerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.content import BlockStore, Ingest

BLOCK_S_MAX = 10.0
CONNECT_S_MAX = 2.0
HEDGE_S = 1.0  # a peer that is silent for so long is not waited for alone
RESTING_S = 10.0  # one that could not be reached is asked last meanwhile
BLOCKS_MAX = 20_000
PEERS_PER_BLOCK_MAX = 8
CONNECTIONS_MAX = 32
UNDER_WAY_MAX = 256
F = TypeVar("F")
T = TypeVar("T")
_HEADERS = {"accept": "application/vnd.ipld.raw", "cache-control": "only-if-cached"}


class _Reply(msgspec.Struct, frozen=True):
    """What came of asking a peer: whether it answered at all, and the block if it had it."""

    reached: bool
    block: bytes | None = None


class Fetcher:
    """Gets blocks and files by CID: from the store, else from peers into the store."""

    def __init__(
        self, store: BlockStore, peers: Callable[[], Sequence[str]], *, private_peers: bool = True
    ) -> None:
        """`peers` returns the base URLs of those that may be asked now.

        Without `private_peers` only public addresses are connected to, whatever a URL says.
        """
        self._store = store
        self._peers = peers
        self._under_way: dict[CID, asyncio.Future[None]] = {}
        self._blocks: dict[CID, asyncio.Task[bytes]] = {}
        self._resting: dict[str, float] = {}
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(BLOCK_S_MAX, connect=CONNECT_S_MAX),
            limits=limits,
            trust_env=False,
            transport=None if private_peers else PublicTransport(limits=limits),
        )

    async def close(self) -> None:
        """End what is under way and close the connections."""
        tasks: list[asyncio.Future[None] | asyncio.Task[bytes]] = [
            *self._under_way.values(),
            *self._blocks.values(),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def fetch_file(self, cid: CID, bytes_max: int) -> bytes:
        """Return a file's content of at most `bytes_max`.

        Raises NotFoundError when no peer has it, LimitError when it is larger.
        """
        await self.fetch(cid, bytes_max)
        content = bytearray()
        for part in read_file(self._store, cid):  # few blocks can stand for a file of any size
            content += part
            if len(content) > bytes_max:
                raise LimitError(f"{cid} has more than {bytes_max} bytes")
        return bytes(content)

    async def fetch(self, cid: CID, bytes_max: int) -> None:
        """Bring the whole DAG below `cid` into the store."""
        under_way = self._under_way.get(cid)
        if under_way is None:
            under_way = asyncio.ensure_future(self._fetch_dag(cid, bytes_max))
            self._under_way[cid] = under_way
            under_way.add_done_callback(lambda done: _over(self._under_way, cid, done))
        await asyncio.shield(under_way)

    async def _fetch_dag(self, root: CID, bytes_max: int) -> None:
        with contextlib.ExitStack() as stack:
            ingest = None
            waiting, seen, total = [root], {root}, 0
            while waiting:
                cid = waiting.pop()
                block = self._store.get_block(cid)
                if block is None:
                    block = await self.fetch_block(cid)
                    ingest = ingest or stack.enter_context(self._store.ingest())
                    await asyncio.to_thread(ingest.put_verified, cid, block)
                total += len(block)
                if total > bytes_max + bytes_max // 8 or len(seen) > BLOCKS_MAX:
                    raise LimitError(f"{root} is larger than {bytes_max} bytes")
                if cid.codec != RAW:
                    below = [link for link in links_of(cid, block) if link not in seen]
                    seen.update(below)
                    waiting.extend(below)
            if ingest is not None:
                await asyncio.to_thread(_commit, ingest)

    async def fetch_block(self, cid: CID) -> bytes:
        """Return a verified block from the peers, without looking into the store.

        Raises NotFoundError when those that answer do not have it, PeerUnavailableError when none
        answers.
        """
        task = self._blocks.get(cid)
        if task is None:
            if len(self._blocks) >= UNDER_WAY_MAX:
                raise PeerUnavailableError(
                    f"{UNDER_WAY_MAX} blocks are being fetched already", hint="try again shortly"
                )
            task = asyncio.ensure_future(self._race(cid))
            self._blocks[cid] = task
            task.add_done_callback(lambda done: _over(self._blocks, cid, done))
        return await asyncio.shield(task)

    async def _race(self, cid: CID) -> bytes:
        """Ask one peer after the other; go on to the next when one fails or is slow."""
        waiting = self._in_order(cid)
        running: set[asyncio.Task[_Reply]] = set()
        asked, reached = 0, not waiting
        try:
            async with asyncio.timeout(BLOCK_S_MAX):
                while waiting or running:
                    if waiting:
                        running.add(asyncio.ensure_future(self._ask(waiting.pop(0), cid)))
                        asked += 1
                    done, running = await asyncio.wait(
                        running,
                        timeout=HEDGE_S if waiting else None,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for task in done:
                        reply = task.result()
                        if reply.block is not None:
                            return reply.block
                        reached = reached or reply.reached
        except TimeoutError:
            pass  # said below, as what it is: nobody answered
        finally:
            for task in running:
                task.cancel()
        if not reached:
            raise PeerUnavailableError(
                f"no content peer could be asked for {cid}", hint="try again shortly"
            )
        raise NotFoundError(
            f"none of {asked} content peers has {cid}", hint="add it: lichen storage add"
        )

    def _in_order(self, cid: CID) -> list[str]:
        now = time.monotonic()
        peers = {peer.rstrip("/") for peer in self._peers()}
        self._resting = {
            peer: until for peer, until in self._resting.items() if until > now and peer in peers
        }

        def weight(peer: str) -> tuple[bool, bytes]:
            rank = hashlib.blake2b(peer.encode() + b"\0" + cid.multihash, digest_size=8).digest()
            return peer in self._resting, rank

        return sorted(peers, key=weight)[:PEERS_PER_BLOCK_MAX]

    async def _ask(self, peer: str, cid: CID) -> _Reply:
        data = bytearray()
        try:
            url, params = f"{peer}/ipfs/{cid}", {"format": "raw"}
            async with self._http.stream("GET", url, params=params, headers=_HEADERS) as response:
                if response.status_code != 200:
                    return _Reply(reached=response.status_code < 500)
                async for part in response.aiter_raw():
                    data += part
                    if len(data) > BLOCK_BYTES_MAX:
                        return _Reply(reached=True)
        except (httpx.HTTPError, httpx.InvalidURL):
            self._resting[peer] = time.monotonic() + RESTING_S
            return _Reply(reached=False)
        block = bytes(data)
        return _Reply(reached=True, block=block if cid.matches(block) else None)


def _commit(ingest: Ingest) -> None:
    ingest.commit()


def _over(running: dict[CID, F], cid: CID, done: asyncio.Future[T]) -> None:
    """Forget what ended; its error is for those that waited, if any still do."""
    running.pop(cid, None)
    if not done.cancelled():
        done.exception()
