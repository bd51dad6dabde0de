"""What became of every run: the record behind `lichen why`, failures included.

Run ids are this gateway's prefix and a counter that never goes back. Records are written a few
times a second, in pages of 256 runs with neighbouring ids: the thread that writes gives the
interpreter up with each call of LMDB, and has to win it back from the busy event loop. Pages lately
touched stay in memory, where most runs are billed before they are ever written. The newest runs
are kept, at least `runs_max` of them. A log of the first layout, with an entry for each run, is
carried over when it is opened.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from typing import TYPE_CHECKING

import lmdb
import msgspec

from lichen.errors import MachineError, NotFoundError

if TYPE_CHECKING:
    from lichen.identity import Address

RUNS_MAX = 1_000_000
LOG_BYTES_MAX = 16 * 2**30
COUNTER_RESERVE = 1_000_000
RECENT_MAX = 100
PAGES_MAX = 256  # in memory, beside those that wait to be written
PAGE_RUNS = 256
_TAIL_DIGITS = 2  # of a run's id tell where in its page it stands
_COUNTER_KEY = b"counter"
_COUNTER_BYTES = 8
_PREFIX_DIGITS = 8
_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{12}")


class Attempt(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One node that was tried: what came of it, and after how many microseconds."""

    node: str
    outcome: str
    after_us: int


class RunRecord(msgspec.Struct, array_like=True, gc=False):
    """A run as the gateway saw it.

    `function` is `app/release/name`, `ceiling` the agreed maximum, `refusals` the counted reasons
    of nodes not considered, `status` the HTTP status answered (0: the caller went away first).
    `amount` is what was finally paid, -1 until the node has billed it.
    """

    run: str
    function: str
    method: str
    target: str
    started_ms: int
    ceiling: int
    node: str = ""
    status: int = 0
    wall_us: int = 0
    error: str = ""
    attempts: tuple[Attempt, ...] = ()
    refusals: str = ""
    amount: int = -1


Page = dict[str, RunRecord]  # by the last digits of their ids


