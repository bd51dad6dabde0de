"""A worker: a process in which exact functions run, one run at a time, and nothing else happens.

It holds no secrets, has no network and opens no files; what it needs comes as descriptors over the
socket that it was started with. Should the engine fail, only this process dies, and the runs that
were waiting in it have no result.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.encoding import sha256
from lichen.runtime.errors import LoadError
from lichen.runtime.exact import answers, control, envelope, snapshot
from lichen.runtime.exact.engine import Engine
from lichen.runtime.exact.run import Prepared, run
from lichen.runtime.exact.stack import on_large_stack
from lichen.runtime.exact.vm import PAGE_BYTES

if TYPE_CHECKING:
    from lichen.runtime.exact.outcome import Outcome

CONNECTIONS_PER_FUNCTION_MAX: Final = 32
PAUSE_S: Final = 0.01  # before a function that has that many may have another one
BODIES_BYTES_MAX: Final = 64 * 2**20
PREPARED_BYTES_MAX: Final = 128 * 2**20
CODE_BYTES_MAX: Final = 10 * 2**20
ENGINE_BYTES_MAX: Final = 64 * 2**20
LOG_LINES_MAX: Final = 500
WATCH_S: Final = 0.02
_MIB: Final = 2**20


class Backstop:
    """Interrupts a run that takes too long by the clock: it then has no result."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._deadline = 0.0
        threading.Thread(target=self._watch, name="backstop", daemon=True).start()

    def begin(self, timeout_s: float) -> None:
        """Interrupt what runs when `timeout_s` are over."""
        with self._lock:
            self._deadline = time.monotonic() + timeout_s

    def end(self) -> None:
        """Nothing runs."""
        with self._lock:
            self._deadline = 0.0

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_S)
            with self._lock:
                if self._deadline and time.monotonic() > self._deadline:
                    self._deadline = 0.0
                    self._engine.interrupt()


class Function:
    """A function that is served: its listening socket, and its snapshot in a file."""

    def __init__(self, order: control.Serve, listener: int, file: int) -> None:
        self.order, self.file = order, file
        self.listener = socket.socket(fileno=listener)
        self.listener.setblocking(False)
        self.connections = 0
        self.served = True

    def close(self) -> None:
        """Let go of both."""
        self.served = False
        self.listener.close()
        os.close(self.file)


