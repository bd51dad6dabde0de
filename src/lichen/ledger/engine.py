"""The embedded engine: one process that orders transactions, with group commit on LMDB.

    submit -> queue -> (signatures, on threads) -> block -> tree -> LMDB, fsync -> results

Whatever arrives while one block is being written becomes the next one. A result is given only after
its block is on disk. There are no empty blocks: what depends on time (epochs, challenge periods)
goes by the time of the next block that has transactions.

Blocks are worked out and written by one thread, so that the event loop stays free; the state that
readers see moves on in one step, on the loop, once the block is on disk. One process holds the
folder at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from lichen.errors import (
    CorruptionError,
    LedgerError,
    LichenError,
    LimitError,
    MachineError,
    UserError,
)
from lichen.ledger.blocks import (
    BLOCK_TRANSACTION_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    TRANSACTIONS_PER_REQUEST_MAX,
    block_hash,
)
from lichen.ledger.errors import BadNonceError, OverloadError
from lichen.ledger.history import find_transaction
from lichen.ledger.machine import Applied, Outcome, apply_transaction, seal
from lichen.ledger.replay import stored_genesis
from lichen.ledger.results import Refusal, Result, Status
from lichen.ledger.state import State
from lichen.ledger.store import LmdbStore
from lichen.ledger.transactions import Received, decode_transaction
from lichen.ledger.types import Genesis, check_genesis
from lichen.ledger.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lichen.identity import PrivateKey

QUEUE_TRANSACTIONS_MAX = 16_384
QUEUE_BYTES_MAX = 32 << 20
VERIFY_CHUNK = 64
VERIFY_THREADS = 2

log = structlog.get_logger()

Checked = tuple[Received | LedgerError, bool]


class _Submission:
    """Transactions that came together, while they wait."""

    __slots__ = ("checked", "done", "raws", "results")

    def __init__(self, raws: Sequence[bytes], checked: asyncio.Future[list[Checked]]) -> None:
        self.raws = raws
        self.checked = checked
        self.done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.results: list[Result] = []


class _Slot(msgspec.Struct, frozen=True):
    """One transaction on its way into a block."""

    submission: _Submission
    raw: bytes
    received: Received | LedgerError
    signature_holds: bool


def create(home: Path, genesis: Genesis) -> None:
    """Make a ledger's folder; doing it again with the same genesis changes nothing."""
    check_genesis(genesis)
    store = LmdbStore(home)
    try:
        State(store, genesis)
    finally:
        store.close()