class RunLog:
    """The gateway's runs in an LMDB environment, by run id, oldest dropped first."""

    def __init__(self, path: str, gateway: Address, *, runs_max: int = RUNS_MAX) -> None:
        """Open or create; the counter starts above any that was ever handed out."""
        os.makedirs(path, exist_ok=True)
        self._env = lmdb.open(path, map_size=LOG_BYTES_MAX, max_dbs=3, metasync=False)
        self._stored = self._env.open_db(b"pages")
        self._meta = self._env.open_db(b"meta")
        self._pages_max = -(-runs_max // PAGE_RUNS) + 1  # the newest page is not full
        self._prefix = gateway.hex()[:_PREFIX_DIGITS] + "-"
        with self._env.begin(write=True) as txn:
            found = txn.get(_COUNTER_KEY, db=self._meta)
            self._counter = int.from_bytes(found, "big") if found else 0
        self._reserved = self._counter
        self.first = self._counter
        self._pages: dict[str, Page] = {}
        self._changed: dict[str, int] = {}  # pages to write, and how many records changed in each
        self._writing: dict[str, int] = {}  # those that are being written
        self._watched: list[RunRecord] = []
        self._flushing = asyncio.Lock()
        self._carry_over()

    def _carry_over(self) -> None:
        """Bring a log of the first layout, one entry for each run, into pages."""
        try:
            runs = self._env.open_db(b"runs", create=False)
        except lmdb.NotFoundError:
            return
        with self._env.begin(write=True) as txn:
            found = itertools.groupby(txn.cursor(runs), lambda entry: entry[0][:-_TAIL_DIGITS])
            for name, entries in found:
                known = txn.get(name, db=self._stored)
                page = msgspec.msgpack.decode(known, type=Page) if known else {}
                for run, record in entries:
                    tail = run[-_TAIL_DIGITS:].decode()
                    page.setdefault(tail, msgspec.msgpack.decode(record, type=RunRecord))
                txn.put(name, msgspec.msgpack.encode(page), db=self._stored)
            txn.drop(runs)

    def next_run(self) -> str:
        """Return a new run id; it is never handed out again, also not after a crash."""
        if self._counter == self._reserved:
            self._reserve()
        self._counter += 1
        return f"{self._prefix}{self._counter:012x}"

    def _reserve(self) -> None:
        self._reserved += COUNTER_RESERVE
        with self._env.begin(write=True) as txn:
            txn.put(_COUNTER_KEY, self._reserved.to_bytes(_COUNTER_BYTES, "big"), db=self._meta)

    def add(self, record: RunRecord) -> None:
        """Remember a finished run; it is on disk after the next `flush`."""
        name = record.run[:-_TAIL_DIGITS]
        page = self._pages.get(name) or self._page(name)
        page[record.run[-_TAIL_DIGITS:]] = record
        self._changed[name] = self._changed.get(name, 0) + 1
        if len(self._watched) < RECENT_MAX:
            self._watched.append(record)

    def _page(self, name: str) -> Page:
        """Return a page, kept in memory from now on; an empty one where there is none yet."""
        page = self._pages.get(name)
        if page is None:
            page = self._pages[name] = self._load(name)
            if len(self._pages) > PAGES_MAX:
                self._let_go()
        return page

    def _load(self, name: str) -> Page:
        with self._env.begin(db=self._stored) as txn:
            found = txn.get(name.encode())
        return msgspec.msgpack.decode(found, type=Page) if found else {}

    def _let_go(self) -> None:
        """Drop the pages that were loaded first from memory, unless they wait to be written."""
        for name in list(self._pages)[: len(self._pages) - PAGES_MAX // 2]:
            if name not in self._changed and name not in self._writing:
                del self._pages[name]

    def bill(self, run: str, amount: int) -> None:
        """Note what a run finally cost."""
        name = run[:-_TAIL_DIGITS]
        record = self._page(name).get(run[-_TAIL_DIGITS:])
        if record is None:  # dropped by age; the receipt still says it
            return
        record.amount = amount
        self._changed[name] = self._changed.get(name, 0) + 1

    def ceiling(self, run: str, node: str) -> int | None:
        """Return the ceiling of a run that went to `node` and was not billed; None for others."""
        known = _RUN_ID.fullmatch(run) and self._page(run[:-_TAIL_DIGITS])
        record = known.get(run[-_TAIL_DIGITS:]) if known else None
        if record is None:
            return None
        tried = node == record.node or any(
            attempt.node == node and not attempt.outcome.startswith(("refused", "unreachable"))
            for attempt in record.attempts
        )
        return record.ceiling if tried and record.amount < 0 else None

    def take_recent(self) -> list[RunRecord]:
        """Return the newest runs since the last call, for whoever watches; at most RECENT_MAX."""
        watched, self._watched = self._watched, []
        return watched

    @property
    def pending(self) -> int:
        """How many records wait to be written."""
        return sum(self._changed.values())

    async def flush(self) -> None:
        """Write what was added before the call, and drop the oldest beyond `runs_max`.

        What is being written can be read all the while.
        """
        async with self._flushing:
            self._writing, self._changed = self._changed, {}
            pages = {name: self._pages[name].copy() for name in self._writing}
            try:
                dropped = await asyncio.to_thread(self._write, pages)
            except BaseException:
                self._changed = self._writing | self._changed
                for name in list(self._changed)[: -self._pages_max]:
                    del self._changed[name]
                raise
            finally:
                self._writing = {}
            for name in dropped:
                if name not in self._changed:
                    self._pages.pop(name, None)

    def _write(self, pages: dict[str, Page]) -> list[str]:
        """Write pages; return the names of those that made room."""
        if not pages:
            return []
        try:
            with self._env.begin(write=True, db=self._stored) as txn:
                for name, page in pages.items():
                    txn.put(name.encode(), msgspec.msgpack.encode(page))
                return self._prune(txn)
        except lmdb.Error as error:
            raise MachineError(
                f"run records cannot be written: {error}", hint="free disk space"
            ) from error

    def _prune(self, txn: lmdb.Transaction) -> list[str]:
        extra = txn.stat(self._stored)["entries"] - self._pages_max
        dropped: list[str] = []
        cursor = txn.cursor()
        while len(dropped) < extra and cursor.first():
            dropped.append(bytes(cursor.key()).decode())
            cursor.delete()
        return dropped

    def get(self, run: str) -> RunRecord:
        """Return a run's record; raise NotFoundError."""
        found = None
        if _RUN_ID.fullmatch(run):  # nodes and visitors name runs too
            name = run[:-_TAIL_DIGITS]
            page = self._pages.get(name) or self._load(name)
            found = page.get(run[-_TAIL_DIGITS:])
        if found is None:
            raise NotFoundError(
                f"no run {run[:80]!r} at this gateway",
                hint=f"the newest {(self._pages_max - 1) * PAGE_RUNS} runs are kept",
            )
        return found

    def close(self) -> None:
        """Write what is pending and close; no `flush` may be under way."""
        self._write({name: self._pages[name] for name in self._changed})
        self._env.close()
