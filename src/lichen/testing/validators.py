"""Validators on this machine, for tests and benchmarks: `lichen ledger run` with the real CometBFT.

with LocalValidators(tmp_path, genesis_of("alice")) as validators:
    validators[0].url, validators.genesis
    validators[3].kill()
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from lichen.cli.network.folder import write_config
from lichen.errors import MachineError
from lichen.ledger.comet import files
from lichen.ledger.engine import create
from lichen.ledger.types import Genesis, Validator

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S_MAX = 60.0
POLL_S = 0.05
PROBE_S = 5.0
POWER = 10
_LOG_TAIL = 2000


class Member:
    """One ledger's process with its CometBFT. `rpc` also opens CometBFT's own API."""

    def __init__(self, home: Path, *, rpc: bool = False, host: str = "127.0.0.1") -> None:
        self.home = home
        self.host = host
        self.keys = files.ensure_keys(home)
        self.port, self._p2p = free_port(), free_port()
        self.rpc = f"{host}:{free_port()}" if rpc else ""
        self.url = f"http://{host}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def peer(self) -> str:
        """How other validators name it."""
        return f"{self.keys.peer_id}@{self.host}:{self._p2p}"

    def configure(self, peers: list[str], **settings: object) -> None:
        """Write its config.toml; `settings` are those of `files.Settings`."""
        own: dict[str, Any] = {
            "p2p": f"{self.host}:{self._p2p}",
            "peers": [peer for peer in peers if peer != self.peer],
            "rpc": self.rpc,
            **settings,
        }
        config = {"listen": f"{self.host}:{self.port}", "engine": "cometbft", "cometbft": own}
        write_config(self.home, config)

    def start(self) -> None:
        """Start the process."""
        command = [sys.executable, "-m", "lichen", "ledger", "run", "--home", str(self.home)]
        self.process = self.spawn([*command, "--engine", "cometbft"])

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command with its output in the log; the place to put it somewhere else."""
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        """Stop it as an operator does, and wait."""
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S_MAX)

    def kill(self) -> None:
        """Kill -9; its CometBFT has to notice by itself, which is waited for."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        wait_until(lambda: not self.comets(), f"the end of CometBFT of {self.home.name}")

    def healthy(self) -> bool:
        """Tell whether it orders transactions; raise MachineError when it has ended."""
        if self.process is None or self.process.poll() is not None:
            last = (self.home / "log").read_text(errors="replace")[-_LOG_TAIL:]
            raise MachineError(f"{self.home.name} has ended: {last}")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PROBE_S)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def wait_healthy(self) -> None:
        """Wait until it orders transactions."""
        wait_until(self.healthy, f"{self.home.name} to order transactions")

    def comets(self) -> list[int]:
        """Return the process ids of CometBFT for this home."""
        wanted = os.fsencode(self.home / "comet")
        return [pid for pid, words in _commands() if wanted in words and words[1] == b"start"]


class LocalValidators:
    """Some members that agree; the first two have CometBFT's API open, for newcomers."""

    def __init__(
        self,
        root: Path,
        genesis: Genesis,
        *,
        count: int = 4,
        make: Callable[[Path, int], Member] | None = None,
        **settings: object,
    ) -> None:
        """Take a genesis without validators; its members, made by `make`, are added to it."""
        make = make or (lambda home, number: Member(home, rpc=number < 2))
        self.members = [make(root / f"validator-{number}", number) for number in range(count)]
        voters = tuple(Validator(member.keys.validator, POWER) for member in self.members)
        self.genesis: Genesis = msgspec.structs.replace(genesis, validators=voters)
        self._settings = settings

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                create(member.home, self.genesis)
                member.configure(self.peers, **self._settings)
                member.start()
            for member in self.members:
                member.wait_healthy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, index: int) -> Member:
        return self.members[index]

    @property
    def peers(self) -> list[str]:
        """How every member is named by others."""
        return [member.peer for member in self.members]

    def close(self) -> None:
        """Stop whoever runs."""
        for member in self.members:
            if member.process is not None:
                member.process.terminate()
        for member in self.members:
            member.stop()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds; raise MachineError when it does not in time."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise MachineError(f"waited {WAIT_S_MAX:.0f} s for {what}")
        time.sleep(POLL_S)


def _commands() -> list[tuple[int, list[bytes]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append((int(path.parent.name), path.read_bytes().split(b"\0")))
        except OSError:  # it has ended meanwhile
            continue
    return found
