"""What this machine can confine, found out by doing it.

A probe starts a real sandbox and looks around in it. It runs in a process that is killed after a
fixed time, since a half-supported feature may hang instead of failing. The answer is kept until
the kernel or the program changes.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from typing import Final

import msgspec

from lichen.runtime.bwrap import Bubblewrap, find_bwrap
from lichen.runtime.cgroups import Cgroups, find_cgroups
from lichen.runtime.errors import SandboxMissingError
from lichen.runtime.sandbox import Job, NoSandbox, Sandbox

PROBE_S_MAX: Final = 5.0

_STATUS: Final = "/proc/self/status"
_MUST_SAY: Final = {
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
}
_USERNS_MEND: Final = (
    "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, "
    "or kernel.apparmor_restrict_unprivileged_userns=0"
)


class TierStatus(msgspec.Struct, frozen=True):
    """One sandbox tier on this machine: whether it works, why (not), and how to mend it."""

    name: str
    available: bool
    reason: str
    mend: str


class Capabilities(msgspec.Struct, frozen=True):
    """What a pool needs to know: the sandbox to use, the kernel limits, and the report on both."""

    sandbox: Sandbox
    cgroups: Cgroups | None
    tiers: tuple[TierStatus, ...]


def tiers() -> list[TierStatus]:
    """Say of every tier that exists whether it works here (blocking, at most PROBE_S_MAX)."""
    return [_process_tier()]


def detect() -> Capabilities:
    """Choose the best sandbox that works here (blocking, at most PROBE_S_MAX)."""
    found = tuple(tiers())
    sandbox: Sandbox = Bubblewrap(find_bwrap()) if found[0].available else NoSandbox()
    return Capabilities(sandbox, find_cgroups(), found)


def _process_tier() -> TierStatus:
    try:
        path = find_bwrap()
        stat = os.stat(path)
        _probe(path, platform.release(), stat.st_mtime_ns, stat.st_size)
    except SandboxMissingError as error:
        return TierStatus("process", available=False, reason=error.what, mend=error.hint)
    cgroups = find_cgroups()
    kept = ", ".join(cgroups.controllers) if cgroups else ""
    reason = f"bubblewrap and seccomp work; limits by cgroup: {kept or 'none'}, and by watchdog"
    mend = "" if kept else "run the node in a delegated cgroup (systemd-run --user --scope)"
    return TierStatus("process", available=True, reason=reason, mend=mend)


@lru_cache(maxsize=4)
def _probe(bwrap: str, _kernel: str, _mtime_ns: int, _size: int) -> None:
    """Raise SandboxMissingError unless a sandboxed program finds itself confined.

    The parameters beside the path are what the answer depends on, so a change asks again.
    """
    cat = shutil.which("cat")
    if cat is None:
        raise SandboxMissingError("there is no `cat` to probe with", hint="install coreutils")
    with tempfile.TemporaryDirectory(prefix="lichen-probe-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103  # empty
        job = Job(
            program=os.path.realpath(cat), arguments=(_STATUS,), directory=directory, number=0
        )
        output, code = _run(Bubblewrap(bwrap), job)
    if code != 0:
        last = output.strip().splitlines()[-1:] or ["it ended without a word"]
        raise SandboxMissingError(f"bubblewrap does not work here: {last[0]}", hint=_USERNS_MEND)
    for name, wanted in _MUST_SAY.items():
        if not re.search(rf"^{name}:\s*{wanted}$", output, re.MULTILINE):
            raise SandboxMissingError(
                f"a sandboxed program is not confined: {name} is not {wanted}",
                hint="update bubblewrap and the kernel",
            )


def _run(sandbox: Sandbox, job: Job) -> tuple[str, int]:
    command = sandbox.command(job)
    process = subprocess.Popen(
        command.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=command.descriptors,
        env={},
        start_new_session=True,
    )
    for descriptor in command.close_after:
        os.close(descriptor)
    try:
        output, _ = process.communicate(timeout=PROBE_S_MAX)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise SandboxMissingError(
            f"bubblewrap hung for {PROBE_S_MAX:.0f} s", hint="update the kernel, or bubblewrap"
        ) from None
    finally:
        if command.info is not None:
            os.close(command.info)
    return output.decode("utf-8", "replace"), process.returncode
