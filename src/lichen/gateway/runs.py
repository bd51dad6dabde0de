"""What became of every run: the record behind `lichen why`, failures included.

Run ids are this gateway's prefix and a counter that never goes back. Records join a pending list
and are written in batches; the newest `runs_max` are kept.
"""

from __future__ import annotations

import asyncio
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


class RunLog:
    """The gateway's runs in an LMDB environment, by run id, oldest dropped first."""

    def __init__(self, path: str, gateway: Address, *, runs_max: int = RUNS_MAX) -> None:
        """Open or create; the counter starts above any that was ever handed out."""
        os.makedirs(path, exist_ok=True)
        self._env = lmdb.open(path, map_size=LOG_BYTES_MAX, max_dbs=2, metasync=False)
        self._runs = self._env.open_db(b"runs")
        self._meta = self._env.open_db(b"meta")
        self._runs_max = runs_max
        self._prefix = gateway.hex()[:_PREFIX_DIGITS] + "-"
        with self._env.begin(write=True) as txn:
            found = txn.get(_COUNTER_KEY, db=self._meta)
            self._counter = int.from_bytes(found, "big") if found else 0
        self._reserved = self._counter
        self.first = self._counter
        self._pending: list[RunRecord] = []
        self._recent: dict[str, RunRecord] = {}
        self._writing: dict[str, RunRecord] = {}
        self._watched: list[RunRecord] = []
        self._flushing = asyncio.Lock()

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
        self._pending.append(record)
        self._recent[record.run] = record
        if len(self._watched) < RECENT_MAX:
            self._watched.append(record)

    def bill(self, run: str, amount: int) -> None:
        """Note what a run finally cost."""
        record = self._recent.get(run)
        if record is None:
            try:
                record = self.get(run)
            except NotFoundError:  # dropped by age; the receipt still says it
                return
            self._recent[run] = record
            self._pending.append(record)
        record.amount = amount

    def ceiling(self, run: str, node: str) -> int | None:
        """Return the ceiling of a run that went to `node` and was not billed; None for others."""
        try:
            record = self.get(run)
        except NotFoundError:
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
        return len(self._pending)

    async def flush(self) -> None:
        """Write what was added before the call, and drop the oldest beyond `runs_max`.

        What is being written can be read all the while.
        """
        async with self._flushing:
            records, self._pending = self._pending, []
            self._writing, self._recent = self._recent, {}
            try:
                await asyncio.to_thread(self._write, records)
            except BaseException:
                self._pending = (records + self._pending)[-self._runs_max :]
                self._recent = self._writing | self._recent
                raise
            finally:
                self._writing = {}

    def _write(self, records: list[RunRecord]) -> None:
        if not records:
            return
        try:
            with self._env.begin(write=True, db=self._runs) as txn:
                for record in records:
                    txn.put(record.run.encode(), msgspec.msgpack.encode(record))
                self._prune(txn)
        except lmdb.Error as error:
            raise MachineError(
                f"run records cannot be written: {error}", hint="free disk space"
            ) from error

    def _prune(self, txn: lmdb.Transaction) -> None:
        extra = txn.stat(self._runs)["entries"] - self._runs_max
        cursor = txn.cursor()
        while extra > 0 and cursor.first():
            cursor.delete()
            extra -= 1

    def get(self, run: str) -> RunRecord:
        """Return a run's record; raise NotFoundError."""
        recent = self._recent.get(run) or self._writing.get(run)
        if recent is not None:
            return recent
        found = None
        if _RUN_ID.fullmatch(run):  # nodes and visitors name runs too
            with self._env.begin(db=self._runs) as txn:
                found = txn.get(run.encode())
        if found is None:
            raise NotFoundError(
                f"no run {run[:80]!r} at this gateway",
                hint=f"the newest {self._runs_max} runs are kept",
            )
        return msgspec.msgpack.decode(found, type=RunRecord)

    def close(self) -> None:
        """Write what is pending and close; no `flush` may be under way."""
        self._write(self._pending)
        self._env.close()
