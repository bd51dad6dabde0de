"""A whole network on this machine, for tests and benchmarks: the real processes, by `lichen up`.

with LocalNetwork(tmp_path) as network:
    network.deploy("hello", "export default { fetch: () => new Response('hi') }")
    network.get("hello", "/")
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from lichen.cli.network import state
from lichen.cli.network.folder import NetworkFolder
from lichen.cli.network.ports import choose_free
from lichen.errors import MachineError
from lichen.identity.vault import Vault
from lichen.sdk.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from lichen.identity import PrivateKey

COMMAND_S_MAX = 180
WAIT_S_MAX = 60.0
POLL_S = 0.05


class Answer(msgspec.Struct, frozen=True):
    """One HTTP response; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def run(self) -> str:
        """The run's id, or an empty string."""
        return self.headers.get("lichen-run", "")

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)


class CommandError(MachineError):
    """A `lichen` command failed; the message holds what it said."""


class LocalNetwork:
    """A network folder below `root` and the command line as seen from there."""

    def __init__(self, root: Path, *, nodes: int = 3, port: int = 0) -> None:
        self.root = root
        self.folder = NetworkFolder(root / ".lichen")
        self.nodes = nodes
        self.port = port or choose_free(1)[0]

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # --- the command line ----------------------------------------------------------------------

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one `lichen` command in the network's folder; whatever its exit code."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LICHEN_P")}
        environment["XDG_CONFIG_HOME"] = str(self.root / "config")
        return subprocess.run(
            [sys.executable, "-m", "lichen", *arguments],
            cwd=self.root,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def lichen(self, *arguments: str) -> Any:
        """Run a command with `--json` and return its data; raise CommandError when it fails."""
        done = self.command(*arguments, "--json")
        if done.returncode != 0:
            raise CommandError(
                f"lichen {' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
            )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def up(self) -> None:
        """Start the network, or resume it with all its data."""
        new = [] if self.folder.root.exists() else ["--nodes", str(self.nodes)]
        done = self.command("up", "--detach", "--port", str(self.port), *new)
        if done.returncode != 0:
            raise CommandError(f"lichen up: {done.stdout}{done.stderr}{self.logs()}")

    def down(self) -> None:
        """Stop it and wait until every process is gone."""
        done = self.command("down")
        if done.returncode != 0:
            raise CommandError(f"lichen down: {done.stdout}{done.stderr}")

    def logs(self) -> str:
        """Return the end of every process's log."""
        files = sorted(self.folder.root.glob("logs/*"))
        return "".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in files)

    # --- apps ----------------------------------------------------------------------------------

    def project(self, name: str, source: str, **settings: object) -> Path:
        """Write a project of one TypeScript function that answers on every path."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        fields = {"name": "api", "main": "index.ts", "routes": ["/*"], **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        manifest = ["manifest_version = 1", f'name = "{name}"', "[[functions]]", *lines]
        (folder / "lichen.toml").write_text("\n".join(manifest) + "\n")
        (folder / "index.ts").write_text(source)
        return folder

    def deploy(self, name: str, source: str, **settings: object) -> Any:
        """Deploy a project of one function and return what `lichen deploy --json` says."""
        self.project(name, source, **settings)
        return self.lichen("deploy", name)

    # --- HTTP ----------------------------------------------------------------------------------

    def host(self, app: str) -> str:
        """Return the Host header of an app, with the port."""
        return f"{app}.app.localhost:{self.port}"

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """Open a connection to the gateway."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def request(
        self,
        app: str,
        target: str = "/",
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Send one request to an app, on a connection of its own unless one is given."""
        own = connection or self.connect(timeout_s)
        try:
            own.request(method, target, body, {"host": self.host(app), **(headers or {})})
            response = own.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            if connection is None:
                own.close()

    def get(self, app: str, target: str = "/") -> Answer:
        """Send one GET request to an app."""
        return self.request(app, target)

    def api(self, path: str) -> Any:
        """Return what the gateway's API says at `/api/v1{path}`."""
        connection = self.connect()
        try:
            connection.request("GET", f"/api/v1{path}")
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise CommandError(f"GET {path} was answered {response.status}: {body[:500]!r}")
        return json.loads(body)

    def key(self, name: str) -> PrivateKey:
        """Unlock one of the network's keys: developer, gateway, node-1 ..."""
        return Vault(self.folder.keys).unlock(name, self.folder.password.read_text().strip())

    def client(self, key: PrivateKey | None = None) -> Client:
        """Return a client of the gateway's API; it signs with `key`."""
        return Client(f"http://127.0.0.1:{self.port}", key)

    # --- processes -----------------------------------------------------------------------------

    def left_over(self) -> list[str]:
        """Return the command lines of all processes that were started in the network's folder."""
        marks = [os.fsencode(str(self.root))]
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdecimal() or int(process.name) == os.getpid():
                continue
            try:
                command = (process / "cmdline").read_bytes()
                told = command + (process / "environ").read_bytes()
            except OSError:  # it ended meanwhile, or is not ours
                continue
            if command and any(mark in told for mark in marks):
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def pids(self) -> dict[str, int]:
        """Return the pid of every process, by name: supervisor, ledger, node-1 ..., gateway."""
        running = state.read(self.folder.state)
        if running is None:
            raise MachineError("the network does not run", hint="call up() first")
        known = {process.name: process.pid for process in running.processes}
        return {**known, "supervisor": running.supervisor.pid}

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process, by its name; return its pid."""
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    def url(self, name: str) -> str:
        """Return where a process serves."""
        return self.folder.url(name)

    def wait(self, what: str, holds: Callable[[], bool], timeout_s: float = WAIT_S_MAX) -> None:
        """Wait until something holds; raise MachineError with the logs when it never does."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                raise MachineError(f"{what}: not within {timeout_s} s\n{self.logs()}")
            time.sleep(POLL_S)