class Engine:
    """Orders transactions into blocks; `view` reads the state after the last one."""

    def __init__(
        self,
        home: Path,
        *,
        key: PrivateKey | None = None,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        """Open a folder made by `create`; raise when it is missing, in use or damaged.

        `key` signs the blocks; it has to be the genesis's sequencer, where that names one.
        """
        self._key = key
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self._store = LmdbStore(home)
        try:
            self.state = State(self._store, stored_genesis(self._store, home))
            check_last_block(self.state)
            _check_sequencer(self.state.genesis, key)
        except BaseException:
            self._store.close()
            raise
        self.view = View(self.state)
        self._queue: deque[_Submission] = deque()
        self._queued = self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._advanced = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, "ledger-writer")
        self._verifiers = ThreadPoolExecutor(VERIFY_THREADS, "ledger-verifier")
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="ledger-engine")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what was submitted, then close."""
        self.stop_streams()
        try:
            if self._task is not None:
                await self._task
        finally:
            self._writer.shutdown()
            self._verifiers.shutdown()
            self._store.close()

    @property
    def queued(self) -> int:
        """How many transactions wait for a block."""
        return self._queued

    @property
    def running(self) -> bool:
        """Whether blocks are being made."""
        return self._task is not None and not self._task.done()

    @property
    def stopping(self) -> bool:
        """Whether the engine takes no more transactions."""
        return self._stopping

    def stop_streams(self) -> None:
        """Wake whoever waits for blocks: the process is stopping. Safe in a signal handler."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._advanced.set()
        self._arrived.set()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the engine ends, by itself or because it was closed."""
        if self._task is not None:
            self._task.add_done_callback(lambda _: callback())

    def status(self) -> Status:
        """Return where the ledger stands."""
        head = self.state.head
        return Status(
            network=self.state.network.hex(),
            height=head.height,
            time_ms=head.time_ms,
            state_root=head.state_root.hex(),
            block_hash=head.hash.hex(),
            queued=self._queued,
        )

    async def submit(self, raws: Sequence[bytes]) -> list[Result]:
        """Order encoded transactions; return once every one is on disk or refused.

        Transactions of one call, and calls one after the other, keep their order. Raises LimitError
        for too many at once, OverloadError when the queue is full, MachineError when the disk is.
        """
        if len(raws) > TRANSACTIONS_PER_REQUEST_MAX:
            raise LimitError(
                f"{len(raws)} transactions are over {TRANSACTIONS_PER_REQUEST_MAX}",
                hint="send them in several requests",
            )
        if not self.running or self._stopping:
            raise OverloadError("the ledger is stopping", hint="try again later")
        if not raws:
            return []
        size = sum(map(len, raws))
        if self._queued + len(raws) > QUEUE_TRANSACTIONS_MAX or (
            self._queued_bytes + size > QUEUE_BYTES_MAX
        ):
            raise OverloadError(
                f"{self._queued} transactions are waiting", hint="try again in a second"
            )
        submission = _Submission(raws, asyncio.ensure_future(self._check(raws)))
        self._queue.append(submission)
        self._queued += len(raws)
        self._queued_bytes += size
        self._arrived.set()
        return await asyncio.shield(submission.done)

    async def wait_beyond(self, height: int, timeout_s: float) -> bool:
        """Wait for a block above `height`; False when the time is over or the engine stops."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.state.head.height <= height and not self._stopping:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._advanced.wait()
            except TimeoutError:
                return False
        return self.state.head.height > height

    async def _check(self, raws: Sequence[bytes]) -> list[Checked]:
        """Decode and verify on threads; secp256k1 runs without the interpreter lock."""
        loop, network = asyncio.get_running_loop(), self.state.network
        chunks = [
            loop.run_in_executor(
                self._verifiers, _check_chunk, network, raws[first : first + VERIFY_CHUNK]
            )
            for first in range(0, len(raws), VERIFY_CHUNK)
        ]
        return list(itertools.chain.from_iterable(await asyncio.gather(*chunks)))

    async def _run(self) -> None:
        pending: deque[_Slot] = deque()
        try:
            while self._queue or pending or not self._stopping:
                await self._fill(pending)
                if pending:
                    await self._make_block(_take(pending))
        finally:
            self._stopping = True
            self._advanced.set()
            stopped = OverloadError("the ledger stopped", hint="send it again later")
            for submission in (*(slot.submission for slot in pending), *self._queue):
                _fail(submission, stopped)

    async def _fill(self, pending: deque[_Slot]) -> None:
        """Take checked submissions off the queue, waiting only when nothing is pending."""
        while not self._queue and not pending and not self._stopping:
            self._arrived.clear()
            await self._arrived.wait()
        while self._queue and len(pending) < BLOCK_TRANSACTIONS_MAX:
            submission = self._queue[0]
            if pending and not submission.checked.done():
                return
            try:
                checked = await submission.checked
            except Exception:  # one bad submission must not end the ledger
                log.exception("check-failed", transactions=len(submission.raws))
                self._drop(submission)
                continue
            self._queue.popleft()
            pending.extend(
                _Slot(submission, raw, received, holds)
                for raw, (received, holds) in zip(submission.raws, checked, strict=True)
            )

    def _drop(self, submission: _Submission) -> None:
        self._queue.remove(submission)
        self._queued -= len(submission.raws)
        self._queued_bytes -= sum(map(len, submission.raws))
        _fail(submission, MachineError("the ledger failed", hint="look at its log"))

    async def _make_block(self, slots: list[_Slot]) -> None:
        loop = asyncio.get_running_loop()
        time_ms = max(self._clock_ms(), self.state.head.time_ms)
        try:
            results, applied = await loop.run_in_executor(
                self._writer, self._produce, slots, time_ms
            )
        except LichenError as error:
            for slot in slots:
                _fail(slot.submission, error)
            self._require_unmoved()
        except Exception:  # nothing was written; one bad batch must not end the ledger
            log.exception("block-failed", transactions=len(slots))
            for slot in slots:
                _fail(slot.submission, MachineError("the ledger failed", hint="look at its log"))
            self._require_unmoved()
        else:
            if applied is not None:
                self.state.adopt(applied.changes)
                self._advanced.set()
                self._advanced = asyncio.Event()
            for slot, result in zip(slots, results, strict=True):
                _settle(slot, result)
        finally:
            self._queued -= len(slots)
            self._queued_bytes -= sum(len(slot.raw) for slot in slots)

    def _require_unmoved(self) -> None:
        """After a failed write: stop when the disk has the block after all (its fsync failed)."""
        self._store.refresh()
        if self.state.stored_head() != self.state.head:
            raise MachineError(
                "the disk failed while a block was written", hint="check it, then start again"
            )

    def _produce(self, slots: list[_Slot], time_ms: int) -> tuple[list[Result], Applied | None]:
        """Work out a block and write it to disk, on the writer's thread."""
        draft = self.state.draft(time_ms)
        accepted: dict[bytes, bytes] = {}
        moved: list[Outcome] = []
        results: list[Result] = []
        for slot in slots:
            if isinstance(slot.received, LedgerError):
                results.append(Result("", error=Refusal.of(slot.received)))
                continue
            outcome = apply_transaction(draft, slot.received, signature_holds=slot.signature_holds)
            if outcome.error is None:
                accepted[outcome.id] = slot.raw
                moved.append(outcome)
            results.append(self._result(outcome, accepted, draft.height))
        if not accepted:
            return results, None
        applied = seal(self.state, draft, list(accepted.values()), moved, self._key)
        self._store.write(applied.changes.entries)
        return results, applied

    def _result(self, outcome: Outcome, accepted: dict[bytes, bytes], height: int) -> Result:
        identity = outcome.id.hex()
        if outcome.error is None:
            return Result(identity, height)
        if isinstance(outcome.error, BadNonceError):  # perhaps sent again after a lost answer
            if outcome.id in accepted:
                return Result(identity, height)
            place = find_transaction(self._store, outcome.id)
            if place is not None:
                return Result(identity, place.height)
        return Result(identity, error=Refusal.of(outcome.error))


