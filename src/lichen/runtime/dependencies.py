"""A project's npm packages, brought up to date before it is bundled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.runtime.errors import DependenciesError
from lichen.runtime.npm import NpmError, run_npm

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST_BYTES_MAX: Final = 2**20


class _Manifest(msgspec.Struct):
    dependencies: dict[str, str] = {}
    devDependencies: dict[str, str] = {}  # noqa: N815  # npm's name
    optionalDependencies: dict[str, str] = {}  # noqa: N815  # npm's name


def install_dependencies(
    project_dir: str | os.PathLike[str], progress: Callable[[str], None] = lambda _line: None
) -> bool:
    """Install what `package.json` asks for where it is not there yet (blocking).

    With a lock file exactly its versions (`npm ci`), otherwise the newest that fit. No package's
    scripts run. Returns whether anything was installed. Raises DependenciesError.
    """
    project = Path(project_dir)
    if not _needed(project):
        return False
    progress("Installing npm packages ...")
    locked = (project / "package-lock.json").exists()
    try:
        run_npm(("ci",) if locked else ("install",), str(project))
    except NpmError as error:
        raise _error(error) from error
    (project / "node_modules").mkdir(exist_ok=True)
    os.utime(project / "node_modules")
    return True


def _needed(project: Path) -> bool:
    manifest, modules = project / "package.json", project / "node_modules"
    if not manifest.exists() or not _has_dependencies(manifest):
        return False
    if not modules.exists():
        return True
    installed_ns = modules.stat().st_mtime_ns
    sources = (manifest, project / "package-lock.json")
    return any(s.exists() and s.stat().st_mtime_ns > installed_ns for s in sources)


def _has_dependencies(manifest: Path) -> bool:
    content = manifest.read_bytes()
    if len(content) > MANIFEST_BYTES_MAX:
        raise DependenciesError("package.json is too large", hint="at most 1 MiB is read")
    try:
        found = msgspec.json.decode(content, type=_Manifest)
    except msgspec.DecodeError as error:
        raise DependenciesError(
            f"package.json cannot be read: {error}", hint="correct it, then run this again"
        ) from error
    return bool(found.dependencies or found.devDependencies or found.optionalDependencies)


def _error(error: NpmError) -> DependenciesError:
    if error.is_network:
        return DependenciesError(
            "the npm registry cannot be reached", hint="connect to the network and try again"
        )
    lines = [line for line in error.output.splitlines() if "A complete log" not in line]
    return DependenciesError(
        "npm: " + " ".join(line.removeprefix("npm error").strip() for line in lines)[:500],
        hint="correct package.json; `npm install` in the project shows more",
    )
