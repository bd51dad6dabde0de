"""Exact functions on a node: evaluated by one worker, served by the others.

Workers are shared by all functions, since every run has a fresh instance of its own. Each function
is served by SERVERS_PER_FUNCTION of them, chosen at random by its number, so that one that keeps
its workers busy leaves others free for most of its neighbours (shuffle sharding).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lichen.errors import MachineError
from lichen.runtime.errors import LoadError, NoRoomError
from lichen.runtime.exact import control
from lichen.runtime.exact.compiled import Files, prepare_files
from lichen.runtime.exact.profile import Limits, profile_of
from lichen.runtime.exact.tenant import ExactTenant
from lichen.runtime.exact.workers import NUMBER_FIRST, WorkerProcess, start_worker

if TYPE_CHECKING:
    from lichen.runtime.cgroups import Cgroups
    from lichen.runtime.engines import Engines
    from lichen.runtime.sandbox import Sandbox
    from lichen.runtime.tenant import TenantSpec

SERVERS: Final = 3
SERVERS_PER_FUNCTION: Final = 2
FUNCTIONS_MAX: Final = 512
FUEL_PER_MS: Final = 1_000_000  # of timeout_ms: a core burns 1 to 10 times as much
BACKLOG: Final = 256
LOAD_S_MAX: Final = 30.0
RESTART_S: Final = 0.5
SOCKET_PATH_BYTES_MAX: Final = 100


class ExactPool:
    """Runs exact functions: `claim` gives one a socket that answers HTTP. Starts with the first.

    `home` is a folder of its own. `sandbox` confines the workers.
    """

    tier: Final = "wasm"

    def __init__(
        self, engines: Engines, home: str, *, sandbox: Sandbox, cgroups: Cgroups | None = None
    ) -> None:
        self._engines, self._home = engines, os.path.abspath(home)
        self._sandbox, self._cgroups = sandbox, cgroups
        self.profile = profile_of(Path(engines.quickjs).read_bytes(), Limits()).id
        self._run_dir = ""
        self._files: Files | None = None
        self._starting: asyncio.Future[None] | None = None
        self._loader: WorkerProcess | None = None
        self._servers: list[WorkerProcess | None] = [None] * SERVERS
        self._numbers, self._jobs = itertools.count(1), itertools.count(NUMBER_FIRST)
        self._tenants: dict[int, ExactTenant] = {}
        self._loading: dict[int, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def claim(self, spec: TenantSpec) -> ExactTenant:
        """Evaluate a function's code and serve it from now on.

        Raises LoadError when it cannot be evaluated, NoRoomError, MachineError.
        """
        await self.start()
        self._make_room()
        number = next(self._numbers)
        file = await self._load(number, spec)
        try:
            tenant = ExactTenant(number, spec, self._run_dir, file, on_stop=self._drop)
        except BaseException:
            os.close(file)
            raise
        self._tenants[number] = tenant
        for index in self._servers_of(number):
            server = self._servers[index]
            if server is not None:
                await self._serve(server, tenant)
        return tenant

    async def close(self) -> None:
        """End all workers."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tenant in list(self._tenants.values()):
            tenant.stop("stopped")
        workers = [w for w in (self._loader, *self._servers) if w is not None]
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(worker.ended for worker in workers))
        if self._run_dir:
            shutil.rmtree(self._run_dir, ignore_errors=True)

    async def start(self) -> None:
        """Start the workers, unless that was done: soon enough, and no first request waits."""
        if self._closed:
            raise MachineError("the pool is closed", hint="start the node again")
        if self._starting is None or (
            self._starting.done() and (self._starting.cancelled() or self._starting.exception())
        ):
            self._starting = asyncio.ensure_future(self._boot())
        await asyncio.shield(self._starting)

    async def _boot(self) -> None:
        self._files = await asyncio.to_thread(prepare_files, self._engines.quickjs, self._home)
        self._run_dir = self._run_dir or _run_dir(self._home)
        self._loader = await self._worker(None)
        for index in range(SERVERS):
            try:
                self._servers[index] = await self._worker(index)
            except (MachineError, TimeoutError):  # the others can do without it for a while
                self._spawn(index)

    async def _worker(self, index: int | None) -> WorkerProcess:
        if self._files is None:
            raise MachineError("the engine is not compiled", hint="start the node again")
        number = next(self._jobs)
        directory = os.path.join(self._run_dir, "job")
        os.makedirs(directory, exist_ok=True)
        worker = await start_worker(
            self._files, directory, number,
            sandbox=self._sandbox, cgroups=self._cgroups, on_report=self._report,
        )  # fmt: skip
        worker.ended.add_done_callback(lambda _: self._worker_ended(index))
        return worker

    def _worker_ended(self, index: int | None) -> None:
        """Start another one in its place; the runs that were in it have no result."""
        if index is None:
            for waiting in self._loading.values():
                if not waiting.done():
                    waiting.set_exception(
                        LoadError("evaluating it ended the engine", hint="simplify the module")
                    )
        else:
            self._servers[index] = None
        if not self._closed:
            self._spawn(index)

    def _spawn(self, index: int | None) -> None:
        task = asyncio.get_running_loop().create_task(self._again(index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self, index: int | None) -> None:
        while not self._closed:
            await asyncio.sleep(RESTART_S)
            with contextlib.suppress(MachineError, TimeoutError):  # tried again
                worker = await self._worker(index)
                if index is None:
                    self._loader = worker
                    return
                self._servers[index] = worker
                for number, tenant in list(self._tenants.items()):
                    if index in self._servers_of(number):
                        await self._serve(worker, tenant)
                return

    def _servers_of(self, number: int) -> list[int]:
        return random.Random(number).sample(range(SERVERS), SERVERS_PER_FUNCTION)  # noqa: S311  # no secret

    async def _load(self, number: int, spec: TenantSpec) -> int:
        """Have the code evaluated; return a file with its snapshot."""
        loader = self._loader
        if loader is None or loader.ended.done():
            raise NoRoomError("the engine is being started", hint="repeat the request shortly")
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loading[number] = answer
        code = control.sealed_file(spec.code)
        heap_mb = min(spec.memory_mb, Limits().heap_mb_max)
        try:
            await loader.send(control.Load(number, heap_mb), code)
            async with asyncio.timeout(LOAD_S_MAX):
                return await answer
        except TimeoutError:
            loader.kill()
            raise LoadError("evaluating it takes too long", hint="simplify the module") from None
        finally:
            os.close(code)
            del self._loading[number]

    def _report(
        self, _worker: WorkerProcess, report: control.Report, descriptors: list[int]
    ) -> None:
        if isinstance(report, control.Logged):
            tenant = self._tenants.get(report.id)
            if tenant is not None:
                tenant.logged(report)
            return
        waiting = self._loading.get(report.id)
        if isinstance(report, control.Loaded) and waiting is not None and not waiting.done():
            if descriptors and control.is_sealed(descriptors[0]):
                waiting.set_result(descriptors.pop(0))
        elif isinstance(report, control.Refused) and waiting is not None and not waiting.done():
            waiting.set_exception(LoadError(report.text, hint=report.hint))
        for descriptor in descriptors:
            os.close(descriptor)

    async def _serve(self, worker: WorkerProcess, tenant: ExactTenant) -> None:
        order = control.Serve(
            tenant.number, tenant.name, tenant.timeout_ms, tenant.timeout_ms * FUEL_PER_MS
        )
        await worker.send(order, tenant.listener.fileno(), tenant.snapshot)

    def _drop(self, tenant: ExactTenant) -> None:
        self._tenants.pop(tenant.number, None)
        if self._closed:
            return
        for index in self._servers_of(tenant.number):
            server = self._servers[index]
            if server is not None:
                task = asyncio.get_running_loop().create_task(
                    server.send(control.Drop(tenant.number))
                )
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _make_room(self) -> None:
        if len(self._tenants) < FUNCTIONS_MAX:
            return
        idle = [tenant for tenant in self._tenants.values() if not tenant.in_flight]
        if not idle:
            raise NoRoomError("all exact functions of this node are busy", hint="try another node")
        min(idle, key=lambda tenant: tenant.last_used).stop("stopped")


def _run_dir(home: str) -> str:
    """Make an empty folder with a path short enough for sockets."""
    directory = f"{home}/run"
    if len(os.fsencode(directory)) + len("/1000000.sock") > SOCKET_PATH_BYTES_MAX:
        key = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        directory = f"{tempfile.gettempdir()}/lichen-exact-{os.getuid()}-{key}"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory, mode=0o700)
    return directory
