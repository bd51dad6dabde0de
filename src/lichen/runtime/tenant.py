"""A claimed process: one tenant's code, running, from claim to exit."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lichen.errors import LimitError, UserError
from lichen.runtime import meter
from lichen.runtime.exits import ExitKind, ExitReason, explain

if TYPE_CHECKING:
    from lichen.runtime.cgroups import Cgroup
    from lichen.runtime.logpump import LogCallback, LogPump
    from lichen.runtime.process import Process

MEMORY_MB_MIN: Final = 32
MEMORY_MB_MAX: Final = 8192
CODE_BYTES_MAX: Final = 10 * 2**20
ENV_BYTES_MAX: Final = 512 * 1024
ENGINE_MB: Final = 96  # the engine, and what it holds for requests until V8 next collects
KERNEL_SLACK_MB: Final = 32  # the kernel's own limit lies this far above the watchdog's
PING_BYTES_MAX: Final = 4096
HOG_WINDOW_NS: Final = 100_000_000
HOG_PERCENT: Final = 60  # of one core, over a whole window

_PING = b"GET / HTTP/1.1\r\nHost: ping\r\nlichen-ping: 1\r\nConnection: close\r\n\r\n"
_PONG = b"HTTP/1.1 204"


class TenantSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: a name for messages, whose it is, the bundled module, limits, bindings.

    `env` is JSON-like. `node_compat` turns on Node built-ins. `memory_mb` is in MiB.
    `timeout_ms` bounds a run where the runtime itself can end one (exact functions).
    """

    name: str
    owner: str
    code: bytes
    memory_mb: int = 128
    timeout_ms: int = 30_000
    env: dict[str, Any] = {}
    node_compat: bool = False

    def check(self) -> None:
        """Raise LimitError or UserError when it is outside of what a tenant may be."""
        if len(self.code) > CODE_BYTES_MAX:
            raise LimitError(
                f"the code of {self.name} has {len(self.code)} bytes",
                hint=f"at most {CODE_BYTES_MAX} bytes fit (code_bytes_max)",
            )
        if len(msgspec.json.encode(self.env)) > ENV_BYTES_MAX:
            raise LimitError(
                f"the env of {self.name} is too large",
                hint=f"at most {ENV_BYTES_MAX} bytes fit (env_bytes_max)",
            )
        if not MEMORY_MB_MIN <= self.memory_mb <= MEMORY_MB_MAX:
            raise UserError(
                f"memory_mb = {self.memory_mb} is out of range",
                hint=f"choose {MEMORY_MB_MIN} .. {MEMORY_MB_MAX}",
            )


class Usage(msgspec.Struct, frozen=True):
    """What a tenant's process has used: CPU in ns since it began, memory in bytes lately."""

    cpu_ns: int
    memory_bytes: int


class Hog:
    """Judges, from readings of a CPU clock, whether something is busy all the time."""

    __slots__ = ("_cpu_ns", "_since_ns", "busy")

    def __init__(self) -> None:
        self._cpu_ns = self._since_ns = 0
        self.busy = False

    def judge(self, cpu_ns: int, now_ns: int) -> bool:
        """Take a reading; return whether the judgement has changed."""
        elapsed_ns = now_ns - self._since_ns
        if elapsed_ns < HOG_WINDOW_NS:
            return False
        busy = (cpu_ns - self._cpu_ns) * 100 > elapsed_ns * HOG_PERCENT
        self._cpu_ns, self._since_ns = cpu_ns, now_ns
        changed, self.busy = busy != self.busy, busy
        return changed


