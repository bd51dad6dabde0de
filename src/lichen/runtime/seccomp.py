"""A seccomp filter for sandboxed engines, assembled here as classic BPF.

Everything is allowed but a list of system calls that an engine has no business with and that
kernel exploits like to begin with. New processes are refused (threads are not), so a tenant that
breaks out of V8 still cannot fork. Written out by hand because the program is short and libseccomp
would be one more thing for a node owner to install.

Formats: `struct sock_filter` and `struct seccomp_data` of <linux/filter.h> and <linux/seccomp.h>;
numbers from the kernel's syscall tables (x86_64 syscall_64.tbl, and asm-generic/unistd.h which
aarch64 uses).
"""

from __future__ import annotations

import platform
import struct
from typing import Final

import msgspec

from lichen.runtime.errors import SandboxMissingError

ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
ERRNO: Final = 0x00050000
EPERM: Final = 1
ENOSYS: Final = 38
EAFNOSUPPORT: Final = 97
CLONE_THREAD: Final = 0x00010000
AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10

_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARG0 = 0, 4, 16
_X32_BIT: Final = 0x40000000

# name: (x86_64, aarch64); None where the architecture lacks the call
DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "memfd_secret": (447, 447),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "set_mempolicy": (238, 237),
    "nfsservctl": (180, 42),
    "vmsplice": (278, 75),
    "fork": (57, None),
    "vfork": (58, None),
}


class Architecture(msgspec.Struct, frozen=True):
    """What a filter has to know of one architecture."""

    audit_arch: int
    column: int
    clone: int
    clone3: int
    socket: int
    has_x32: bool


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, 0, 56, 435, 41, has_x32=True),
    "aarch64": Architecture(0xC00000B7, 1, 220, 435, 198, has_x32=False),
}


class Instruction(msgspec.Struct, frozen=True):
    """One `struct sock_filter`: on a jump, how many instructions to skip if true and if not."""

    operation: int
    if_true: int
    if_false: int
    value: int

    def pack(self) -> bytes:
        """Return the kernel's form."""
        return struct.pack("=HBBI", self.operation, self.if_true, self.if_false, self.value)


def program(machine: str | None = None, *, allow_fork: bool = False) -> bytes:
    """Return the filter for `machine` (default: this one) as bubblewrap's `--seccomp` reads it.

    Raises SandboxMissingError for an architecture without a table.
    """
    return b"".join(i.pack() for i in instructions(machine, allow_fork=allow_fork))


def instructions(machine: str | None = None, *, allow_fork: bool = False) -> list[Instruction]:
    """Return the filter's instructions."""
    name = machine or platform.machine()
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise SandboxMissingError(
            f"no seccomp filter for the architecture {name}",
            hint="run the node on x86_64 or aarch64 Linux",
        )
    return [
        _load(_OFFSET_ARCH),
        Instruction(_JUMP_EQUAL, 1, 0, architecture.audit_arch),
        _return(KILL_PROCESS),
        _load(_OFFSET_NUMBER),
        *_refuse_x32(architecture),
        *_refuse_calls(architecture, allow_fork=allow_fork),
        *_refuse_sockets(architecture),
        *([] if allow_fork else _refuse_processes(architecture)),
        _return(ALLOW),
    ]


def _refuse_x32(architecture: Architecture) -> list[Instruction]:
    if not architecture.has_x32:
        return []
    return [Instruction(_JUMP_ANY_BIT, 0, 1, _X32_BIT), _return(ERRNO | ENOSYS)]


def _refuse_calls(architecture: Architecture, *, allow_fork: bool) -> list[Instruction]:
    refused: list[Instruction] = []
    for name, numbers in DENIED.items():
        number = numbers[architecture.column]
        if number is None or (allow_fork and name in {"fork", "vfork"}):
            continue
        refused += [Instruction(_JUMP_EQUAL, 0, 1, number), _return(ERRNO | EPERM)]
    return refused


def _refuse_sockets(architecture: Architecture) -> list[Instruction]:
    """Allow unix, IPv4 and IPv6 sockets only (the network namespace has no way out anyway)."""
    return [
        Instruction(_JUMP_EQUAL, 0, 6, architecture.socket),
        _load(_OFFSET_ARG0),
        Instruction(_JUMP_EQUAL, 2, 0, AF_UNIX),
        Instruction(_JUMP_EQUAL, 1, 0, AF_INET),
        Instruction(_JUMP_EQUAL, 0, 1, AF_INET6),
        _return(ALLOW),
        _return(ERRNO | EAFNOSUPPORT),
    ]


def _refuse_processes(architecture: Architecture) -> list[Instruction]:
    """Allow `clone` for threads only; hide `clone3`, whose flags a filter cannot read."""
    return [
        Instruction(_JUMP_EQUAL, 0, 1, architecture.clone3),
        _return(ERRNO | ENOSYS),
        Instruction(_JUMP_EQUAL, 0, 3, architecture.clone),
        _load(_OFFSET_ARG0),
        Instruction(_JUMP_ANY_BIT, 1, 0, CLONE_THREAD),
        _return(ERRNO | EPERM),
    ]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _return(value: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, value)
