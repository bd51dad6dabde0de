"""One confined process: started, measured and killed from outside.

Two processes stand behind it when it is sandboxed: `outer`, our child (bubblewrap, which waits),
and `pid`, the program itself. CPU and memory are read of the program; the end is told by `outer`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from lichen.errors import MachineError
from lichen.runtime.errors import EngineMissingError

if TYPE_CHECKING:
    from lichen.runtime.sandbox import Command, Job, Sandbox

INFO_BYTES_MAX: Final = 4096
START_S_MAX: Final = 15.0

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM_BYTES = 128


class Process:
    """A running job. `ended` resolves with the exit code, once, when all of it is gone."""

    def __init__(self, outer: subprocess.Popen[bytes], pid: int) -> None:
        self.pid = pid
        self._outer = outer
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of the process, see clock_getres(2)
        self._cpu_ns = 0
        self._inner_fd = _open_pidfd(pid)
        self._statm_fd = _open_statm(pid)
        self._lock = threading.Lock()  # no descriptor is used while it is being closed
        self._outer_fd = os.pidfd_open(outer.pid)
        self._loop.add_reader(self._outer_fd, self._reap)

    def cpu_ns(self) -> int:
        """CPU time used so far, in ns; the last known value once the process is gone."""
        try:  # noqa: SIM105 (read twice a run, and this costs half of what `suppress` does)
            self._cpu_ns = time.clock_gettime_ns(self._clock)
        except OSError:  # gone
            pass
        return self._cpu_ns

    def anonymous_bytes(self) -> int:
        """Memory that is this process's alone: resident, without file-backed pages."""
        with self._lock:
            if self._statm_fd < 0:
                return 0
            try:
                fields = os.pread(self._statm_fd, _STATM_BYTES, 0).split()
            except OSError:  # gone
                return 0
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES if len(fields) > 2 else 0

    def kill(self) -> None:
        """Kill the program now; safe from any thread and after its end.

        The sandbox around it is left to notice, so that it, and not init, buries its child.
        """
        self.cpu_ns()
        with self._lock:
            descriptor = self._inner_fd if self._inner_fd >= 0 else self._outer_fd
            if descriptor >= 0:
                with suppress(OSError):  # gone already
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def _reap(self) -> None:
        code = self._outer.poll()
        if code is None:
            return
        self._loop.remove_reader(self._outer_fd)
        with self._lock:
            for descriptor in (self._inner_fd, self._statm_fd, self._outer_fd):
                if descriptor >= 0:
                    os.close(descriptor)
            self._inner_fd = self._statm_fd = self._outer_fd = -1
        if not self.ended.done():
            self.ended.set_result(code)


async def start(sandbox: Sandbox, job: Job, *, output: int) -> Process:
    """Start a job with its output and errors going to the descriptor `output`.

    Raises EngineMissingError when the sandbox does not start it, MachineError when nothing would.
    """
    command = sandbox.command(job)
    try:
        outer = _spawn(command, output)
    except OSError as error:
        raise MachineError(
            f"{job.program} cannot be started: {error.strerror}",
            hint="the machine may be out of processes or memory",
        ) from error
    finally:
        for descriptor in command.close_after:
            os.close(descriptor)
    if command.info is None:
        return Process(outer, outer.pid)
    pid: int | None = None
    try:
        async with asyncio.timeout(START_S_MAX):
            pid = await _pid_inside(command.info)
        if pid is not None:
            return Process(outer, pid)
    except TimeoutError:
        pass  # reported below
    finally:
        os.close(command.info)
        if pid is None:  # also when this was cancelled
            _kill_group(outer)
    raise EngineMissingError(
        f"{job.program} could not be started in the sandbox", hint="run `lichen doctor`"
    )


def _spawn(command: Command, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=command.descriptors,
        env={},
        process_group=0,
    )


def _kill_group(outer: subprocess.Popen[bytes]) -> None:
    """Kill a sandbox that is still being made: its inner half is not tied to the outer one yet."""
    with suppress(ProcessLookupError):
        os.killpg(outer.pid, signal.SIGKILL)
    outer.wait()


async def _pid_inside(info: int) -> int | None:
    """Read bubblewrap's report: JSON with `child-pid`, the program's pid as we see it.

    It is read to its end, because bubblewrap dies when it cannot write all of it.
    """
    loop = asyncio.get_running_loop()
    os.set_blocking(info, False)
    report = b""
    while len(report) < INFO_BYTES_MAX:
        readable = loop.create_future()
        loop.add_reader(info, _resolve, readable)
        try:
            await readable
        finally:
            loop.remove_reader(info)
        chunk = os.read(info, INFO_BYTES_MAX)
        report += chunk
        if not chunk:
            break
    match = re.search(rb'"child-pid": (\d+)', report)
    return int(match[1]) if match else None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended already, and `outer` will tell
        return -1


def _open_statm(pid: int) -> int:
    try:
        return os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    except FileNotFoundError:
        return -1
