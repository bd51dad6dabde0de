"""The engines, workerd, esbuild and QuickJS: pinned npm packages, installed once per lock file.

They go to `$LICHEN_ENGINES`, else `~/.cache/lichen/engines`, into a folder named by the hash of the
lock file. It appears by a rename once it is complete, so a folder that exists is whole; concurrent
installs wait for one another.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec

from lichen.runtime.errors import EngineMissingError
from lichen.runtime.npm import NpmError, node_path, npm_cli_path, run_npm

_MANIFESTS: Final = ("package.json", "package-lock.json")
_PLATFORMS: Final = {
    ("Linux", "x86_64"): ("linux-64", "linux-x64"),
    ("Linux", "aarch64"): ("linux-arm64", "linux-arm64"),
    ("Darwin", "x86_64"): ("darwin-64", "darwin-x64"),
    ("Darwin", "arm64"): ("darwin-arm64", "darwin-arm64"),
}

Progress = Callable[[str], None]


class Engines(msgspec.Struct, frozen=True):
    """Where the engines are: executables, a WebAssembly module, npm's main script (for node)."""

    workerd: str
    esbuild: str
    quickjs: str
    node: str
    npm_cli: str


class EnginesStatus(msgspec.Struct, frozen=True):
    """What `lichen doctor` says: whether the engines are there, where, and how to mend it."""

    installed: bool
    directory: str
    mend: str


def ensure(progress: Progress = lambda _line: None) -> Engines:
    """Return the engines, installing them first where they are missing (blocking, some seconds).

    `progress` is called with lines for people. Raises EngineMissingError, with what to do about it.
    """
    directory = _directory()
    engines = _locate(directory)
    if not _complete(engines):
        with _locked(directory.parent):
            if not _complete(engines):  # another process may have been faster
                progress("Installing workerd, esbuild and QuickJS (about 170 MB, once) ...")
                _install(directory)
    return engines


def status() -> EnginesStatus:
    """Say whether the engines are installed, without installing them."""
    directory = _directory()
    installed = _complete(_locate(directory))
    mend = "" if installed else "run `lichen up` once while connected to the network"
    return EnginesStatus(installed, str(directory), mend)


def js_profile() -> str:
    """Name the engine that `js` functions run on, with its exact version, for receipts."""
    pinned = msgspec.json.decode(_manifest("package.json"))["optionalDependencies"]
    name, _ = _PLATFORMS[platform.system(), platform.machine()]
    return f"workerd-{pinned[f'@cloudflare/workerd-{name}']}"


def _directory() -> Path:
    base = os.environ.get("LICHEN_ENGINES") or "~/.cache/lichen/engines"
    key = hashlib.sha256(b"\0".join(_manifest(name) for name in _MANIFESTS)).hexdigest()[:16]
    return Path(base).expanduser().absolute() / key


def _manifest(name: str) -> bytes:
    return files("lichen.runtime").joinpath("engines_npm", name).read_bytes()


def _platform_manifests() -> dict[str, bytes]:
    """Return the manifests cut down to this platform's packages, as plain dependencies.

    The shipped ones list every platform's as optional, and of those npm forgives any failure.
    """
    package, lock = (
        msgspec.json.decode(_manifest(name), type=dict[str, Any]) for name in _MANIFESTS
    )
    wanted = {f"@cloudflare/workerd-{_platform()[0]}", f"@esbuild/{_platform()[1]}"}
    package["dependencies"] |= {
        n: v for n, v in package.pop("optionalDependencies").items() if n in wanted
    }
    names = (f"node_modules/{n}" for n in package["dependencies"])
    locked = {name: lock["packages"][name] for name in names}
    for entry in locked.values():
        entry.pop("optional", None)
    lock["packages"] = {"": package, **locked}
    return dict(zip(_MANIFESTS, map(msgspec.json.encode, (package, lock)), strict=True))


def _locate(directory: Path) -> Engines:
    names = _platform()
    modules = directory / "node_modules"
    return Engines(
        workerd=str(modules / "@cloudflare" / f"workerd-{names[0]}" / "bin" / "workerd"),
        esbuild=str(modules / "@esbuild" / names[1] / "bin" / "esbuild"),
        quickjs=str(modules / "quickjs-wasi" / "quickjs.wasm"),
        node=node_path(),
        npm_cli=npm_cli_path(),
    )


def _platform() -> tuple[str, str]:
    """Return how workerd's and esbuild's packages name this platform."""
    system = (platform.system(), platform.machine())
    names = _PLATFORMS.get(system)
    if names is None:
        raise EngineMissingError(
            f"there is no workerd for {system[0]} on {system[1]}",
            hint="use Linux (x86_64, aarch64) or macOS",
        )
    return names


def _complete(engines: Engines) -> bool:
    programs = (engines.workerd, engines.esbuild)
    return all(os.access(p, os.X_OK) for p in programs) and os.access(engines.quickjs, os.R_OK)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    try:
        base.mkdir(parents=True, exist_ok=True)
        file = (base / "lock").open("a")
    except OSError as error:
        raise EngineMissingError(
            f"{base} cannot be written: {error.strerror}",
            hint="set LICHEN_ENGINES to a folder of yours",
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)  # damaged: a whole one would have been used
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="new-") as temporary:
        for name, content in _platform_manifests().items():
            (Path(temporary) / name).write_bytes(content)
        try:
            run_npm(("ci",), temporary)
        except NpmError as error:
            raise _install_error(error) from error
        if not _complete(_locate(Path(temporary))):
            raise EngineMissingError(
                "npm installed no engines for this platform",
                hint="its package registry may lack them: npm config get registry",
            )
        os.chmod(temporary, 0o755)  # noqa: S103  # nothing secret, and sandboxes look in
        os.rename(temporary, directory)
        os.mkdir(temporary)  # for TemporaryDirectory to remove


def _install_error(error: NpmError) -> EngineMissingError:
    if error.is_network:
        return EngineMissingError(
            "the engines are not installed, and the npm registry cannot be reached",
            hint="connect to the network, or set LICHEN_ENGINES to a folder that has them",
        )
    last = error.output.splitlines()[0] if error.output else "no output"
    return EngineMissingError(
        f"npm could not install the engines: {last}",
        hint="check `npm config list` and the free disk space",
    )
