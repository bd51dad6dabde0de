"""What happens on the network, told to whoever listens: server-sent events from bounded queues.

A listener that cannot keep up loses events, not the gateway its memory: its queue is emptied and
it is told how many it missed.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from lichen.encoding import to_json
from lichen.errors import PeerUnavailableError
from lichen.gateway.api.views import Event, node_text
from lichen.ledger.tables import RELEASES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.gateway.runs import RunRecord
    from lichen.ledger.blocks import Block

LISTENERS_MAX = 256
QUEUE_MAX = 256
HEARTBEAT_S = 15.0
RUNS_TOLD_MAX = 32  # at a time; the queue holds eight times as many
HEARTBEAT = b": still here\n\n"


class Listener:
    """One listener's queue; `close` it, or let it go."""

    def __init__(self, hub: EventHub, queue_max: int) -> None:
        self._hub = hub
        self._queue: asyncio.Queue[Event] = asyncio.Queue(queue_max + 1)

    async def next(self, heartbeat_s: float = HEARTBEAT_S) -> Event | None:
        """Wait for the next event; None after a silent `heartbeat_s`."""
        try:
            return await asyncio.wait_for(self._queue.get(), heartbeat_s)
        except TimeoutError:
            return None

    def put(self, event: Event) -> None:
        """Queue an event; a full queue is emptied, and the listener told what it missed."""
        if self._queue.qsize() >= self._queue.maxsize - 1:
            missed = 0
            while not self._queue.empty():
                self._queue.get_nowait()
                missed += 1
            self._queue.put_nowait(Event("missed", event.time_ms, {"events": missed}))
        self._queue.put_nowait(event)

    def close(self) -> None:
        """Stop listening."""
        self._hub.forget(self)


class EventHub:
    """Hands every published event to all listeners. For one event loop."""

    def __init__(self, *, listeners_max: int = LISTENERS_MAX, queue_max: int = QUEUE_MAX) -> None:
        self._listeners_max = listeners_max
        self._queue_max = queue_max
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._tasks: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()
        self.closed = False

    def listen(self) -> Listener:
        """Begin to listen; raise PeerUnavailableError when LISTENERS_MAX do already."""
        if len(self._listeners) >= self._listeners_max or self.closed:
            raise PeerUnavailableError(
                f"there are {len(self._listeners)} listeners already", hint="try again later"
            )
        listener = Listener(self, self._queue_max)
        self._listeners.add(listener)
        return listener

    def publish(self, event: Event) -> None:
        """Queue an event for every listener; never waits."""
        for listener in tuple(self._listeners):
            listener.put(event)

    def forget(self, listener: Listener) -> None:
        """Drop a listener."""
        self._listeners.discard(listener)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def cancel_on_close(self, task: asyncio.Task[None]) -> None:
        """End another endless answer together with the streams of events."""
        self._tasks.add(task)

    def close(self) -> None:
        """End all streams. Call it before waiting for the requests that are under way."""
        self.closed = True
        for task in tuple(self._tasks):
            task.cancel()
        self.publish(Event("closing", 0, {}))


def block_events(hub: EventHub) -> Callable[[Block, frozenset[bytes]], None]:
    """Return what tells `hub` about applied blocks and their releases: a follower's callback."""

    def tell(block: Block, changed: frozenset[bytes]) -> None:
        header = block.header
        data = {"height": header.height, "transactions": header.transactions}
        hub.publish(Event("block", header.time_ms, data))
        for key in sorted(changed):
            if key.startswith(RELEASES.prefix):
                _tell_release(hub, header.time_ms, key[len(RELEASES.prefix) :])

    return tell


def _tell_release(hub: EventHub, time_ms: int, key: bytes) -> None:
    app, _, number = key.partition(b"/")
    data = {"app": app.decode(), "number": int.from_bytes(number, "big")}
    hub.publish(Event("release", time_ms, data))


def publish_runs(hub: EventHub, records: Sequence[RunRecord]) -> None:
    """Tell of runs that ended lately: each one, or of many a summary and the last ones."""
    if not hub.listeners or not records:
        return
    told = records[-RUNS_TOLD_MAX:]
    if len(told) < len(records):
        failed = sum(1 for record in records if record.error)
        data = {"runs": len(records), "failed": failed, "told": len(told)}
        hub.publish(Event("runs", _ended_ms(records[-1]), data))
    for record in told:
        hub.publish(_run_event(record))


def _run_event(record: RunRecord) -> Event:
    data = {
        "run": record.run,
        "function": record.function,
        "node": node_text(record.node),
        "status": record.status,
        "wall_us": record.wall_us,
        "error": record.error,
    }
    return Event("run", _ended_ms(record), data)


def _ended_ms(record: RunRecord) -> int:
    return record.started_ms + record.wall_us // 1000


async def stream(context: ApiContext, _: Request) -> StreamingResponse:
    """Follow what happens: blocks, releases and runs as server-sent events."""
    return StreamingResponse(
        _encode(context.events, context.events.listen()),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _encode(hub: EventHub, listener: Listener) -> AsyncIterator[bytes]:
    yield HEARTBEAT
    try:
        while not hub.closed:
            event = await listener.next()
            yield HEARTBEAT if event is None else _frame(event)
    finally:
        listener.close()


def _frame(event: Event) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.kind.encode(), to_json(event))
