"""The filter, run by an interpreter of the instructions that it uses."""

import struct

import pytest

from lichen.runtime import seccomp
from lichen.runtime.errors import SandboxMissingError

MACHINES = sorted(seccomp.ARCHITECTURES)
EPERM = seccomp.ERRNO | seccomp.EPERM


def run(program, *, arch, number, args=(0,) * 6):
    """Interpret classic BPF over a `struct seccomp_data`, as the kernel does."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *args)
    steps = [struct.unpack_from("=HBBI", program, i) for i in range(0, len(program), 8)]
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = steps[at]
        at += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
            continue
        taken = {0x15: accumulator == value, 0x45: bool(accumulator & value)}[operation]
        at += if_true if taken else if_false


def check(machine, number, *args, allow_fork=False):
    architecture = seccomp.ARCHITECTURES[machine]
    program = seccomp.program(machine, allow_fork=allow_fork)
    args = (*args, 0, 0, 0, 0, 0, 0)[:6]
    return run(program, arch=architecture.audit_arch, number=number, args=args)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_refused_and_its_neighbours_are_not(machine):
    architecture = seccomp.ARCHITECTURES[machine]
    denied = {numbers[architecture.column] for numbers in seccomp.DENIED.values()} - {None}
    special = {architecture.clone, architecture.clone3, architecture.socket}
    for number in range(600):
        if number not in special:
            expected = EPERM if number in denied else seccomp.ALLOW
            assert check(machine, number) == expected, number


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_are_allowed_and_processes_are_not(machine):
    architecture = seccomp.ARCHITECTURES[machine]
    assert check(machine, architecture.clone, seccomp.CLONE_THREAD | 0xF00) == seccomp.ALLOW
    assert check(machine, architecture.clone, 17) == EPERM
    assert check(machine, architecture.clone3) == seccomp.ERRNO | seccomp.ENOSYS
    assert check(machine, architecture.clone, 17, allow_fork=True) == seccomp.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_only_unix_and_ip_sockets_are_allowed(machine):
    number = seccomp.ARCHITECTURES[machine].socket
    allowed = [f for f in range(50) if check(machine, number, f) == seccomp.ALLOW]
    assert allowed == [1, 2, 10]
    assert check(machine, number, 16) == seccomp.ERRNO | seccomp.EAFNOSUPPORT


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_calls_kill_the_process(machine):
    program = seccomp.program(machine)
    assert run(program, arch=0x40000003, number=1) == seccomp.KILL_PROCESS


def test_the_x32_calls_of_x86_64_do_not_exist():
    assert check("x86_64", 0x40000000 | 101) == seccomp.ERRNO | seccomp.ENOSYS


def test_a_machine_without_a_table_is_refused_with_a_way_out():
    with pytest.raises(SandboxMissingError) as caught:
        seccomp.program("riscv64")
    assert "x86_64" in caught.value.hint
