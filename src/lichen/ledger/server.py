"""The ledger's process: an ordering engine behind HTTP (see docs/architecture.md).

`GET /v1/blocks` frames each block by its length as a varint; a frame of length 0 is a heartbeat,
sent when `HEARTBEAT_S` pass without a block, so that a follower notices a dead connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Protocol

import libipld
import msgspec
import prometheus_client
import uvicorn
import uvloop
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lichen import journal
from lichen.content import varint
from lichen.encoding import to_json
from lichen.errors import (
    LichenError,
    LimitError,
    MachineError,
    NotFoundError,
    PeerUnavailableError,
    UserError,
)
from lichen.ledger.blocks import TRANSACTIONS_PER_REQUEST_MAX
from lichen.ledger.engine import Engine
from lichen.ledger.history import find_transaction
from lichen.ledger.proofs import Prover, read_key
from lichen.wire.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from prometheus_client.core import Metric
    from starlette.requests import Request

    from lichen.identity import PrivateKey
    from lichen.ledger.results import Result, Status
    from lichen.ledger.state import State
    from lichen.ledger.views import View

REQUEST_BYTES_MAX = 8 << 20
BODIES_BYTES_MAX = 128 << 20  # of all requests whose body is being read or worked on
CONNECTIONS_MAX = 1024
FOLLOWERS_MAX = 512
HEARTBEAT_S = 5.0
BODY_S_MAX = 30
IDLE_S = 75
SHUTDOWN_S = 10
BLOCKS_PER_CHUNK_BYTES = 1 << 20
CBOR = "application/vnd.ipld.dag-cbor"
BLOCK_STREAM = "application/vnd.lichen.blocks"


class ServedEngine(Protocol):
    """What the server needs of an engine, whichever orders the transactions."""

    @property
    def state(self) -> State:
        """The state after the last block."""
        ...

    @property
    def view(self) -> View:
        """Typed reads of it."""
        ...

    @property
    def queued(self) -> int:
        """How many transactions wait for a block."""
        ...

    @property
    def running(self) -> bool:
        """Whether transactions are being ordered."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the engine takes no more transactions."""
        ...

    def status(self) -> Status:
        """Return where the ledger stands."""
        ...

    async def submit(self, raws: Sequence[bytes]) -> list[Result]:
        """Order transactions."""
        ...

    async def wait_beyond(self, height: int, timeout_s: float) -> bool:
        """Wait for a block above a height."""
        ...

    def stop_streams(self) -> None:
        """Wake whoever waits for blocks."""
        ...

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back when the engine ends."""
        ...


class Api:
    """The HTTP faces of one engine."""

    def __init__(self, engine: ServedEngine) -> None:
        self._engine = engine
        self._prover = Prover()
        self._followers = 0
        self._bodies = Budget(BODIES_BYTES_MAX)
        self._counts = {"accepted": 0, "refused": 0}
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/genesis", self._genesis),
                Route("/v1/status", self._status),
                Route("/v1/transactions", self._submit, methods=["POST"]),
                Route("/v1/transactions/{id}", self._transaction),
                Route("/v1/proofs/{key}", self._proof),
                Route("/v1/blocks", self._blocks),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={
                LichenError: _problem,
                ClientDisconnect: _gone,
                Exception: _problem,
                404: _no_route,
                405: _no_route,
            },
        )

    async def _genesis(self, _request: Request) -> Response:
        return _json(self._engine.state.genesis)

    async def _status(self, _request: Request) -> Response:
        return _json(self._engine.status())

    async def _health(self, _request: Request) -> Response:
        if not self._engine.running:
            raise PeerUnavailableError("the ledger is not making blocks", hint="look at its log")
        return Response(b"ok\n", media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        text = prometheus_client.generate_latest(self._registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def _submit(self, request: Request) -> Response:
        with self._bodies.share() as share:
            raws = _read_transactions(await _read_body(request, share))
            results = await self._engine.submit(raws)
        refused = sum(result.error is not None for result in results)
        self._counts["refused"] += refused
        self._counts["accepted"] += len(results) - refused
        return _json(results)

    async def _transaction(self, request: Request) -> Response:
        place = find_transaction(self._engine.state.store, _hash(request.path_params["id"]))
        if place is None:
            raise NotFoundError("no block holds this transaction", hint="send it, or wait")
        return _json(place)

    async def _proof(self, request: Request) -> Response:
        key = read_key(request.path_params["key"])
        return _json(self._prover.prove(self._engine.state, key))

    async def _blocks(self, request: Request) -> Response:
        first = _height(request.query_params.get("from", "1"))
        if first > self._engine.state.head.height + 1:
            raise UserError(
                f"the ledger stands at {self._engine.state.head.height}",
                hint="a follower that is ahead follows another ledger",
            )
        if not self._has(first):
            raise NotFoundError(
                f"block {first} is not here: this ledger began from a snapshot",
                hint="follow a validator that has all blocks",
            )
        if self._followers >= FOLLOWERS_MAX:
            raise PeerUnavailableError("too many followers", hint="follow another replica")
        return StreamingResponse(self._follow(first), media_type=BLOCK_STREAM)

    def _has(self, height: int) -> bool:
        coming = height > self._engine.state.head.height
        return coming or self._engine.view.block_bytes(height) is not None

    async def _follow(self, height: int) -> AsyncIterator[bytes]:
        self._followers += 1
        try:
            while True:
                chunk = bytearray()
                while len(chunk) < BLOCKS_PER_CHUNK_BYTES:
                    data = self._engine.view.block_bytes(height)
                    if data is None:
                        break
                    chunk += varint.encode(len(data)) + data
                    height += 1
                if chunk:
                    yield bytes(chunk)
                    await asyncio.sleep(0)
                elif not await self._engine.wait_beyond(height - 1, HEARTBEAT_S):
                    if self._engine.stopping:
                        return
                    yield b"\0"
        finally:
            self._followers -= 1

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics (called by prometheus_client)."""
        head = self._engine.state.head
        yield GaugeMetricFamily("lichen_ledger_height", "Height of the last block", head.height)
        yield GaugeMetricFamily(
            "lichen_ledger_time_seconds", "Time of the last block", head.time_ms / 1000
        )
        yield GaugeMetricFamily(
            "lichen_ledger_queued", "Transactions that wait for a block", self._engine.queued
        )
        yield GaugeMetricFamily("lichen_ledger_followers", "Open block streams", self._followers)
        count = CounterMetricFamily(
            "lichen_ledger_transactions", "Transactions answered", labels=["result"]
        )
        for result, number in self._counts.items():
            count.add_metric([result], number)
        yield count


