"""The processes that exact functions run in: started, confined, spoken to, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

import lichen
from lichen.errors import MachineError
from lichen.runtime import process
from lichen.runtime.exact import control
from lichen.runtime.logpump import LogPump
from lichen.runtime.sandbox import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.runtime.cgroups import Cgroup, Cgroups
    from lichen.runtime.exact.compiled import Files
    from lichen.runtime.sandbox import Sandbox

NUMBER_FIRST: Final = 1_000_000  # jobs of the other pool count from 1
MEMORY_BYTES_MAX: Final = 1024 * 2**20
PIDS_MAX: Final = 32
READY_S_MAX: Final = 30.0
SEND_S_MAX: Final = 5.0
_SEND_POLL_S: Final = 0.005
_SITE: Final = "/site"
_PACKAGES: Final = "/packages"

# -S keeps what is installed for other programs out; the two folders hold this package and its own.
_BOOT: Final = (
    "import sys; sys.path[:0] = {paths!r}; from lichen.runtime.exact.worker import main; main()"
)


class WorkerProcess:
    """One worker, as its node sees it. `ended` resolves when it is gone."""

    def __init__(
        self,
        started: process.Process,
        channel: socket.socket,
        pump: LogPump,
        cgroup: Cgroup | None,
        on_report: Callable[[WorkerProcess, control.Report, list[int]], None],
    ) -> None:
        self.process, self._channel, self._pump, self._cgroup = started, channel, pump, cgroup
        self._on_report = on_report
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ended = started.ended
        self._loop.add_reader(channel, self._read)
        started.ended.add_done_callback(lambda _: self._close())

    @property
    def last_words(self) -> str:
        """What it wrote last."""
        return self._pump.last_words

    async def send(self, order: control.Order, *descriptors: int) -> None:
        """Send an order; a worker that does not take it for SEND_S_MAX is killed."""
        deadline = self._loop.time() + SEND_S_MAX
        with contextlib.suppress(OSError):  # it is gone: whoever waits for it hears of that
            while not control.send(self._channel, order, descriptors):
                if self._loop.time() > deadline:
                    self.kill()
                    return
                await asyncio.sleep(_SEND_POLL_S)

    def kill(self) -> None:
        """End it now."""
        self.process.kill()

    def _read(self) -> None:
        try:
            received = control.receive_report(self._channel)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._loop.remove_reader(self._channel)
            self.kill()
            return
        report, descriptors = received
        if isinstance(report, control.Ready):
            if not self.ready.done():
                self.ready.set_result(None)
        else:
            self._on_report(self, report, descriptors)

    def _close(self) -> None:
        self._loop.remove_reader(self._channel)
        self._channel.close()
        self._pump.close()
        if not self.ready.done():
            self.ready.cancel()
        if self._cgroup is not None:
            self._cgroup.remove()


async def start_worker(
    files: Files,
    directory: str,
    number: int,
    *,
    sandbox: Sandbox,
    cgroups: Cgroups | None,
    on_report: Callable[[WorkerProcess, control.Report, list[int]], None],
) -> WorkerProcess:
    """Start a worker and wait until it has its engine; raise MachineError when it does not."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    engine, compiled = (os.open(path, os.O_RDONLY) for path in (files.engine, files.compiled))
    output, output_write = os.pipe()
    cgroup = _cgroup(cgroups, number)
    descriptors = (theirs.fileno(), engine, compiled)
    job = _job(directory, number, descriptors, cgroup, inside=sandbox.tier != "none")
    try:
        started = await process.start(sandbox, job, output=output_write)
    except BaseException:
        ours.close()
        os.close(output)
        raise
    finally:
        theirs.close()
        for descriptor in (engine, compiled, output_write):
            os.close(descriptor)
    worker = WorkerProcess(started, ours, LogPump(output, started.kill), cgroup, on_report)
    try:
        async with asyncio.timeout(READY_S_MAX):
            waited: list[asyncio.Future[Any]] = [worker.ready, worker.ended]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        worker.kill()
        raise
    if worker.ended.done():
        raise MachineError(
            f"a worker for exact functions did not start: {worker.last_words or 'no output'}",
            hint="run `lichen doctor`",
        )
    return worker


def _cgroup(cgroups: Cgroups | None, number: int) -> Cgroup | None:
    if cgroups is None:
        return None
    cgroup = cgroups.create(number)
    cgroup.limit_pids(PIDS_MAX)
    cgroup.limit_memory(MEMORY_BYTES_MAX)
    cgroup.limit_cpu()
    return cgroup


def _job(
    directory: str,
    number: int,
    descriptors: tuple[int, ...],
    cgroup: Cgroup | None,
    *,
    inside: bool,
) -> Job:
    """Describe the process: Python, this package and what is installed with it, read-only."""
    source = str(Path(lichen.__file__).resolve().parents[1])
    packages = str(Path(msgspec.__file__).resolve().parents[1])
    paths = [_SITE, _PACKAGES] if inside else [source, packages]
    start = control.Start(*descriptors)
    binds = ((source, _SITE), (packages, _PACKAGES), (sys.base_prefix, sys.base_prefix))
    return Job(
        program=os.path.realpath(sys.executable),
        arguments=(
            "-I",
            "-S",
            "-c",
            _BOOT.format(paths=paths),
            msgspec.json.encode(start).decode(),
        ),
        directory=directory,
        number=number,
        descriptors=descriptors,
        cgroup_procs=() if cgroup is None else cgroup.procs,
        pids_max=PIDS_MAX,
        extra_binds=binds if inside else (),
    )
