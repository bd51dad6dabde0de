"""One supervised process: started in a group of its own, probed over HTTP, stopped in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from lichen.cli.network.processes import ProcessId, identify, sweep_group
from lichen.errors import MachineError

if TYPE_CHECKING:
    from lichen.cli.network.lifeline import Lifeline

PROBE_S_MAX = 2.0
PROBE_EVERY_S = 0.03
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_LINES = 5
LOG_TAIL_BYTES = 4096


class Service(msgspec.Struct, frozen=True):
    """What to start: a command, where it answers `/healthz`, how long it may take."""

    name: str
    command: tuple[str, ...]
    url: str
    log: Path
    start_s_max: float = 60.0
    stop_s_max: float = 10.0


class ServiceFailedError(MachineError):
    """A process of the network ended or never answered while the network was starting."""

    code = "service-failed"


class Child:
    """A running service."""

    def __init__(self, service: Service, process: asyncio.subprocess.Process) -> None:
        self.service = service
        self._process = process
        self.started_s = time.monotonic()
        self.identity: ProcessId | None = identify(service.name, process.pid)

    @classmethod
    async def start(cls, service: Service, lifeline: Lifeline) -> Child:
        """Start the service's command in a session of its own, its output appended to its log."""
        service.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        trim_log(service.log)
        with service.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **lifeline.environment()},
                pass_fds=(lifeline.read_end,),
                start_new_session=True,
            )
        return cls(service, process)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it: not its own doing."""
        return self._process.returncode is not None and self._process.returncode < 0

    async def ended(self) -> str:
        """Wait for the end; clear what the process left in its group, and say how it ended."""
        code = await self._process.wait()
        if self.identity is not None:
            sweep_group(self.identity)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def stop(self) -> None:
        """Ask it to stop, wait for its deadline, then kill its whole group."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), self.service.stop_s_max)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def wait_serving(self) -> None:
        """Wait until `/healthz` answers 200; fail fast when the process ends before."""
        deadline = time.monotonic() + self.service.start_s_max
        while not await probe(self.service.url):
            if self._process.returncode is not None:
                raise self._failed(f"ended with exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"did not answer within {self.service.start_s_max:.0f} s")
            await asyncio.sleep(PROBE_EVERY_S)

    async def serves(self) -> bool:
        """Wait until it serves or will not; tell which."""
        try:
            await self.wait_serving()
        except ServiceFailedError:
            return False
        return True

    def _failed(self, how: str) -> ServiceFailedError:
        last = last_lines(self.service.log)
        what = f"{self.service.name} {how}"
        return ServiceFailedError(
            f"{what}: {last}" if last else what, hint=f"its log is {self.service.log}"
        )


async def probe(url: str) -> bool:
    """Tell whether `GET url/healthz` answers 200 in time."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                request = (
                    f"GET /healthz HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n"
                )
                writer.write(request.encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.split()[1:2] == [b"200"]


def trim_log(path: Path) -> None:
    """Keep a log below its bound: its content moves to `.1`, and it starts anew.

    The process keeps its descriptor, which appends, so it goes on at the new end.
    """
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        old = path.with_suffix(path.suffix + ".1")
        old.write_bytes(path.read_bytes()[-LOG_BYTES_MAX:])
        os.truncate(path, 0)


def last_lines(path: Path) -> str:
    """Return the last lines of a log as one line, for an error message."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return " / ".join(line.strip() for line in text.splitlines()[-LOG_TAIL_LINES:] if line.strip())
