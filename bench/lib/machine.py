"""The machine under test: the tools it needs, ports, processes and the CPU time they took."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

START_S_MAX = 15.0
STOP_S_MAX = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class MissingToolError(SystemExit):
    """A contender or the load generator is not installed."""


def find_tool(name: str) -> str:
    """Return the path of nginx or wrk; nginx may lie outside of a user's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MissingToolError(
            f"{name} is missing, and there is nothing to compare with.\n"
            "Install it:  sudo apt-get install nginx-light wrk"
        )
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    until = time.monotonic() + START_S_MAX
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > until:
            raise SystemExit(f"nothing answers on port {port}")
        time.sleep(0.02)


def own_cpu_s(pid: int) -> float:
    """User and system time of one process (all its threads), its children apart."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def children(pid: int) -> list[int]:
    """All processes below `pid`."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def tree_cpu_s(pid: int) -> float:
    """User and system time of a process and everything below it."""
    total = own_cpu_s(pid)
    for child in children(pid):
        with contextlib.suppress(OSError):  # ended meanwhile
            total += own_cpu_s(child)
    return total


def pin(pid: int, cpu: int) -> None:
    """Keep a process and all below it, with all their threads, on one CPU."""
    for process in (pid, *children(pid)):
        for task in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread ended meanwhile
                os.sched_setaffinity(int(task.name), {cpu})


class Processes:
    """Processes of one benchmark, started in one folder and stopped at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "log"
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> int:
        """Start a program, with these variables added to the environment; return its pid."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
        self._running.append(process)
        return process.pid

    def wait_for_file(self, path: Path) -> None:
        until = time.monotonic() + START_S_MAX
        while not path.exists():
            if time.monotonic() > until:
                raise SystemExit(f"{path.name} did not appear: {self._log.read_text()}")
            time.sleep(0.02)


def describe() -> str:
    """Name the machine and the versions that a figure depends on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, nginx {_nginx_version()}"
    )


def _nginx_version() -> str:
    done = subprocess.run([find_tool("nginx"), "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().rpartition("/")[2]
