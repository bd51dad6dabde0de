"""A pool of engine processes, booted before anybody needs them, each used by one tenant only.

A process is claimed once, gets one tenant's code, and dies with it. Nothing of one tenant can be
found by another because nothing is ever used twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import socket
import tempfile
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lichen.errors import MachineError
from lichen.runtime import config, process
from lichen.runtime.bwrap import INSTALL_HINT, kill_leftovers
from lichen.runtime.cgroups import Cgroup, Cgroups
from lichen.runtime.codeserver import CodeServer, pack_code
from lichen.runtime.engines import js_profile
from lichen.runtime.errors import EngineMissingError, NoRoomError, SandboxMissingError
from lichen.runtime.logpump import LogPump
from lichen.runtime.sandbox import Job, Sandbox
from lichen.runtime.tenant import Tenant, TenantSpec, ping
from lichen.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.runtime.engines import Engines

__all__ = ["Pool", "Tenant", "TenantSpec"]

PREWARM: Final = 2
TENANTS_MAX: Final = 64
HEAP_MB: Final = 128
HEAP_SIZES_MAX: Final = 4  # of which processes are kept ready
PIDS_MAX: Final = 64
BACKLOG: Final = 256
BOOT_S_MAX: Final = 20.0
REFILL_DELAY_S: Final = 0.1
REFILL_RETRY_S: Final = 2.0
REFILL_CALM_S: Final = 2.0
SOCKET_PATH_BYTES_MAX: Final = 100

_READY_POLL_S: Final = 0.05


class Booted(msgspec.Struct, frozen=True):
    """A process that is ready and belongs to nobody yet."""

    process: process.Process
    directory: str
    socket_path: str
    code: CodeServer
    pump: LogPump
    cgroup: Cgroup | None
    flooded: asyncio.Event


class Pool:
    """Boots processes ahead and hands each to one tenant.

    `home` is a folder of its own. `sandbox` decides the tier; without one (tier `none`) only owners
    for whom `unsandboxed` says yes may claim. `prewarm` processes wait ready; at most `tenants_max`
    are claimed at a time, and the one idle for longest makes room. A size of heap that was asked
    for once is kept ready from then on, up to HEAP_SIZES_MAX sizes.
    """

    def __init__(
        self,
        engines: Engines,
        home: str | os.PathLike[str],
        *,
        sandbox: Sandbox,
        cgroups: Cgroups | None = None,
        prewarm: int = PREWARM,
        tenants_max: int = TENANTS_MAX,
        heap_mb: int = HEAP_MB,
        unsandboxed: Callable[[str], bool] = lambda _owner: False,
    ) -> None:
        self.tier, self.profile = sandbox.tier, js_profile()
        self._engines, self._home, self._sandbox = engines, os.fspath(home), sandbox
        self._cgroups, self._unsandboxed = cgroups, unsandboxed
        self._prewarm, self._tenants_max, self._heap_mb = prewarm, tenants_max, heap_mb
        self._run_dir = self._label = ""
        self._lock_fd = -1
        self._numbers = itertools.count(1)
        self._idle: defaultdict[int, list[Booted]] = defaultdict(list)
        self._wanted = {heap_mb: prewarm}  # how many to keep ready of each heap size
        self._tenants: set[Tenant] = set()
        self._claiming = 0
        self._refilling: asyncio.Task[None] | None = None
        self._cleaning: set[asyncio.Task[None]] = set()
        self._watchdog = Watchdog()
        self._closed = False
        self._hurry = asyncio.Event()  # nothing waits ready for some heap size

    @property
    def tenants(self) -> frozenset[Tenant]:
        """The tenants that are alive."""
        return frozenset(self._tenants)

    @property
    def idle_pids(self) -> frozenset[int]:
        """The pids of the processes that wait for a tenant."""
        return frozenset(b.process.pid for waiting in self._idle.values() for b in waiting)

    async def start(self) -> None:
        """Boot the first processes. Raises MachineError when another pool uses `home`."""
        self._run_dir, self._lock_fd = _take_run_dir(self._home)
        self._label = f"lichen-{_key(self._run_dir)}"
        if self.tier == "process":
            kill_leftovers(self._label)
        if self._cgroups is not None:
            self._cgroups.sweep()
        self._watchdog.start()
        try:
            for _ in range(self._prewarm):
                self._idle[self._heap_mb].append(await self._boot(self._heap_mb))
        except BaseException:
            await self.close()
            raise

    async def claim(self, spec: TenantSpec) -> Tenant:
        """Give one process to this tenant, for good.

        Raises SandboxMissingError when the owner's code may not run here, NoRoomError when all
        tenants are busy, LimitError and UserError when the spec is out of bounds.
        """
        spec.check()
        self._admit(spec)
        self._make_room()
        self._claiming += 1
        try:
            booted = await self._take(spec.memory_mb)
        finally:
            self._claiming -= 1
        tenant = Tenant(
            spec,
            process=booted.process,
            socket_path=booted.socket_path,
            pump=booted.pump,
            cgroup=booted.cgroup,
        )
        booted.code.offer(pack_code(spec.code, spec.env, node_compat=spec.node_compat))
        self._adopt(tenant, booted)
        return tenant

    async def close(self) -> None:
        """Kill every process, wait until they are gone, and tidy up."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)
        for tenant in self._tenants:
            tenant.stop()
        for waiting in self._idle.values():
            for booted in waiting:
                booted.process.kill()
                self._clean_later(booted)
        self._idle.clear()
        await asyncio.gather(*(t.exited for t in self._tenants))
        while self._cleaning:
            await asyncio.gather(*self._cleaning)
        self._watchdog.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _admit(self, spec: TenantSpec) -> None:
        if self._closed:
            raise MachineError("the pool is closed", hint="start the node again")
        if self.tier == "none" and not self._unsandboxed(spec.owner):
            raise SandboxMissingError(
                f"this node has no sandbox, so it does not run {spec.name}, which is not its own",
                hint=f"{INSTALL_HINT}; `lichen doctor` tells whether it works",
            )

    def _make_room(self) -> None:
        if len(self._tenants) + self._claiming < self._tenants_max:
            return
        idle = [t for t in self._tenants if t.in_flight == 0]
        if not idle:
            raise NoRoomError(
                f"all {self._tenants_max} tenants of this node are busy",
                hint="try another node, or again in a moment",
            )
        victim = min(idle, key=lambda t: t.last_used)
        self._tenants.discard(victim)
        victim.stop()

    async def _take(self, memory_mb: int) -> Booted:
        """Return a waiting process with this heap, or boot one."""
        waiting = self._idle[memory_mb]
        while waiting:
            booted = waiting.pop(0)
            if not booted.process.ended.done():
                self._refill()
                return booted
            self._clean_later(booted)
        if len(self._wanted) < HEAP_SIZES_MAX:
            self._wanted.setdefault(memory_mb, 1)
        self._refill()
        return await self._boot(memory_mb)

    def _adopt(self, tenant: Tenant, booted: Booted) -> None:
        self._tenants.add(tenant)
        self._watchdog.add(tenant)
        flood = asyncio.ensure_future(booted.flooded.wait())
        flood.add_done_callback(lambda f: None if f.cancelled() else tenant.stop("output"))

        def gone(_reason: object) -> None:
            flood.cancel()
            self._watchdog.discard(tenant)
            self._tenants.discard(tenant)
            self._clean_later(booted)

        tenant.exited.add_done_callback(gone)

    def _refill(self) -> None:
        if not all(self._idle[mb] for mb in self._wanted):
            self._hurry.set()
        if not self._closed and (self._refilling is None or self._refilling.done()):
            self._refilling = asyncio.create_task(self._refill_loop())

    async def _refill_loop(self) -> None:
        """Boot one after the other, each after a pause: those who run need the CPU first."""
        delay_s = REFILL_DELAY_S
        while self._lacking() is not None:
            await asyncio.sleep(delay_s)
            await self._calm()
            heap_mb = self._lacking()
            if heap_mb is None:
                return
            try:
                self._idle[heap_mb].append(await self._boot(heap_mb))
            except MachineError:  # the next claim boots for itself and reports it
                delay_s = REFILL_RETRY_S

    async def _calm(self) -> None:
        """Wait while there is no hurry: a boot is felt next door, and another one still waits."""
        self._hurry.clear()
        if all(self._idle[mb] for mb in self._wanted):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFILL_CALM_S):
                    await self._hurry.wait()

    def _lacking(self) -> int | None:
        """Return a heap size of which too few processes wait."""
        sizes = (mb for mb, count in self._wanted.items() if len(self._idle[mb]) < count)
        return next(sizes, None)

    async def _boot(self, heap_mb: int) -> Booted:
        number = next(self._numbers)
        directory = os.path.join(self._run_dir, str(number))
        seen = self._sandbox.seen(f"{directory}/job")
        code = CodeServer(f"{directory}/job/{config.CODE_SOCKET}")
        cgroup = None
        try:
            _write_job(directory, heap_mb, f"{seen}/{config.CODE_SOCKET}")
            await code.start()
            listener = _listen(f"{directory}/s")
            cgroup = self._make_cgroup(number)
        except OSError as error:
            await _clean(directory, code, cgroup)
            raise MachineError(
                f"a process cannot be prepared in {directory}: {error.strerror}",
                hint="free disk space, and look at the rights on that folder and on the cgroups",
            ) from error
        job = Job(
            program=self._engines.workerd,
            arguments=_arguments(seen, listener.fileno()),
            directory=f"{directory}/job",
            number=number,
            label=self._label,
            descriptors=(listener.fileno(),),
            cgroup_procs=() if cgroup is None else cgroup.procs,
            pids_max=PIDS_MAX,
        )
        output, output_write = os.pipe()
        try:
            started = await process.start(self._sandbox, job, output=output_write)
        except BaseException:
            os.close(output)
            await _clean(directory, code, cgroup)
            raise
        finally:
            os.close(output_write)
            listener.close()
        flooded = asyncio.Event()
        pump = LogPump(output, flooded.set)
        booted = Booted(started, directory, f"{directory}/s", code, pump, cgroup, flooded)
        return await self._until_ready(booted)

    def _make_cgroup(self, number: int) -> Cgroup | None:
        if self._cgroups is None:
            return None
        cgroup = self._cgroups.create(number)
        cgroup.limit_pids(PIDS_MAX)
        cgroup.limit_cpu()
        return cgroup

    async def _until_ready(self, booted: Booted) -> Booted:
        ready = asyncio.ensure_future(ping(booted.socket_path))
        try:
            waited: list[asyncio.Future[Any]] = [ready, booted.process.ended]
            await asyncio.wait(
                waited,
                timeout=BOOT_S_MAX,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ready.done() and not ready.cancelled() and ready.result():
                return booted
        except asyncio.CancelledError:
            booted.process.kill()
            self._clean_later(booted)
            raise
        finally:
            ready.cancel()
        booted.process.kill()
        await booted.process.ended
        booted.pump.close()
        self._clean_later(booted)
        raise EngineMissingError(
            f"workerd did not start in tier {self.tier}: {booted.pump.last_words or 'no output'}",
            hint="run `lichen doctor`",
        )

    def _clean_later(self, booted: Booted) -> None:
        task = asyncio.create_task(self._clean(booted))
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _clean(self, booted: Booted) -> None:
        await asyncio.shield(booted.process.ended)
        booted.pump.close()
        await _clean(booted.directory, booted.code, booted.cgroup)


def _arguments(seen: str, descriptor: int) -> tuple[str, ...]:
    listen = f"{config.SOCKET_NAME}={descriptor}"
    return ("serve", "--experimental", f"{seen}/{config.CONFIG}", "--socket-fd", listen)


def _write_job(directory: str, heap_mb: int, code_socket: str) -> None:
    """Write the folder that the process sees; others are kept out by the folder above."""
    os.makedirs(f"{directory}/job")
    os.chmod(f"{directory}/job", 0o755)  # noqa: S103  # a sandboxed uid reads it
    texts = {
        config.CONFIG: config.config_text(code_socket=code_socket, heap_mb=heap_mb),
        config.ROUTER: config.module_text(config.ROUTER),
        config.ENTRY: config.module_text(config.ENTRY),
    }
    for name, text in texts.items():
        with open(f"{directory}/job/{name}", "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(BACKLOG)
    return listener


async def _clean(directory: str, code: CodeServer, cgroup: Cgroup | None) -> None:
    await code.close()
    shutil.rmtree(directory, ignore_errors=True)
    for _ in range(20):  # the kernel takes a moment to empty a cgroup whose process is dead
        if cgroup is None or cgroup.remove():
            return
        await asyncio.sleep(_READY_POLL_S)


def _key(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _take_run_dir(home: str) -> tuple[str, int]:
    """Return an empty folder with a short path, and the descriptor whose lock makes it ours."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    lock = os.open(f"{home}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise MachineError(
            f"another process uses {home}", hint="stop it, or give this one a folder of its own"
        ) from None
    directory = f"{os.path.abspath(home)}/run"
    if len(os.fsencode(directory)) + len("/1000000/job/code.sock") > SOCKET_PATH_BYTES_MAX:
        directory = f"{tempfile.gettempdir()}/lichen-{os.getuid()}-{_key(os.path.abspath(home))}"
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory, mode=0o700)
    return directory, lock
