"""Limits that the kernel keeps: memory, number of tasks and CPU of each job, by cgroup v1 or v2.

Both versions occur in the field, and often this process may write to neither, or only to some
controllers. So what is usable is found out by trying, and whatever is missing is left to the
watchdog. Formats: the kernel's admin-guide/cgroup-v1 and admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec

Controller = Literal["memory", "pids", "cpu"]
Priority = Literal["normal", "busy"]

CONTROLLERS: Final[tuple[Controller, ...]] = ("memory", "pids", "cpu")
CPU_PERIOD_US: Final = 20_000  # short: a burst over several cores ends soon
CPU_QUOTA_US: Final = 20_000  # one core
CPU_SHARES: Final = {"normal": 1024, "busy": 256}  # version 1; a process has 1024
CPU_WEIGHT: Final = {"normal": 100, "busy": 25}  # the same in version 2
JOIN_S_MAX: Final = 5.0
PREFIX: Final = "lichen-"


class Mount(msgspec.Struct, frozen=True):
    """One mounted hierarchy: the folder of this process in it, and its controllers if version 1."""

    version: int
    directory: str
    controllers: tuple[str, ...] = ()


class Cgroup:
    """The limits of one job: one folder in version 2, one per controller in version 1."""

    def __init__(self, version: int, folders: dict[Controller, Path]) -> None:
        self._version = version
        self._folders = folders
        for folder in dict.fromkeys(folders.values()):
            folder.mkdir(exist_ok=True)

    @property
    def procs(self) -> tuple[str, ...]:
        """The files that a process writes itself into."""
        return tuple(str(f / "cgroup.procs") for f in dict.fromkeys(self._folders.values()))

    def limit_memory(self, size_bytes: int) -> None:
        """Let the kernel kill the job above `size_bytes`, if it can."""
        folder = self._folders.get("memory")
        if folder is None:
            return
        if self._version == 1:
            _write(folder / "memory.limit_in_bytes", size_bytes)
            _try_write(folder / "memory.memsw.limit_in_bytes", size_bytes)
        else:
            _write(folder / "memory.max", size_bytes)
            _try_write(folder / "memory.swap.max", 0)
            _try_write(folder / "memory.oom.group", 1)

    def limit_pids(self, count: int) -> None:
        """Bound the number of threads and processes, if the kernel lets us."""
        if folder := self._folders.get("pids"):
            _write(folder / "pids.max", count)

    def limit_cpu(self) -> None:
        """Give at most one core, if the kernel lets us."""
        folder = self._folders.get("cpu")
        if folder is None:
            return
        if self._version == 1:
            _try_write(folder / "cpu.cfs_period_us", CPU_PERIOD_US)
            _try_write(folder / "cpu.cfs_quota_us", CPU_QUOTA_US)
        else:
            _try_write(folder / "cpu.max", f"{CPU_QUOTA_US} {CPU_PERIOD_US}")

    def prioritise(self, level: Priority) -> None:
        """Weigh as much as any one process, or less (felt only where CPU is scarce)."""
        folder = self._folders.get("cpu")
        if folder is None:
            return
        if self._version == 1:
            _try_write(folder / "cpu.shares", CPU_SHARES[level])
        else:
            _try_write(folder / "cpu.weight", CPU_WEIGHT[level])

    def oom_killed(self) -> bool:
        """Return whether the kernel killed something here for its memory."""
        folder = self._folders.get("memory")
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        return folder is not None and _count(folder / name, "oom_kill") > 0

    def pids_refused(self) -> bool:
        """Return whether a thread or process was refused here."""
        folder = self._folders.get("pids")
        return folder is not None and _count(folder / "pids.events", "max") > 0

    def remove(self) -> bool:
        """Remove the folders; return False while something still lives in them."""
        done = True
        for folder in dict.fromkeys(self._folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                done = False
        return done


class Cgroups:
    """Makes cgroups for jobs below this process's own."""

    def __init__(self, version: int, bases: dict[Controller, Path]) -> None:
        self._version = version
        self._bases = bases

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """The controllers that can be used."""
        return tuple(self._bases)

    def create(self, number: int) -> Cgroup:
        """Make the cgroup of job `number` of this process."""
        name = f"{PREFIX}{os.getpid()}-{number}"
        return Cgroup(self._version, {c: base / name for c, base in self._bases.items()})

    def sweep(self) -> None:
        """Remove what processes that are dead by now have left."""
        for base in set(self._bases.values()):
            for folder in base.glob(f"{PREFIX}*"):
                match = re.fullmatch(rf"{PREFIX}(\d+)-.*", folder.name)
                if match and not os.path.exists(f"/proc/{match[1]}"):
                    with suppress(OSError):  # something lives in it: the next start sweeps again
                        folder.rmdir()