class Connection(asyncio.Protocol):
    """One request, and its response."""

    def __init__(self, worker: Worker, function: Function) -> None:
        self._worker, self._function = worker, function
        bytes_max = worker.engine.limits.input_bytes_max - 2 * envelope.HEAD_BYTES_MAX
        self._incoming = answers.Incoming(self._run, bytes_max)
        self._transport: asyncio.Transport | None = None
        self._held = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget it."""
        self._function.connections -= 1
        self._worker.held_bytes -= self._held

    def data_received(self, data: bytes) -> None:
        """Take bytes of the request."""
        self._held += len(data)
        self._worker.held_bytes += len(data)
        if self._worker.held_bytes > BODIES_BYTES_MAX:
            self._abort()
            return
        try:
            self._incoming.feed(data)
        except ValueError:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _run(self, head: envelope.RequestHead, body: bytes, run_id: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._worker.answer(self._function, head, body, run_id))
            self._transport.close()


class Worker:
    """Serves what its node orders."""

    def __init__(self, engine: Engine, channel: socket.socket) -> None:
        self.engine, self._channel = engine, channel
        self.held_bytes = 0
        self._backstop = Backstop(engine)
        self._functions: dict[int, Function] = {}
        self._prepared: OrderedDict[int, Prepared] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Work until the node goes away."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self._channel, self._order, gone)
        control.send(self._channel, control.Ready(0))
        await gone.wait()

    def _order(self, gone: asyncio.Event) -> None:
        received = control.receive_order(self._channel)
        if received is None:
            gone.set()
            return
        order, descriptors = received
        if isinstance(order, control.Load):
            self._load(order, descriptors[0])
        elif isinstance(order, control.Serve):
            self._start(Function(order, descriptors[0], descriptors[1]))
        else:
            self._drop(order.id)

    def _load(self, order: control.Load, file: int) -> None:
        code = control.read_file(file, CODE_BYTES_MAX)
        os.close(file)
        try:
            data = snapshot.take(self.engine, code, order.heap_mb).encode()
        except LoadError as error:
            control.send(self._channel, control.Refused(order.id, error.what, error.hint))
            return
        taken = control.sealed_file(data)
        name = sha256(data).hex()
        control.send(self._channel, control.Loaded(order.id, name), (taken,))
        os.close(taken)

    def _start(self, function: Function) -> None:
        self._functions[function.order.id] = function
        self._listen(function)

    def _listen(self, function: Function) -> None:
        if function.served:
            asyncio.get_running_loop().add_reader(function.listener, self._accept, function)

    def _drop(self, number: int) -> None:
        function = self._functions.pop(number, None)
        self._prepared.pop(number, None)
        if function is not None:
            asyncio.get_running_loop().remove_reader(function.listener)
            function.close()

    def _accept(self, function: Function) -> None:
        """Take one connection: others that wait are for whichever worker is free first."""
        loop = asyncio.get_running_loop()
        if function.connections >= CONNECTIONS_PER_FUNCTION_MAX:
            loop.remove_reader(function.listener)
            loop.call_later(PAUSE_S, self._listen, function)
            return
        try:
            accepted, _ = function.listener.accept()
        except BlockingIOError:  # another worker was faster
            return
        function.connections += 1
        task = loop.create_task(self._connect(function, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, function: Function, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(self, function), accepted)

    def answer(
        self, function: Function, head: envelope.RequestHead, body: bytes, run_id: str
    ) -> bytes:
        """Run a function once, and return the response that says what came of it."""
        order = function.order
        prepared = self._prepare(function)
        began_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        self._backstop.begin(order.timeout_ms / 1000)
        outcome = run(
            self.engine,
            prepared,
            envelope.pack_request(head, body),
            seed=answers.seed_of(run_id),
            time_ms=time.time_ns() // 1_000_000,
            fuel_max=order.fuel_max,
        )
        self._backstop.end()
        wall_ns = time.monotonic_ns() - began_ns
        self._log(order.id, run_id, outcome)
        memory_mb = -(-prepared.pages * PAGE_BYTES // _MIB)
        report = answers.Report(
            kind=outcome.kind,
            fuel=outcome.fuel,
            cpu_us=-(-(time.thread_time_ns() - cpu_ns) // 1000),
            memory_mb_ms=-(-memory_mb * wall_ns // 10**6),
        )
        return answers.response_bytes(outcome, report)

    def _prepare(self, function: Function) -> Prepared:
        number = function.order.id
        found = self._prepared.get(number)
        if found is not None:
            self._prepared.move_to_end(number)
            return found
        data = control.read_file(function.file, snapshot.SNAPSHOT_BYTES_MAX)
        found = self._prepared[number] = Prepared(self.engine, snapshot.decode(data))
        while len(self._prepared) > 1 and self._kept_bytes() > PREPARED_BYTES_MAX:
            self._prepared.popitem(last=False)
        return found

    def _kept_bytes(self) -> int:
        return sum(prepared.snapshot.memory_bytes for prepared in self._prepared.values())

    def _log(self, number: int, run_id: str, outcome: Outcome) -> None:
        if len(outcome.logs) <= len(b"[]"):
            return
        entries = envelope.unpack_logs(outcome.logs)
        lines = answers.lines_of(entries, LOG_LINES_MAX)
        if not control.send(self._channel, control.Logged(number, run_id, lines)):
            dropped = [("warn", f"{len(lines)} lines dropped: too much log output")]
            control.send(self._channel, control.Logged(number, run_id, dropped))


def main() -> None:
    """Run a worker; its argument is a control.Start in JSON."""
    start = msgspec.json.decode(sys.argv[1], type=control.Start)

    def work() -> None:
        channel = socket.socket(fileno=start.channel)
        channel.setblocking(False)
        wasm = control.read_file(start.engine, ENGINE_BYTES_MAX)
        engine = Engine(wasm, compiled=f"/proc/self/fd/{start.compiled}")
        asyncio.run(Worker(engine, channel).serve())

    on_large_stack(work)


if __name__ == "__main__":
    main()
