"""One or more listening sockets of a process, served by `Connection` inside uvicorn's server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec
import uvicorn

from lichen.errors import MachineError, NotFoundError
from lichen.wire.connection import Connection
from lichen.wire.counters import Counters
from lichen.wire.errors import PortTakenError
from lichen.wire.limits import TICK_S, Limits
from lichen.wire.problem import problem_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lichen.wire.answers import Answer
    from lichen.wire.heads import RequestHead

    AsgiApp = Callable[..., Any]
    Route = Callable[[RequestHead], Answer]

_BACKLOG = 1024
_ROOM_PER_TICK = 1024  # connections that may make room between two looks at all of them


class ListenerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen and within which bounds.

    `addresses` are `host:port` or `[v6]:port` (port 0 takes any free one) or `unix:/path`; a stale
    unix socket is replaced. `mux` offers clients to carry many connections over one (docs/wire.md).
    `is_own` tells which hosts (lower-case, perhaps with a port) a client may ask for that uses this
    as its HTTP proxy, tunnels included. They end here: nothing is ever dialled for them.
    """

    addresses: tuple[str, ...]
    limits: Limits = Limits()
    name: str = "http"
    mux: bool = False
    is_own: Callable[[bytes], bool] | None = None


class Listener:
    """A running listener: its counters, its coarse clock `now` (monotonic seconds), its sockets."""

    def __init__(self, config: ListenerConfig, router: Route, app: AsgiApp | None = None) -> None:
        self.config = config
        self.limits = config.limits
        self.router = router
        self.counters = Counters()
        self.now = time.monotonic()
        self.sockets: list[socket.socket] = []
        self._paths: list[str] = []
        self._server = uvicorn.Server(self._uvicorn_config(app))
        self._main: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.connections_max, self.files_max = _bounds(config.limits.connections_max)
        self._waiting: list[tuple[float, Connection]] = []
        self._looked = 0.0

    @property
    def port(self) -> int:
        """The port of the first TCP address."""
        for number in self.sockets:
            if number.family != socket.AF_UNIX:
                return int(number.getsockname()[1])
        raise MachineError(
            "this listener has no TCP address", hint="add host:port to its addresses"
        )

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        """Bind, then serve; raise PortTakenError or MachineError when an address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            for address in self.config.addresses:
                self.sockets.append(bind(address))
                if address.startswith("unix:"):
                    self._paths.append(address.removeprefix("unix:"))
        except MachineError:
            self._close_sockets()
            raise
        server = self._server
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=self.sockets)
        self._main = loop.create_task(server.main_loop())
        self._timer = loop.call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Accept no more, let work in flight end within `stop_s`, then cut what is left."""
        if self._main is None:
            return
        server = self._server
        server.should_exit = True
        await self._main
        self._main = None
        stopper = asyncio.ensure_future(server.shutdown(sockets=self.sockets))
        _, pending = await asyncio.wait({stopper}, timeout=self.limits.stop_s)
        if pending:
            server.force_exit = True
            for connection in list(server.server_state.connections):
                cast("Any", connection).transport.abort()
        await stopper
        if self._timer is not None:
            self._timer.cancel()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._paths.clear()
        for number in self.sockets:
            number.close()

    def make_room(self) -> bool:
        """Close the connection that has waited longest; False when none has waited `room_s`.

        So whoever keeps many connections open, and says nothing on them, shuts nobody out.
        """
        while self._waiting or self._look_for_waiting():
            since, connection = self._waiting.pop()
            if connection.waiting_since() == since:
                self.counters.made_room += 1
                connection.transport.close()
                return True
        return False

    def _look_for_waiting(self) -> bool:
        """Find who waits; once a tick, since it means to look at all connections."""
        if self._looked == self.now:
            return False
        self._looked = self.now
        found: list[tuple[float, Connection]] = []
        for connection in self._server.server_state.connections:
            if isinstance(connection, Connection):
                since = connection.waiting_since()
                if since is not None and self.now - since > self.limits.room_s:
                    found.append((since, connection))
        found.sort(key=lambda pair: pair[0])
        self._waiting = found[:_ROOM_PER_TICK][::-1]
        return bool(self._waiting)

    def _tick(self) -> None:
        """Move the coarse clock and walk all connections for passed deadlines."""
        self.now = time.monotonic()
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, Connection):
                connection.sweep(self.now)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _uvicorn_config(self, app: AsgiApp | None) -> uvicorn.Config:
        if app is None:
            app = problem_app(NotFoundError("there is nothing here", hint="check the path"))
        return uvicorn.Config(
            self._counted(app),
            http=cast("type[asyncio.Protocol]", functools.partial(Connection, self)),
            ws="websockets-sansio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, int(self.limits.stop_s)),
            backlog=_BACKLOG,
        )

    def _counted(self, app: AsgiApp) -> AsgiApp:
        statuses = self.counters.statuses

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            async def counting_send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses[message["status"] // 100] += 1
                await send(message)

            await app(scope, receive, counting_send)

        return counted


def _bounds(connections_max: int) -> tuple[int, int]:
    """Fit the number of connections to this process's descriptors, some of which are for files.

    Also returns the descriptor from which on connections take no second one.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections_max, sys.maxsize
    return min(connections_max, soft - soft // 4), soft - soft // 16


def bind(address: str) -> socket.socket:
    """Bind and return a socket; raise PortTakenError, or MachineError with what to do."""
    if address.startswith("unix:"):
        return _bind_unix(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise MachineError(f"{address!r} is no address to listen on", hint="write host:port")
    host = host.strip("[]") or "0.0.0.0"
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _bind_failed(address, error) from error
    listening.setblocking(False)
    return listening


def _bind_unix(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        if _is_stale(path):
            os.unlink(path)
        listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _bind_failed(path, error) from error
    listening.setblocking(False)
    return listening


def _is_stale(path: str) -> bool:
    """Tell whether a socket file is left over from a process that is gone."""
    if not os.path.exists(path):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _bind_failed(address: str, error: OSError) -> MachineError:
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(
            f"{address} is taken by another process",
            hint="stop it, or choose another port (--port)",
        )
    if error.errno == errno.EACCES:
        return MachineError(f"no right to listen on {address}", hint="use a port above 1023")
    return MachineError(f"cannot listen on {address}: {error.strerror}", hint="check the address")


@contextlib.asynccontextmanager
async def listening(
    config: ListenerConfig, router: Route, app: AsgiApp | None = None
) -> AsyncIterator[Listener]:
    """Serve while the block runs; stop gracefully at its end."""
    listener = Listener(config, router, app)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


async def serve(config: ListenerConfig, router: Route, app: AsgiApp | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        async with listening(config, router, app):
            await asked.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