@lru_cache(maxsize=4)
def find_cgroups(
    mountinfo: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup"
) -> Cgroups | None:
    """Return the cgroups that this process may make, or None when it may make none (asked once)."""
    try:
        mounts = parse_mounts(Path(mountinfo).read_text("utf-8"), Path(own).read_text("utf-8"))
    except OSError:
        return None
    bases: dict[Controller, Path] = {}
    for mount in (m for m in mounts if m.version == 1):
        for controller in CONTROLLERS:
            if controller in mount.controllers and _usable(Path(mount.directory), controller, 1):
                bases[controller] = Path(mount.directory)
    if bases:
        return Cgroups(1, bases)
    for mount in (m for m in mounts if m.version == 2):
        directory = Path(mount.directory)
        for base in (directory, directory.parent):
            _try_write(base / "cgroup.subtree_control", "+memory +pids +cpu")
            found: dict[Controller, Path] = {c: base for c in CONTROLLERS if _usable(base, c, 2)}
            if "memory" in found:
                return Cgroups(2, found)
    return None


def parse_mounts(mountinfo: str, own: str) -> list[Mount]:
    """Read proc(5) `mountinfo` and `cgroup` into the folders that this process is in."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        number, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(["" if number == "0" else n for n in names.split(",")], path))
    mounts: list[Mount] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = [*right.split(), "", "", ""][:3]
        if kind == "cgroup2" and "" in paths:
            mounts.append(Mount(2, _within(point, root, paths[""])))
        elif kind == "cgroup":
            names_here = tuple(n for n in options.split(",") if n in paths)
            if names_here:
                directory = _within(point, root, paths[names_here[0]])
                mounts.append(Mount(1, directory, names_here))
    return mounts


def _within(point: str, root: str, path: str) -> str:
    """Return where `path` is below a mount `point` that shows the hierarchy from `root` on."""
    relative = path[len(root) :] if root != "/" and path.startswith(root) else path
    return os.path.normpath(f"{point}/{relative.lstrip('/')}")


_PROBE_FILES: Final[dict[int, dict[Controller, str]]] = {
    1: {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.shares"},
    2: {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.weight"},
}


def _usable(base: Path, controller: Controller, version: int) -> bool:
    """Try whether a folder can be made here, holds the controller's file, and can be joined."""
    probe = base / f"{PREFIX}{os.getpid()}-probe"
    try:
        probe.mkdir(exist_ok=True)
    except OSError:
        return False
    try:
        limit = probe / _PROBE_FILES[version][controller]
        return os.access(limit, os.W_OK) and _joinable(probe)
    finally:
        _remove_when_empty(probe)


def _joinable(folder: Path) -> bool:
    """Try with a process of its own, since a parent's rights decide too (version 2)."""
    join = f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0')"
    with suppress(OSError, subprocess.TimeoutExpired):
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", join],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=JOIN_S_MAX,
            check=False,
        )
        return tried.returncode == 0
    return False


def _remove_when_empty(folder: Path) -> None:
    for _ in range(50):  # a dead process leaves its cgroup a moment later
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            time.sleep(0.01)
    return None  # swept at a later start


def _write(path: Path, value: object) -> None:
    path.write_text(str(value), encoding="ascii")


def _try_write(path: Path, value: object) -> None:
    with suppress(OSError):  # an optional limit that this kernel, or this container, lacks
        _write(path, value)


def _count(path: Path, key: str) -> int:
    try:
        match = re.search(rf"^{key} (\d+)$", path.read_text("ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0