def check_last_block(state: State) -> None:
    """Require the last block to be the head's; raise CorruptionError otherwise."""
    head = state.head
    block = View(state).block(head.height)
    if head.height and (block is None or block_hash(state.network, block.header) != head.hash):
        raise CorruptionError("the last block is not the head's", hint="restore it from a copy")


def _check_sequencer(genesis: Genesis, key: PrivateKey | None) -> None:
    if genesis.validators:
        raise UserError(
            "the genesis names validators, and one process alone may not order for them",
            hint="run it with the engine that they agree by: lichen ledger run --engine cometbft",
        )
    if genesis.sequencer != (None if key is None else key.public):
        raise UserError(
            "the key to sign blocks with is not the sequencer that the genesis names",
            hint="name its key in the ledger's config.toml: key, keys, password_file",
        )


def _check_chunk(network: bytes, raws: Sequence[bytes]) -> list[Checked]:
    return [_check_one(network, raw) for raw in raws]


def _check_one(network: bytes, raw: bytes) -> Checked:
    try:
        received = decode_transaction(raw)
    except LedgerError as error:
        return error, False
    return received, received.signed.network == network and received.signature_holds()


def _take(pending: deque[_Slot]) -> list[_Slot]:
    """Take what fits into one block."""
    taken: list[_Slot] = []
    size = 0
    while pending and len(taken) < BLOCK_TRANSACTIONS_MAX:
        size += len(pending[0].raw)
        if size > BLOCK_TRANSACTION_BYTES_MAX:
            break
        taken.append(pending.popleft())
    return taken


def _settle(slot: _Slot, result: Result) -> None:
    submission = slot.submission
    submission.results.append(result)
    if len(submission.results) == len(submission.raws) and not submission.done.done():
        submission.done.set_result(submission.results)


def _fail(submission: _Submission, error: LichenError) -> None:
    if not submission.done.done():
        submission.done.set_exception(error)
        submission.done.exception()  # whoever waited may be gone
