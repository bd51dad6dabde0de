"""From the threads that read content to the event loop that fetches what is missing.

What nobody had is remembered shortly, the longer the longer the search took, so that no visitor
makes this server search again and again.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from lichen.cdn.ahead import SLOTS, Ahead
from lichen.cdn.remote import RemoteBlocks
from lichen.cdn.sources import Session
from lichen.errors import NotFoundError, PeerError, PeerUnavailableError
from lichen.wire.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.cdn.fetch import Fetcher
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
        self._slots = threading.BoundedSemaphore(SLOTS)
        self._absent: collections.OrderedDict[tuple[CID, bool], float] = collections.OrderedDict()

    def blocks(
        self, root: CID, loop: asyncio.AbstractEventLoop, *, is_outside: bool
    ) -> RemoteBlocks:
        """Return the blocks of one DAG, for one request.

        With `is_outside` they may come from elsewhere than the network's nodes. Without it, what
        cannot be had counts as not there, whatever the reason.
        """
        session = Session(root, is_outside=is_outside)

        def start(cid: CID) -> Future[bytes]:
            return asyncio.run_coroutine_threadsafe(self._fetcher.fetch_block(cid, session), loop)

        def fetch(cid: CID) -> bytes:
            return self._fetch(cid, session, start)

        return RemoteBlocks(self._store, fetch, Ahead(start, self._slots))

    def _fetch(self, cid: CID, session: Session, start: Callable[[CID], Future[bytes]]) -> bytes:
        """Fetch a block from a reading thread; raise NotFoundError when nobody has it."""
        key, started = (cid, session.is_outside), time.monotonic()
        if self._absent.get(key, 0.0) > started:
            raise NotFoundError(f"no node has {cid}", hint="add it: lichen storage add")
        try:
            return self._wait(cid, start)
        except NotFoundError:
            self._note_absent(key, time.monotonic() - started)
            raise
        except PeerError as error:
            if session.is_outside:
                raise
            raise NotFoundError(f"{cid} is not here, and no node could be asked") from error

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
