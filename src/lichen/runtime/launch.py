"""The last steps before an engine starts; run as a script by the process that starts it.

`python -I -S launch.py '{...}'` joins its cgroups, lowers its priority and limits, drops root,
ties its life to its parent's and becomes the program. It is a program of its own because these
steps have to happen between fork and exec, where a threaded Python process may run no code.
Only the standard library is imported, and little of it: this is on the way of every new process.
"""

import ctypes
import json
import os
import resource
import signal
import sys

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, options)]
    status = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(status, f"mount {target}")


def _stage(directory: str, mounts: dict[str, str]) -> None:
    """Show an unprivileged uid folders that only root can reach, in a private namespace."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    # Opened before `directory` is covered: they may lie below it.
    opened = {name: os.open(path, os.O_PATH) for name, path in mounts.items()}
    _mount("none", directory, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=64k")
    for name, descriptor in opened.items():
        target = os.path.join(directory, name)
        os.mkdir(target)
        _mount(f"/proc/self/fd/{descriptor}", target, None, _MS_BIND, None)
        os.close(descriptor)


def _drop_root(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _die_with(parent: int) -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def main() -> None:
    """Do what the JSON argument says, then become its `argv`."""
    plan = json.loads(sys.argv[1])
    for procs in plan["cgroups"]:
        with open(procs, "w", encoding="ascii") as file:
            file.write("0")  # this process
    os.nice(plan["nice"])
    if plan["stage"] is not None:
        _stage(plan["stage"], plan["mounts"])
    for name, value in plan["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if plan["uid"] is not None:
        _drop_root(plan["uid"])
    _die_with(plan["parent"])
    os.execv(plan["argv"][0], plan["argv"])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
