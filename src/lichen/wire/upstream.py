"""Connections to one upstream address: kept alive, bounded in number, lent to one borrower each.

`take` is the hot path: an idle connection, or nothing. `acquire` does the rest: dial, or wait in
line, or say that the line is full. A borrower gets every event of the connection it borrowed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

from lichen.errors import MachineError
from lichen.wire.limits import PoolLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]


class Borrower(Protocol):
    """Who uses a connection for one exchange."""

    def on_connected(self, upstream: Upstream) -> None:
        """Use the connection: it is yours now."""

    def on_connect_failed(self, reason: str) -> None:
        """Do without a connection: `unreachable`, `connect-timeout` or `pool-full`."""

    def on_upstream_data(self, data: bytes) -> None:
        """Take bytes that came in."""

    def on_upstream_lost(self, error: Exception | None) -> None:
        """Do without: the connection ended, cleanly (None) or not; do not give it back."""

    def on_upstream_full(self) -> None:
        """Write no more: the upstream does not read fast enough."""

    def on_upstream_drained(self) -> None:
        """Go on writing."""


class Upstream(asyncio.Protocol):
    """One connection of a pool."""

    __slots__ = (
        "borrower", "pool", "preferred", "reading_paused", "touched", "transport", "used",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.borrower: Borrower | None = None
        self.used = False  # at least one exchange went over it before the present one
        self.preferred = False  # when all are idle; its dialler says so
        self.touched = False  # since the pool last looked for idle connections to close
        self.reading_paused = False
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    @property
    def is_made(self) -> bool:
        """Whether the connection was made at all, though it may be lost since."""
        return cast("asyncio.Transport | None", self.transport) is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; an idle connection has none to send, so one that does is not trusted."""
        borrower = self.borrower
        if borrower is None:
            self.transport.abort()
        else:
            borrower.on_upstream_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the borrower and the pool."""
        borrower, self.borrower = self.borrower, None
        self.pool.forget(self)
        if borrower is not None:
            borrower.on_upstream_lost(exc)

    def pause_writing(self) -> None:
        """Pass back-pressure on."""
        if self.borrower is not None:
            self.borrower.on_upstream_full()

    def resume_writing(self) -> None:
        """Pass the end of back-pressure on."""
        if self.borrower is not None:
            self.borrower.on_upstream_drained()

    def pause_reading(self) -> None:
        """Stop reading, once."""
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, if stopped."""
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    def drop(self) -> None:
        """End the connection; the borrower hears nothing more."""
        self.borrower = None
        self.transport.abort()


