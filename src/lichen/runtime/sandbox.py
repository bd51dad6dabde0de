"""Ways to start an engine: the seam between pools, which want a process, and tiers, which confine.

A `Job` says what to run; a `Sandbox` turns it into a command. `NoSandbox` confines nothing and is
only for code whose owner is the operator of the machine; `lichen.runtime.bwrap` is the other one.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.resources import as_file, files
from typing import Any, ClassVar, Final, Protocol

import msgspec

TENANT_NICE: Final = 5
DESCRIPTORS_MAX: Final = 1024


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start.

    `program` is the path of an executable; it sees `directory`, read-only, at
    `Sandbox.seen(directory)`. `descriptors` are passed on under their numbers. `cgroup_procs` are
    the `cgroup.procs` files to join. `pids_max` bounds threads and processes. `number` is unique
    among the living jobs of this process. `label` names the pool in the command line, so that a
    later start finds what a killed one left (it is the sandbox's host name). `extra_binds` are
    folders, (path outside, path inside), read-only.
    """

    program: str
    arguments: tuple[str, ...]
    directory: str
    number: int
    label: str = "lichen"
    descriptors: tuple[int, ...] = ()
    cgroup_procs: tuple[str, ...] = ()
    pids_max: int = 64
    allow_fork: bool = False
    extra_binds: tuple[tuple[str, str], ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command line ready to be spawned.

    `close_after` are descriptors to close once it is spawned. `info` is a pipe on which the sandbox
    reports the pid of the program inside; without it the spawned process is the program.
    """

    argv: list[str]
    descriptors: tuple[int, ...]
    close_after: tuple[int, ...] = ()
    info: int | None = None


class Sandbox(Protocol):
    """Turns a job into a command that confines it."""

    tier: ClassVar[str]

    def seen(self, directory: str) -> str:
        """Return the path at which the job sees `Job.directory`."""
        ...

    def command(self, job: Job) -> Command:
        """Build the command; spawn it from a thread that lives as long as the job may."""
        ...


class NoSandbox:
    """Plain children of this process. They die with it and are watched, and that is all."""

    tier: ClassVar[str] = "none"

    def seen(self, directory: str) -> str:
        """Return the directory itself."""
        return directory

    def command(self, job: Job) -> Command:
        """Build the command."""
        argv = [job.program, *job.arguments]
        return Command(argv=launch_argv(job, argv), descriptors=job.descriptors)


def launch_argv(
    job: Job,
    argv: list[str],
    *,
    uid: int | None = None,
    stage: str | None = None,
    mounts: dict[str, str] | None = None,
) -> list[str]:
    """Put `launch.py` in front of `argv`."""
    limits = {"CORE": 0, "NOFILE": DESCRIPTORS_MAX}
    if uid is not None:  # the count is per uid, and only this one is the job's own
        limits["NPROC"] = job.pids_max
    plan: dict[str, Any] = {
        "argv": argv,
        "cgroups": job.cgroup_procs,
        "limits": limits,
        "mounts": mounts or {},
        "nice": TENANT_NICE,
        "parent": os.getpid(),
        "stage": stage,
        "uid": uid,
    }
    return [sys.executable, "-I", "-S", _LAUNCHER, json.dumps(plan)]


with as_file(files("lichen.runtime").joinpath("launch.py")) as _path:
    _LAUNCHER = str(_path)