class Budget:
    """Memory that many requests share; none of them can have all of it for long."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    @contextlib.contextmanager
    def share(self) -> Generator[Share, None, None]:
        """Hold a part while the block runs; it grows as the request takes."""
        share = Share(self)
        try:
            yield share
        finally:
            self._left += share.bytes

    def take(self, size: int) -> None:
        """Count bytes out; raise PeerUnavailableError when they are not there."""
        if size > self._left:
            raise PeerUnavailableError(
                "the ledger is reading as much as it can", hint="try again in a second"
            )
        self._left -= size


class Share:
    """What one request holds of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0

    def take(self, size: int) -> None:
        """Hold more; raise PeerUnavailableError when there is no more."""
        self._budget.take(size)
        self.bytes += size


class _Server(uvicorn.Server):
    """uvicorn, telling the engine of a stop first, so that block streams end.

    Its own way with signals ends the process before the engine has closed.
    """

    engine: ServedEngine

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take SIGTERM and SIGINT while serving."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """End block streams and finish the requests that are under way."""
        self.engine.stop_streams()
        self.should_exit = True


def serve(home: Path, host: str, port: int, key: PrivateKey | None = None) -> None:
    """Run the ledger of `home` until SIGTERM or SIGINT; what was submitted is finished first.

    `key` signs the blocks.

    Raises MachineError when the folder is in use by another process, holds no ledger, or the port
    is taken.
    """
    journal.configure()
    uvloop.run(_serve(lambda: Engine(home, key=key), host, port))


def serve_engine(
    make: Callable[[], AbstractAsyncContextManager[ServedEngine]], host: str, port: int
) -> None:
    """Run an engine, made on the event loop, behind HTTP until SIGTERM or SIGINT, or its end.

    Raises MachineError when the port is taken, and whatever ended the engine.
    """
    journal.configure()
    uvloop.run(_serve(make, host, port))


async def _serve(
    make: Callable[[], AbstractAsyncContextManager[ServedEngine]], host: str, port: int
) -> None:
    async with make() as engine:
        config = uvicorn.Config(
            Api(engine).app(),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        server = _Server(config)
        server.engine = engine
        engine.on_end(server.stop)
        try:
            await server.serve()
        except SystemExit as error:  # uvicorn's way to say that it could not bind
            raise MachineError(
                f"{host}:{port} cannot be listened on",
                hint="is another process using the port? choose a free one",
            ) from error


async def _read_body(request: Request, share: Share) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.stream():
                share.take(len(chunk))
                body += chunk
                if len(body) > REQUEST_BYTES_MAX:
                    raise LimitError(
                        f"the body is over {REQUEST_BYTES_MAX} bytes", hint="send fewer at once"
                    )
    except TimeoutError:
        raise UserError(
            f"the body did not come within {BODY_S_MAX} s", hint="send it at once"
        ) from None
    return bytes(body)


def _read_transactions(body: bytes) -> list[bytes]:
    try:
        raws = libipld.decode_dag_cbor(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body is not DAG-CBOR: {error}", hint="send a list of bytes") from None
    if not isinstance(raws, list) or not all(type(raw) is bytes for raw in raws):
        raise UserError("the body is not a list of bytes", hint="encode_transaction() gives them")
    if len(raws) > TRANSACTIONS_PER_REQUEST_MAX:
        raise LimitError(
            f"{len(raws)} transactions are over {TRANSACTIONS_PER_REQUEST_MAX}",
            hint="send them in several requests",
        )
    return raws


def _height(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise UserError(f"{text[:40]!r} is not a height", hint="heights are 1, 2, 3, ...")
    return int(text)


def _hash(text: str) -> bytes:
    with contextlib.suppress(ValueError):
        if len(text) == 64:
            return bytes.fromhex(text)
    raise UserError("a transaction id is 64 hexadecimal digits")


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")


async def _problem(_request: Request, error: Exception) -> Response:
    known = (
        error
        if isinstance(error, LichenError)
        else MachineError("the ledger failed", hint="its log says why")
    )
    body = msgspec.json.encode(problem_of(known))
    return Response(body, status_code=known.status, media_type="application/problem+json")


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _no_route(request: Request, _error: Exception) -> Response:
    return await _problem(request, NotFoundError("there is nothing here", hint="see /v1/status"))
