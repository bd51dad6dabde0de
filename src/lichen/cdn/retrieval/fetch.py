"""Fetch content that is not here from others over HTTP, block by block, every block verified.

Nobody is trusted: what they send counts only when it has the hash that was asked for. A fetch is
bounded in bytes, blocks and time, and equal fetches under way are shared. The nodes of the network
are asked first, in an order that follows from the CID (rendezvous hashing): each block has the same
few homes for everybody. What they do not have is looked for outside: at those that delegated
routers name, and at a Kubo of the operator's. Nodes and providers answer from what they have
(`only-if-cached`), so that nobody asks in circles.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from lichen.cdn.retrieval.health import HealthBook, retry_after_s
from lichen.cdn.retrieval.origins import Origins
from lichen.cdn.retrieval.race import Race, Reply
from lichen.cdn.retrieval.routers import Routers
from lichen.cdn.retrieval.sources import Session, Source, in_order, node_source
from lichen.cdn.routing.multiaddr import parse_origin
from lichen.content import BLOCK_BYTES_MAX, CID, RAW, read_file
from lichen.content.dag import links_of
from lichen.errors import LimitError, NotFoundError, PeerError, PeerUnavailableError
from lichen.wire.errors import BodyTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.content import BlockStore, Ingest
    from lichen.wire.client import Response

BLOCK_S_MAX = 10.0
BLOCKS_MAX = 20_000
PEERS_PER_BLOCK_MAX = 8
UNDER_WAY_MAX = 256
TOGETHER_MAX = 8  # blocks of one DAG that is brought into the store
VERIFY_INLINE_BYTES = 64 * 1024  # larger blocks are hashed by a thread
F = TypeVar("F")
T = TypeVar("T")
K = TypeVar("K")
_ACCEPT = (b"accept", b"application/vnd.ipld.raw")
_IF_CACHED = (b"cache-control", b"only-if-cached")

log = structlog.get_logger()


class Outside(msgspec.Struct, frozen=True):
    """Where to look for what no node of the network has: URLs of delegated routers, and of a Kubo.

    The Kubo's gateway may search its own network for what it is asked.
    """

    routers: tuple[str, ...] = ()
    kubo: str = ""


NOWHERE = Outside()


class Fetcher:
    """Gets blocks and files by CID: from the store, else from others into the store.

    `counts` has how many blocks came from nodes, providers and the Kubo (`node`, `provider`,
    `kubo`), how often another one was asked because the first was slow (`hedged`), and how often
    what came was not what was asked for (`wrong`).
    """

    def __init__(
        self,
        store: BlockStore,
        peers: Callable[[], Sequence[str]],
        *,
        private_peers: bool = True,
        outside: Outside = NOWHERE,
    ) -> None:
        """`peers` returns the base URLs of the nodes that may be asked now.

        Without `private_peers` nodes and providers are connected to at public addresses only,
        whatever a URL says. Raises UserError for URLs in `outside` that are none.
        """
        self._store = store
        self._peers = peers
        self._private = private_peers
        self._under_way: dict[CID, asyncio.Future[None]] = {}
        self._blocks: dict[tuple[CID, bool], asyncio.Task[bytes]] = {}
        self.origins = Origins()
        self.health = HealthBook()
        self.routers = Routers(
            outside.routers, self.origins, self.health, private_providers=private_peers
        )
        kubo = outside.kubo
        self._kubo = [Source("kubo", parse_origin(kubo), is_trusted=True)] if kubo else []
        self.counts: collections.Counter[str] = collections.Counter()

    async def close(self) -> None:
        """End what is under way and close the connections."""
        tasks: list[asyncio.Future[None] | asyncio.Task[bytes]] = [
            *self._under_way.values(),
            *self._blocks.values(),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.origins.close()

    async def fetch_file(self, cid: CID, bytes_max: int) -> bytes:
        """Return a file's content of at most `bytes_max`.

        Raises NotFoundError when nobody has it, LimitError when it is larger.
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
            ingest, session = None, Session(root)
            waiting, seen, total = [root], {root}, 0
            while waiting:
                batch, waiting = waiting[:TOGETHER_MAX], waiting[TOGETHER_MAX:]
                for cid, block, is_new in await self._fetch_all(batch, session):
                    if is_new:
                        ingest = ingest or stack.enter_context(self._store.ingest())
                        await asyncio.to_thread(ingest.put_verified, cid, block)
                    total += len(block)
                    if cid.codec != RAW:
                        below = [link for link in links_of(cid, block) if link not in seen]
                        seen.update(below)
                        waiting.extend(below)
                    _check_bounds(root, total, len(seen), bytes_max)
            if ingest is not None:
                await asyncio.to_thread(_commit, ingest)

    async def _fetch_all(
        self, cids: Sequence[CID], session: Session
    ) -> list[tuple[CID, bytes, bool]]:
        """Return blocks, each with whether it had to be fetched."""

        async def get(cid: CID) -> tuple[CID, bytes, bool]:
            block = self._store.get_block(cid)
            if block is not None:
                return cid, block, False
            return cid, await self.fetch_block(cid, session), True

        return list(await asyncio.gather(*map(get, cids)))

    async def fetch_block(self, cid: CID, session: Session | None = None) -> bytes:
        """Return a verified block from others, without looking into the store.

        `session` is of the DAG that the block belongs to. Raises NotFoundError when those that
        answer do not have it, PeerUnavailableError when none answers.
        """
        session = session or Session(cid)
        key = (cid, session.is_outside)
        task = self._blocks.get(key)
        if task is None:
            cid.matches(b"")  # raises for a hash that cannot be checked: nobody is asked in vain
            if len(self._blocks) >= UNDER_WAY_MAX:
                raise PeerUnavailableError(
                    f"{UNDER_WAY_MAX} blocks are being fetched already", hint="try again shortly"
                )
            task = asyncio.ensure_future(self._race(cid, session))
            self._blocks[key] = task
            task.add_done_callback(lambda done: _over(self._blocks, key, done))
        return await asyncio.shield(task)

    async def _race(self, cid: CID, session: Session) -> bytes:
        now = time.monotonic()
        known = self._known(cid, session, now)
        race = Race(
            [source for source in known if not self.health.is_shut(source.url, now)],
            [kubo for kubo in self._kubo if session.is_outside and kubo not in known],
            lambda source: self._ask(source, cid),
            self._finder(cid, session),
            lambda source: self.health.of(source.url).hedge_s(),
        )
        reply = None
        with contextlib.suppress(TimeoutError):  # said below, as what it is: nobody answered
            async with asyncio.timeout(BLOCK_S_MAX):
                reply = await race.run()
        self.counts["hedged"] += race.hedged
        if reply is not None and reply.block is not None and reply.source is not None:
            session.had(reply.source)
            self.counts[reply.source.kind] += 1
            return reply.block
        if (known or race.asked) and not race.reached:
            raise PeerUnavailableError(
                f"no content peer could be asked for {cid}", hint="try again shortly"
            )
        raise NotFoundError(
            f"none of {race.asked} content peers has {cid}", hint="add it: lichen storage add"
        )

    def _known(self, cid: CID, session: Session, now: float) -> list[Source]:
        """Return who is asked first: who had blocks of this DAG, then the nodes in their order."""
        urls = dict.fromkeys(url.rstrip("/") for url in self._peers())
        ranked = [
            source
            for url in in_order(urls, cid)
            if (source := node_source(url, is_trusted=self._private)) is not None
        ]
        ranked.sort(key=lambda source: self.health.rests(source.url, now))
        good = [source for source in session.good if not self.health.rests(source.url, now)]
        return list(dict.fromkeys([*good, *ranked[:PEERS_PER_BLOCK_MAX]]))

    def _finder(
        self, cid: CID, session: Session
    ) -> Callable[[Callable[[Source], None]], asyncio.Future[None]] | None:
        if not session.is_outside or not self.routers:
            return None

        async def find(offer: Callable[[Source], None]) -> None:
            def offer_able(source: Source) -> None:
                if not self.health.is_shut(source.url, time.monotonic()):
                    offer(source)

            for name in session.to_look_up(cid):
                await self.routers.find(name, offer_able)

        return lambda offer: asyncio.ensure_future(find(offer))

    async def _ask(self, source: Source, cid: CID) -> Reply:
        health, started = self.health.of(source.url), time.monotonic()
        headers = [_ACCEPT] if source.kind == "kubo" else [_ACCEPT, _IF_CACHED]
        try:
            response = await self.origins.get(
                source.address,
                f"/ipfs/{cid}?format=raw",
                headers,
                is_trusted=source.is_trusted,
                timeout_s=BLOCK_S_MAX,
                body_bytes_max=BLOCK_BYTES_MAX,
            )
        except BodyTooLargeError:
            return self._wrong(source, cid)
        except PeerError:
            health.failed(time.monotonic())
            return Reply(source)
        except asyncio.CancelledError:
            waited = time.monotonic() - started
            if waited > health.hedge_s():
                health.slow(waited)
            raise
        if response.status == 200:
            return await self._checked(source, cid, response.body, started)
        return self._refused(source, response, started)

    async def _checked(self, source: Source, cid: CID, block: bytes, started: float) -> Reply:
        took, health = time.monotonic() - started, self.health.of(source.url)
        if len(block) <= VERIFY_INLINE_BYTES:
            matches = cid.matches(block)
        else:
            loop = asyncio.get_running_loop()
            matches = await loop.run_in_executor(self._store.hash_threads, cid.matches, block)
        if not matches:
            return self._wrong(source, cid)
        health.answered(took)
        return Reply(source, reached=True, block=block)

    def _wrong(self, source: Source, cid: CID) -> Reply:
        self.health.of(source.url).lied(time.monotonic())
        self.counts["wrong"] += 1
        log.warning("wrong bytes", source=source.url, cid=str(cid))
        return Reply(source, reached=True)

    def _refused(self, source: Source, response: Response, started: float) -> Reply:
        health, now = self.health.of(source.url), time.monotonic()
        wait = response.get(b"retry-after")
        if wait and response.status in {429, 503}:
            health.asked_for_rest(now, retry_after_s(wait))
            return Reply(source)
        fails = response.status >= 500 and source.kind != "kubo"  # it says 504 for what it lacks
        if fails or response.status == 429:
            health.failed(now)
            return Reply(source)
        health.answered(now - started)
        return Reply(source, reached=True)


def _commit(ingest: Ingest) -> None:
    ingest.commit()


def _check_bounds(root: CID, total_bytes: int, blocks: int, bytes_max: int) -> None:
    if total_bytes > bytes_max + bytes_max // 8:
        raise LimitError(f"{root} is larger than {bytes_max} bytes", hint="make it smaller")
    if blocks > BLOCKS_MAX:
        raise LimitError(
            f"{root} has more than {BLOCKS_MAX} blocks, too many to be fetched at once",
            hint="name its parts one by one, or add it: lichen storage add",
        )


def _over(running: dict[K, F], key: K, done: asyncio.Future[T]) -> None:
    """Forget what ended; its error is for those that waited, if any still do."""
    running.pop(key, None)
    if not done.cancelled():
        done.exception()
