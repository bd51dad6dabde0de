"""The race for one block: sources are asked one after the other, and together when one is slow.

Who is known is asked first; then those that routers name, as they are named; our own Kubo at last.
The next one is asked when one has answered without the block, or has been silent for longer than it
usually is. The first right answer ends the race.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from lichen.cdn.retrieval.health import HEDGE_S_MAX
from lichen.cdn.retrieval.sources import Source

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

ASKED_AT_ONCE_MAX = 4
SOURCES_MAX = 32  # asked for one block


class Reply(msgspec.Struct, frozen=True):
    """What came of asking a source: whether it answered at all, and the block if it had it."""

    source: Source | None
    reached: bool = False
    block: bytes | None = None


NOTHING = Reply(None)
Find = Callable[[Callable[[Source], None]], Awaitable[None]]


class Race:
    """One race. `ask` asks a source, `find` calls back for each further one that it finds."""

    def __init__(
        self,
        known: Iterable[Source],
        last: Iterable[Source],
        ask: Callable[[Source], Awaitable[Reply]],
        find: Find | None,
        hedge_s: Callable[[Source], float],
    ) -> None:
        self._waiting = collections.deque(known)
        self._last = collections.deque(last)
        self._ask = ask
        self._find = find
        self._hedge_s = hedge_s
        self._seen = {*self._waiting, *self._last}
        self._events: asyncio.Queue[Reply] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0  # tasks; those of them that ask a source are counted beside
        self._asking = 0
        self._wait_s = HEDGE_S_MAX
        self.asked = 0
        self.reached = False
        self.hedged = 0

    async def run(self) -> Reply | None:
        """Return the first reply with a block; None when nobody has it."""
        try:
            self._advance()
            while self._running or not self._events.empty():
                reply = await self._next()
                if reply is None:  # silent for too long
                    self.hedged += bool(self._asking)
                    self._advance()
                    continue
                self.reached = self.reached or reply.reached
                if reply.block is not None:
                    return reply
                if reply.source is not None or not self._asking:
                    self._advance()
        finally:
            for task in self._tasks:
                task.cancel()
        return None

    async def _next(self) -> Reply | None:
        """Wait for what comes next; None when it is time to ask another one."""
        if not (self._waiting or self._find or self._last):
            return await self._events.get()
        try:
            async with asyncio.timeout(self._wait_s):
                return await self._events.get()
        except TimeoutError:
            return None

    def _advance(self) -> None:
        if self._running >= ASKED_AT_ONCE_MAX or self.asked >= SOURCES_MAX:
            return
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._find is not None:
            find, self._find = self._find, None
            self._wait_s = HEDGE_S_MAX
            self._run(self._look(find))
        elif self._last:
            self._start(self._last.popleft())

    def _start(self, source: Source) -> None:
        self.asked += 1
        self._asking += 1
        self._wait_s = self._hedge_s(source)
        self._run(self._tell(source))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._running += 1
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Report a task that failed instead of telling: a fault of ours, which is not hidden."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._events.put_nowait(NOTHING)
            task.get_loop().call_exception_handler(
                {"message": "asking for a block failed", "exception": task.exception()}
            )

    async def _tell(self, source: Source) -> None:
        try:
            reply = await self._ask(source)
        finally:
            self._running -= 1
            self._asking -= 1
        self._events.put_nowait(reply)

    async def _look(self, find: Find) -> None:
        try:
            await find(self._offer)
        finally:
            self._running -= 1
        self._events.put_nowait(NOTHING)

    def _offer(self, source: Source) -> None:
        """Take a further source; it is asked at once when nobody else is."""
        if source in self._seen:
            return
        self._seen.add(source)
        self._waiting.append(source)
        self._events.put_nowait(NOTHING)
