"""From the threads that read content to the event loop that fetches what is missing.

What nobody had is remembered shortly, the longer the longer the search took, so that no visitor
makes this server search again and again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from lichen.cdn.retrieval.ahead import Ahead, Slots
from lichen.cdn.retrieval.remote import RemoteBlocks
from lichen.errors import NotFoundError, PeerError, PeerUnavailableError
from lichen.wire.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lichen.cdn.retrieval.fetch import Fetcher
    from lichen.cdn.retrieval.sources import Session
    from lichen.content import CID, BlockStore

ABSENT_S = 3.0  # at least so long what nobody has is not asked for again
ABSENT_S_MAX = 30.0
ABSENT_MAX = 10_000
FETCH_S_MAX = 12.0
WAITING_MAX = 64  # threads that may wait for the network


class Bridge:
    """Makes blocks for one request each, which are fetched when they are not in the store."""

    def __init__(self, store: BlockStore, fetcher: Fetcher) -> None:
        self._store = store
        self._fetcher = fetcher
        self._waiting = threading.BoundedSemaphore(WAITING_MAX)
        self._slots = Slots()
        self._absent: collections.OrderedDict[tuple[CID, bool], float] = collections.OrderedDict()

    async def fetch(self, cid: CID, session: Session) -> bytes:
        """Fetch a block on the event loop: what nobody has costs no thread. Raises as `blocks`."""
        with self._judged(cid, session):
            return await self._fetcher.fetch_block(cid, session)

    def blocks(
        self,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        fetched: tuple[CID, bytes] | None = None,
    ) -> RemoteBlocks:
        """Return the blocks of one DAG, for one request; `fetched` is a block that has come.

        Those of a session that is not `is_outside` come from the network's nodes alone, and what
        cannot be had counts as not there, whatever the reason.
        """

        def start(cid: CID) -> Future[bytes]:
            return asyncio.run_coroutine_threadsafe(self._fetcher.fetch_block(cid, session), loop)

        def fetch(cid: CID) -> bytes:
            if fetched is not None and cid.multihash == fetched[0].multihash:
                return fetched[1]
            with self._judged(cid, session):
                return self._wait(cid, start)

        return RemoteBlocks(self._store, fetch, Ahead(start, self._slots))

    @contextlib.contextmanager
    def _judged(self, cid: CID, session: Session) -> Iterator[None]:
        """Remember what nobody has, and say so at once when it is asked for again."""
        key, started = (cid, session.is_outside), time.monotonic()
        if self._absent.get(key, 0.0) > started:
            raise NotFoundError(f"no node has {cid}", hint="add it: lichen storage add")
        try:
            yield
        except NotFoundError:
            self._note_absent(key, time.monotonic() - started)
            raise
        except PeerError as error:
            if session.is_outside:
                raise
            raise NotFoundError(
                f"{cid} is not here, and no node could be asked", hint="try again later"
            ) from error

    def _wait(self, cid: CID, start: Callable[[CID], Future[bytes]]) -> bytes:
        if not self._waiting.acquire(timeout=FETCH_S_MAX):
            raise BusyError(f"{WAITING_MAX} fetches are under way", hint="try again shortly")
        try:
            waiting = start(cid)
            try:
                return waiting.result(FETCH_S_MAX)
            except (TimeoutError, CancelledError) as error:  # too slow, or this server ends
                waiting.cancel()
                raise PeerUnavailableError(
                    f"no node sent {cid} within {FETCH_S_MAX:.0f} s", hint="try again"
                ) from error
        finally:
            self._waiting.release()

    def _note_absent(self, key: tuple[CID, bool], took_s: float) -> None:
        self._absent[key] = time.monotonic() + min(max(ABSENT_S, took_s), ABSENT_S_MAX)
        self._absent.move_to_end(key)
        while len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)