class Pool:
    """Keep-alive connections to one address: `unix:/path`, `host:port` or `[v6]:port`.

    `dial` replaces the way to connect: it gets a protocol factory, as `loop.create_connection`
    does. Counts are plain attributes: `total` open or being opened, `idle` and `waiting` in line.
    """

    def __init__(
        self, address: str, *, limits: PoolLimits | None = None, dial: Dial | None = None
    ) -> None:
        self.address = address
        self.limits = limits or PoolLimits()
        self.idle: list[Upstream] = []
        self.waiting: deque[Borrower] = deque()
        self.total = 0
        self.closed = False
        self._open: set[Upstream] = set()
        self._dial = dial or dialler(address)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> Upstream | None:
        """Return a live idle connection, the most recently used one, or None.

        A preferred one is for who is alone; who comes while others are under way joins them.
        """
        idle = self.idle
        while idle:
            upstream = idle.pop()
            if upstream.preferred and idle and len(idle) + 1 < self.total:
                upstream, idle[-1] = idle[-1], upstream
            if not upstream.transport.is_closing():
                upstream.used = True
                return upstream
        return None

    def acquire(self, borrower: Borrower, *, fresh: bool = False) -> None:
        """Lend a connection to the borrower, at once or later; `fresh` passes the idle ones by."""
        upstream = None if fresh else self.take()
        if upstream is not None:
            upstream.borrower = borrower
            borrower.on_connected(upstream)
        elif self.closed:
            borrower.on_connect_failed("unreachable")
        elif self.total < self.limits.connections_max:
            self._start_dialling(borrower)
        elif fresh and self.idle:
            self.idle.pop().drop()  # forgotten at its connection_lost, which serves the line
            self.waiting.append(borrower)
        elif len(self.waiting) < self.limits.waiting_max:
            self.waiting.append(borrower)
        else:
            borrower.on_connect_failed("pool-full")

    def cancel(self, borrower: object) -> None:
        """Take a borrower that gave up out of the line."""
        self.waiting = deque(waiting for waiting in self.waiting if waiting is not borrower)

    def give_back(self, upstream: Upstream) -> None:
        """Take a connection back after a whole exchange that leaves it usable."""
        upstream.borrower = None
        if upstream.reading_paused:
            upstream.resume_reading()
        if self.waiting and not upstream.transport.is_closing():
            upstream.used = True
            borrower = upstream.borrower = self.waiting.popleft()
            borrower.on_connected(upstream)
        elif len(self.idle) >= self.limits.idle_max or self.closed:
            upstream.transport.close()
        else:
            upstream.touched = True
            idle = self.idle
            if idle and idle[-1].preferred:
                idle.insert(-1, upstream)
            else:
                idle.append(upstream)
            if self._timer is None:
                self._arm()

    def opened(self, upstream: Upstream) -> None:
        """Note a connection that was made."""
        self._open.add(upstream)

    def forget(self, upstream: Upstream) -> None:
        """Count a lost connection out, and let the next in line have its place."""
        if upstream in self._open:
            self._open.remove(upstream)
            self.total -= 1
        if upstream in self.idle:
            self.idle.remove(upstream)
        self._serve_line()

    def close(self) -> None:
        """Close what is idle, refuse what waits; connections that are lent end when given back."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.idle:
            self.idle.pop().transport.close()
        while self.waiting:
            self.waiting.popleft().on_connect_failed("unreachable")

    def _serve_line(self) -> None:
        if self.waiting and self.total < self.limits.connections_max:
            self._start_dialling(self.waiting.popleft())

    def _start_dialling(self, borrower: Borrower) -> None:
        self.total += 1
        task = asyncio.get_running_loop().create_task(self._connect(borrower))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, borrower: Borrower) -> None:
        upstream = Upstream(self)
        reason = "unreachable"
        try:
            async with asyncio.timeout(self.limits.connect_s):
                await self._dial(lambda: upstream)
        except TimeoutError:
            reason = "connect-timeout"
        except OSError:
            reason = "unreachable"
        if upstream in self._open and not upstream.transport.is_closing():
            upstream.borrower = borrower
            borrower.on_connected(upstream)
            return
        if upstream not in self._open:
            self.total -= 1
        borrower.on_connect_failed(reason)
        self._serve_line()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.limits.idle_s, self._expire)

    def _expire(self) -> None:
        """Close what lay idle for a whole period; the stack keeps the busy ones at its top."""
        self._timer = None
        keep: list[Upstream] = []
        for upstream in self.idle:
            if upstream.touched:
                upstream.touched = False
                keep.append(upstream)
            else:
                upstream.transport.close()
        self.idle = keep
        if keep:
            self._arm()


def dialler(address: str) -> Dial:
    """Return how to connect to an address as `Pool` writes it; raise MachineError if it is none."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")

        def dial_unix(factory: Callable[[], asyncio.Protocol]) -> Awaitable[object]:
            return asyncio.get_running_loop().create_unix_connection(factory, path)

        return dial_unix
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise MachineError(
            f"{address!r} is not an upstream address", hint="write unix:/path or host:port"
        )

    def dial_tcp(factory: Callable[[], asyncio.Protocol]) -> Awaitable[object]:
        return asyncio.get_running_loop().create_connection(factory, host.strip("[]"), int(port))

    return dial_tcp
