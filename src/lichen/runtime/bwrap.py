"""Tier `process`: bubblewrap, its own namespaces, a seccomp filter and no network.

The program sees the system's libraries, its engine and its own folder, all read-only, and nothing
else of the machine. It has no capabilities, cannot gain any, cannot create namespaces or processes,
and its network namespace holds only its own loopback; it is reached through a listening socket that
it inherits. When the node runs as root, each job has a uid of its own that owns nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import ClassVar, Final

from lichen.runtime import seccomp
from lichen.runtime.errors import SandboxMissingError
from lichen.runtime.sandbox import Command, Job, launch_argv

INSTALL_HINT: Final = "apt-get install bubblewrap (or the same package of your distribution)"
ENGINE_DIR: Final = "/engine"
JOB_DIR: Final = "/job"
CMDLINE_BYTES_MAX: Final = 16 * 1024
LIBRARY_DIRS: Final = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")

_STAGE: Final = "/tmp"  # noqa: S108  # a mount point in a private namespace, not a file
_UID_BASE: Final = 0x70000000
_UIDS_PER_NODE: Final = 1024
_ISOLATE: Final = [
    "--unshare-user",
    "--unshare-ipc",
    "--unshare-pid",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--unshare-net",
    "--disable-userns",
    "--assert-userns-disabled",
    "--die-with-parent",
    "--new-session",
    "--as-pid-1",
    "--clearenv",
    *("--cap-drop", "ALL"),
    *("--uid", "65534"),
    *("--gid", "65534"),
]


def find_bwrap() -> str:
    """Return the path of bubblewrap; raise SandboxMissingError when it is not installed."""
    if sys.platform != "linux":
        raise SandboxMissingError(
            f"there is no sandbox on {sys.platform}", hint="run the node on Linux, or in a Linux VM"
        )
    path = shutil.which("bwrap")
    if path is None:
        raise SandboxMissingError("bubblewrap is not installed", hint=INSTALL_HINT)
    return path


class Bubblewrap:
    """Builds bubblewrap command lines."""

    tier: ClassVar[str] = "process"

    def __init__(self, bwrap: str) -> None:
        self._bwrap = bwrap

    def seen(self, directory: str) -> str:  # noqa: ARG002  # the same for every job
        """Return the path inside."""
        return JOB_DIR

    def command(self, job: Job) -> Command:
        """Build the command. Raises SandboxMissingError on an architecture without a filter."""
        filter_fd = _memory_file(seccomp.program(allow_fork=job.allow_fork))
        info, info_write = os.pipe()
        options = [
            *_ISOLATE,
            "--hostname",
            job.label,
            "--seccomp",
            str(filter_fd),
            "--info-fd",
            str(info_write),
        ]
        engine_dir, program = os.path.split(job.program)
        real = {"engine": engine_dir, "job": job.directory}
        real |= {f"extra{i}": outside for i, (outside, _) in enumerate(job.extra_binds)}
        if os.geteuid() == 0:
            uid, stage = _job_uid(job.number), _STAGE
            folders = {name: f"{_STAGE}/{name}" for name in real}
        else:
            uid, stage, folders = None, None, real
        inside = [f"{ENGINE_DIR}/{program}", *job.arguments]
        argv = [self._bwrap, *options, *_file_system(folders, job), "--", *inside]
        ours = (filter_fd, info_write)
        return Command(
            argv=launch_argv(job, argv, uid=uid, stage=stage, mounts=real),
            descriptors=(*job.descriptors, *ours),
            close_after=ours,
            info=info,
        )


def kill_leftovers(label: str) -> None:
    """Kill sandboxes with this label: a node that was killed while it made one may leave it.

    Only bubblewrap's half-made inner process survives that, since it is tied to nothing yet.
    """
    mark = f"\0--hostname\0{label}\0".encode()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # gone, or not ours
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found = mark in file.read(CMDLINE_BYTES_MAX)
            if found:
                os.kill(int(name), signal.SIGKILL)


def _file_system(folders: dict[str, str], job: Job) -> list[str]:
    options: list[str] = []
    for path in LIBRARY_DIRS:
        options += ["--ro-bind-try", path, path]
    options += ["--ro-bind", folders["engine"], ENGINE_DIR, "--ro-bind", folders["job"], JOB_DIR]
    for index, (_, inside) in enumerate(job.extra_binds):
        options += ["--ro-bind", folders[f"extra{index}"], inside]
    return [*options, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/", "--chdir", JOB_DIR]


def _job_uid(number: int) -> int:
    """Return a uid that no account has, and hardly ever another living job here."""
    return _UID_BASE + (os.getpid() & 0xFFFF) * _UIDS_PER_NODE + number % _UIDS_PER_NODE


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