class Tenant:
    """One tenant's process.

    `socket_path` takes its HTTP requests. `exited` resolves when the process is gone. Every run is
    bracketed by `begin` and `end`, which meter it.
    """

    def __init__(
        self,
        spec: TenantSpec,
        *,
        process: Process,
        socket_path: str,
        pump: LogPump,
        cgroup: Cgroup | None,
    ) -> None:
        self.name, self.owner, self.memory_mb = spec.name, spec.owner, spec.memory_mb
        self.socket_path = socket_path
        self.pid = process.pid
        self.exited: asyncio.Future[ExitReason] = asyncio.get_running_loop().create_future()
        self.last_used = time.monotonic()
        self._process, self._pump, self._cgroup = process, pump, cgroup
        self._memory_bytes_max = (spec.memory_mb + ENGINE_MB) * 2**20
        self._stop_kind: ExitKind | None = None
        self._checked_cpu_ns = -1
        self._hog = Hog()
        self._memory_bytes = process.anonymous_bytes()
        self._meter = meter.Meter(
            cpu_ns=process.cpu_ns(), memory_bytes=self._memory_bytes, now_ns=time.monotonic_ns()
        )
        if cgroup is not None:
            cgroup.limit_memory(self._memory_bytes_max + KERNEL_SLACK_MB * 2**20)
        process.ended.add_done_callback(self._ended)

    @property
    def in_flight(self) -> int:
        """How many runs have begun and not ended."""
        return self._meter.in_flight

    def usage(self) -> Usage:
        """Read the CPU clock of the process; memory is as of the last poll."""
        return Usage(self._process.cpu_ns(), self._memory_bytes)

    def begin(self) -> meter.Run:
        """Begin a run: hand the result to `end` exactly once."""
        self._read()
        return self._meter.start()

    def end(self, run: meter.Run) -> meter.Cost:
        """End a run and say what it cost."""
        self._read()
        return self._meter.finish(run)

    def _read(self) -> None:
        now_ns = time.monotonic_ns()
        self.last_used = now_ns / 1e9
        if self._meter.due(now_ns):
            self._meter.read(
                cpu_ns=self._process.cpu_ns(), memory_bytes=self._memory_bytes, now_ns=now_ns
            )

    def on_log(self, callback: LogCallback) -> None:
        """Call `callback` in the event loop with every console line from now on."""
        self._pump.listen(callback)

    def stop(self, kind: ExitKind = "stopped") -> None:
        """Kill the process; `exited` resolves with this kind. The first reason given counts."""
        if self._stop_kind is None:
            self._stop_kind = kind
        self._process.kill()

    async def responsive(self, timeout_s: float) -> bool:
        """Return whether the process's event loop turns: tells a busy loop from a slow wait."""
        try:
            async with asyncio.timeout(timeout_s):
                return await ping(self.socket_path)
        except TimeoutError:
            return False

    def check(self) -> None:
        """Measure memory and stop the process when it is over the limit (watchdog's thread)."""
        cpu_ns = self._process.cpu_ns()
        self._weigh(cpu_ns)
        if cpu_ns == self._checked_cpu_ns:
            return  # asleep since the last look: it cannot have allocated
        self._checked_cpu_ns = cpu_ns
        self._memory_bytes = self._process.anonymous_bytes()
        if self._memory_bytes > self._memory_bytes_max:
            self.stop("memory")
        elif self._cgroup is not None and self._cgroup.pids_refused():
            self.stop("pids")

    def _weigh(self, cpu_ns: int) -> None:
        """Let those that take a whole core for long give way to those that need one briefly."""
        if self._cgroup is None or not self._hog.judge(cpu_ns, time.monotonic_ns()):
            return
        self._cgroup.prioritise("busy" if self._hog.busy else "normal")

    def _ended(self, ended: asyncio.Future[int]) -> None:
        self._pump.close()
        reason = explain(
            self._stop_kind,
            exit_code=ended.result(),
            last_words=self._pump.last_words,
            oom_killed=self._cgroup is not None and self._cgroup.oom_killed(),
            pids_refused=self._cgroup is not None and self._cgroup.pids_refused(),
        )
        if not self.exited.done():
            self.exited.set_result(reason)


async def ping(socket_path: str) -> bool:
    """Ask the router in the process for a sign of life; False when it gives none."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path, limit=PING_BYTES_MAX)
    except OSError:  # gone, or its backlog is full, which is no sign of life either
        return False
    try:
        writer.write(_PING)
        return (await reader.readline()).startswith(_PONG)
    except (OSError, ValueError):
        return False
    finally:
        writer.transport.abort()
