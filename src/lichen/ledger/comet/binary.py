"""Where the `cometbft` program is, and how it is installed: `go install`, into the engines' folder.

v0.40 is the line that its maintainers keep (v1 was given up); v0.39 gets security fixes and speaks
the same protocol to applications and to other validators.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = "v0.40.0"
LINES = ("0.40.", "0.39.")
PACKAGE = f"github.com/cometbft/cometbft/cmd/cometbft@{VERSION}"
INSTALL_S_MAX = 900
VERSION_S_MAX = 20
ENVIRONMENT = "LICHEN_COMETBFT"


class CometMissingError(MachineError):
    """There is no CometBFT on this machine."""

    code = "cometbft-missing"


def find() -> Path | None:
    """Return the program: named by LICHEN_COMETBFT, installed by us, on PATH, or where Go puts it.

    Only a version of the lines that we speak with counts.
    """
    return next((path for path in _candidates() if _fits(path)), None)


def require() -> Path:
    """Return the program; raise CometMissingError, with what to do about it."""
    path = find()
    if path is None:
        raise CometMissingError(
            f"CometBFT {VERSION} is not on this machine",
            hint=f"install it: make cometbft, or go install {PACKAGE}",
        )
    return path


def install(progress: Callable[[str], None] = lambda _line: None) -> Path:
    """Return the program, building it with Go first where it is missing (some minutes)."""
    found = find()
    if found is not None:
        return found
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise CometMissingError(
            "building CometBFT takes Go 1.25 or newer, which is not on this machine",
            hint="install it from https://go.dev/dl/, then run make cometbft again",
        )
    progress(f"Building CometBFT {VERSION} with Go (some minutes, once) ...")
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as fresh:
        _build(go, fresh)
        os.replace(Path(fresh) / "cometbft", folder / "cometbft")
    return require()


def _build(go: str, folder: str) -> None:
    environment = {**os.environ, "GOBIN": folder}
    try:
        subprocess.run(
            [go, "install", PACKAGE],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_S_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise CometMissingError(
            f"Go did not build CometBFT within {INSTALL_S_MAX} s", hint="try again"
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no output"])[-1]
        raise CometMissingError(
            f"Go could not build CometBFT: {last}", hint="is the Go module proxy reachable?"
        ) from error


def _folder() -> Path:
    base = os.environ.get("LICHEN_ENGINES") or "~/.cache/lichen/engines"
    return Path(base).expanduser().absolute() / f"cometbft-{VERSION}"


def _candidates() -> Iterator[Path]:
    named = os.environ.get(ENVIRONMENT)
    if named:
        yield Path(named)
        return
    yield _folder() / "cometbft"
    on_path = shutil.which("cometbft")
    if on_path:
        yield Path(on_path)
    if os.environ.get("GOBIN"):
        yield Path(os.environ["GOBIN"]) / "cometbft"
    for root in (os.environ.get("GOPATH") or "~/go").split(os.pathsep):
        yield Path(root).expanduser() / "bin" / "cometbft"


def _fits(path: Path) -> bool:
    if not os.access(path, os.X_OK):
        return False
    try:
        answer = subprocess.run(
            [str(path), "version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_S_MAX,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip().removeprefix("v").startswith(LINES)
