"""What happens on the network, told to whoever listens: server-sent events from bounded queues.

A listener that cannot keep up loses events, not the gateway its memory: its queue is emptied and
it is told how many it missed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from lichen.encoding import to_json
from lichen.errors import PeerUnavailableError
from lichen.gateway.api.views import Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.gateway.runs import RunRecord
    from lichen.ledger.state import Head
    from lichen.ledger.types import Release

LISTENERS_MAX = 256
QUEUE_MAX = 256
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"


class EventHub:
    """Hands every published event to all listeners. For one event loop."""

    def __init__(self, *, listeners_max: int = LISTENERS_MAX, queue_max: int = QUEUE_MAX) -> None:
        self._listeners_max = listeners_max
        self._queue_max = queue_max
        self._queues: set[asyncio.Queue[Event]] = set()
        self._closed = asyncio.Event()

    def publish(self, event: Event) -> None:
        """Queue an event for every listener; never waits."""
        for queue in self._queues:
            if queue.full():
                missed = _drain(queue)
                queue.put_nowait(Event("missed", event.time_ms, {"events": missed}))
            queue.put_nowait(event)

    async def listen(self, heartbeat_s: float = HEARTBEAT_S) -> AsyncIterator[Event | None]:
        """Yield events from now on, and None after each silent `heartbeat_s`.

        Raises PeerUnavailableError when there are LISTENERS_MAX listeners already.
        """
        if len(self._queues) >= self._listeners_max:
            raise PeerUnavailableError(
                f"there are {self._listeners_max} listeners already", hint="try again later"
            )
        queue: asyncio.Queue[Event] = asyncio.Queue(self._queue_max + 1)
        self._queues.add(queue)
        try:
            while not self._closed.is_set():
                try:
                    yield await asyncio.wait_for(queue.get(), heartbeat_s)
                except TimeoutError:
                    yield None
        finally:
            self._queues.discard(queue)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._queues)

    def close(self) -> None:
        """End all streams at their next event or heartbeat."""
        self._closed.set()
        self.publish(Event("closing", 0, {}))


def block_event(head: Head, transactions: int) -> Event:
    """Describe a block that was applied."""
    data = {"height": head.height, "hash": head.hash.hex(), "transactions": transactions}
    return Event("block", head.time_ms, data)


def release_event(release: Release) -> Event:
    """Describe a release that was published."""
    data = {"app": release.app, "number": release.number, "functions": len(release.functions)}
    return Event("release", release.published_ms, data)


def run_event(record: RunRecord) -> Event:
    """Describe a run that ended."""
    data = {
        "run": record.run,
        "function": record.function,
        "node": record.node,
        "status": record.status,
        "wall_us": record.wall_us,
        "error": record.error,
    }
    return Event("run", record.started_ms + record.wall_us // 1000, data)


async def stream(context: ApiContext, _: Request) -> StreamingResponse:
    """Follow what happens: blocks, releases and runs as server-sent events."""
    listening = context.events.listen()
    first = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    if first.done():  # refused: let the error become the answer
        first.result()
    return StreamingResponse(
        _encode(first, listening),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _encode(
    first: asyncio.Future[Event | None], listening: AsyncIterator[Event | None]
) -> AsyncIterator[bytes]:
    yield HEARTBEAT
    try:
        yield _frame(await first)
        async for event in listening:
            yield _frame(event)
    finally:
        first.cancel()
        await listening.aclose()  # type: ignore[attr-defined]


def _frame(event: Event | None) -> bytes:
    if event is None:
        return HEARTBEAT
    return b"event: %b\ndata: %b\n\n" % (event.kind.encode(), to_json(event))


def _drain(queue: asyncio.Queue[Event]) -> int:
    missed = 0
    while not queue.empty():
        queue.get_nowait()
        missed += 1
    return missed
