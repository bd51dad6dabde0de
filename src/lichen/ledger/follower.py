"""A follower: the ledger's state, worked out here from its blocks.

It streams blocks, applies them through the same state machine into a store of its own, and checks
every link, signature and state root. A ledger that does not hold is never believed: the follower
stops, loudly, with CorruptionError. Everything else (a ledger that is away, or restarts) is met by
trying again, with bounded pauses, from the block after the last one written.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import structlog

from lichen.errors import CorruptionError, LichenError, MachineError, PeerError, UserError
from lichen.ledger.client import LedgerClient
from lichen.ledger.machine import apply_block
from lichen.ledger.state import State
from lichen.ledger.store import LmdbStore, MemoryStore
from lichen.ledger.views import View

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lichen.ledger.blocks import Block
    from lichen.ledger.machine import Applied
    from lichen.ledger.store import Store
    from lichen.ledger.types import Genesis

    OnBlock = Callable[[Block, frozenset[bytes]], None]

RETRY_S_MIN = 0.05
RETRY_S_MAX = 5.0

log = structlog.get_logger()


class Follower:
    """A replica of one ledger. Use it as an async context manager, on one event loop.

    `state` reads what has been applied; between two awaits it does not move.
    """

    def __init__(self, home: Path | None, ledger_url: str, genesis: Genesis) -> None:
        """Keep the replica in the folder `home`, or in memory when it is None."""
        self.genesis = genesis
        self.store: Store = MemoryStore() if home is None else LmdbStore(home, durable=False)
        try:
            self._state = State(self.store, genesis)
        except BaseException:
            self.store.close()
            raise
        self.state = View(self._state)
        self.error: LichenError | None = None
        self.connected = False
        self._client = LedgerClient(ledger_url)
        self._callbacks: list[OnBlock] = []
        self._advanced = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, "follower-writer")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="ledger-follower")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._client.close()
        await asyncio.to_thread(self._writer.shutdown)
        self.store.close()

    @property
    def network(self) -> bytes:
        """The network's id."""
        return self._state.network

    @property
    def height(self) -> int:
        """The height of the last block that was applied."""
        return self._state.head.height

    @property
    def time_ms(self) -> int:
        """The time of the last block that was applied."""
        return self._state.head.time_ms

    @property
    def state_root(self) -> bytes:
        """The root of the state tree after that block."""
        return self._state.head.state_root

    def on_block(self, callback: OnBlock) -> Callable[[], None]:
        """Call `callback(block, changed_keys)` after every applied block; returns how to end that.

        The keys are those of `lichen.ledger.tables`, such as `b"node/" + address`. It runs on the
        event loop and has to be quick; what it raises is logged, and the follower goes on.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def wait_for(self, height: int) -> None:
        """Wait until the block of `height` is applied; raise why that will not be (`error`).

        It has no time limit of its own: use `asyncio.timeout`.
        """
        while self._state.head.height < height:
            if self.error is not None:
                raise self.error
            await self._advanced.wait()

    async def sync(self) -> int:
        """Ask the ledger where it stands and wait to be there too; return that height."""
        status = await self._client.status()
        await self.wait_for(status.height)
        return status.height

    async def _run(self) -> None:
        pause_s = RETRY_S_MIN
        while True:
            before = self.height
            try:
                await self._follow()
            except (CorruptionError, UserError) as error:
                self._stop(error)
                return
            except (PeerError, MachineError) as error:  # also a full disk may be mended
                log.warning("ledger-not-followed", why=error.what, hint=error.hint, retry_s=pause_s)
            except Exception as error:
                log.exception("follower-failed")
                self._stop(MachineError(f"the follower failed: {error!r}", hint="see its log"))
                return
            finally:
                self.connected = False
            pause_s = RETRY_S_MIN if self.height > before else min(pause_s * 2, RETRY_S_MAX)
            await asyncio.sleep(pause_s)

    async def _follow(self) -> None:
        await self._check_identity()
        self.connected = True
        async with contextlib.aclosing(self._client.blocks(self.height + 1)) as blocks:
            async for block in blocks:
                await self._apply(block)

    async def _check_identity(self) -> None:
        status = await self._client.status()
        if status.network != self.network.hex():
            raise CorruptionError(
                f"the ledger at {self._client.url} is another network's",
                hint="check its URL and the genesis",
            )
        head = self._state.head
        same = status.height != head.height or status.block_hash == head.hash.hex()
        if status.height < head.height or not same:
            raise CorruptionError(
                f"the ledger at {self._client.url} has lost or changed blocks that were followed",
                hint="ask its operator; remove this folder only to follow the changed ledger",
            )

    async def _apply(self, block: Block) -> None:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._writer, self._work_out, block)
        try:
            applied = await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # the store must not be closed under the writer
            raise
        self._state.adopt(applied.changes)
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()
        for callback in tuple(self._callbacks):
            try:
                callback(block, applied.changes.keys)
            except Exception:
                log.exception("follower-callback-failed", height=block.header.height)

    def _work_out(self, block: Block) -> Applied:
        applied = apply_block(self._state, block)
        self.store.write(applied.changes.entries)
        return applied

    def _stop(self, error: LichenError) -> None:
        self.error = error
        log.error("follower-stopped", why=error.what, hint=error.hint, height=self.height)
        self._advanced.set()
