"""A function, evaluated once: what its linear memory holds, beyond what a fresh instance holds.

Linear memory and the stack pointer are all of QuickJS's state. The same bundle gives the same
snapshot on every machine, so its hash is part of what nodes agree on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.encoding import canonical, from_canonical, sha256
from lichen.errors import UserError
from lichen.runtime.errors import LoadError
from lichen.runtime.exact import hostcalls
from lichen.runtime.exact.imports import Stopped
from lichen.runtime.exact.vm import PAGE_BYTES, Vm

if TYPE_CHECKING:
    from lichen.runtime.exact.engine import Engine

BLOCK_BYTES: Final = 4096
HEAP_MB_MIN: Final = 8
SCRATCH_BYTES: Final = 64
SNAPSHOT_BYTES_MAX: Final = 64 * 2**20
ERROR_BYTES_MAX: Final = 16 * 1024
STACK_POINTER: Final = "__stack_pointer"
MODULE, SCRIPT = 1, 0  # JS_EVAL_TYPE_MODULE, JS_EVAL_TYPE_GLOBAL
STRIP_SOURCE: Final = 1 << 4  # JS_STRIP_SOURCE
_PENDING, _FULFILLED = 0, 1
_MIB = 2**20
_NOTHING = bytes(32)


class Handles(msgspec.Struct, frozen=True):
    """Addresses inside the snapshot: QuickJS's runtime and context, and the prelude's functions."""

    runtime: int
    context: int
    undefined: int
    scratch: int
    start: int
    turn: int


class Run(msgspec.Struct, frozen=True):
    """Bytes that differ from a fresh instance's, and where."""

    offset: int
    data: bytes


class Snapshot(msgspec.Struct, frozen=True):
    """A function ready to run. `code` is the SHA-256 of its bundle in hex; `fuel` evaluated it."""

    profile: str
    code: str
    heap_mb: int
    pages: int
    stack_pointer: int
    handles: Handles
    runs: tuple[Run, ...]
    fuel: int

    def encode(self) -> bytes:
        """Return the one spelling of it, whose SHA-256 names it."""
        return canonical(self)

    @property
    def hash(self) -> bytes:
        """What nodes compare."""
        return sha256(self.encode())

    @property
    def memory_bytes(self) -> int:
        """What a copy of it occupies."""
        return sum(len(run.data) for run in self.runs)


def decode(data: bytes) -> Snapshot:
    """Read a snapshot; raise UserError unless it is well-formed and within its own bounds."""
    if len(data) > SNAPSHOT_BYTES_MAX:
        raise UserError(f"a snapshot has at most {SNAPSHOT_BYTES_MAX} bytes")
    snapshot = from_canonical(data, Snapshot)
    end = snapshot.pages * PAGE_BYTES
    if any(run.offset < 0 or run.offset + len(run.data) > end for run in snapshot.runs):
        raise UserError("the snapshot writes outside of its own memory")
    return snapshot


def take(engine: Engine, code: bytes, heap_mb: int = 64) -> Snapshot:
    """Evaluate a bundle, an ES module, and keep what comes of it.

    Raises LoadError when it throws, needs too much, or does not end; its message is the function's.
    """
    limits = engine.limits
    if not HEAP_MB_MIN <= heap_mb <= limits.heap_mb_max:
        raise LoadError(
            f"an exact function has {HEAP_MB_MIN} to {limits.heap_mb_max} MiB of memory",
            hint="change memory_mb in lichen.toml",
        )
    try:
        if engine.prelude_code is None:
            engine.prelude_code = _compiled(
                engine, engine.prelude, b"lichen:prelude", SCRIPT | STRIP_SOURCE, heap_mb
            )
        module = _compiled(engine, code, b"index.js", MODULE, heap_mb)
        return _taken(engine, code, engine.prelude_code, module, heap_mb)
    except Stopped as stopped:
        raise LoadError(
            f"evaluating the function ended with: {stopped.kind.replace('_', ' ')}",
            hint="do less at the top level of the module",
        ) from None


def _taken(engine: Engine, code: bytes, prelude: bytes, module: bytes, heap_mb: int) -> Snapshot:
    vm = _blank(engine, heap_mb)
    try:
        handles = _evaluate(vm, prelude, module)
        vm.call("qjs_run_gc")
        return Snapshot(
            profile=engine.profile_id,
            code=hashlib.sha256(code).hexdigest(),
            heap_mb=heap_mb,
            pages=vm.memory_bytes // PAGE_BYTES,
            stack_pointer=vm.get_global(STACK_POINTER),
            handles=handles,
            fuel=vm.fuel_used,
            runs=_differences(_fresh(engine), vm.read(0, vm.memory_bytes)),
        )
    finally:
        vm.close()


def _blank(engine: Engine, heap_mb: int) -> Vm:
    """Return a QuickJS with its limits set, and nothing in it."""
    limits = engine.limits
    vm = Vm(
        engine,
        fuel=limits.load_fuel_max,
        memory_bytes=heap_mb * _MIB + limits.spare_bytes,
        time_ms=0,
        seed=_NOTHING,
    )
    vm.call("_initialize")
    if vm.call("qjs_init") != 0:
        raise LoadError("QuickJS did not start", hint="report this")
    vm.call("qjs_set_max_stack_size", limits.js_stack_bytes)
    vm.call("qjs_set_memory_limit", heap_mb * _MIB)
    vm.call("qjs_set_gc_threshold", limits.gc_threshold_bytes)
    vm.scratch = vm.call("wasm_malloc", SCRATCH_BYTES)
    return vm


def _compiled(engine: Engine, code: bytes, name: bytes, flags: int, heap_mb: int) -> bytes:
    """Return bytecode, made in an instance of its own.

    What a compiler leaves behind in memory would double the snapshot, and be copied for every run.
    """
    vm = _blank(engine, heap_mb)
    try:
        source, file = vm.store_bytes(code), vm.store_bytes(name)
        address = vm.call(
            "qjs_compile", source, len(code), file, flags & MODULE, flags & STRIP_SOURCE, vm.scratch
        )
        if address == 0:
            raise _not_compiled(vm)
        return vm.read(address, vm.read_pointer(vm.scratch))
    finally:
        vm.close()


def _not_compiled(vm: Vm) -> LoadError:
    """Read a SyntaxError. No code of the function has run here that could have changed its text."""
    error = vm.call("qjs_get_exception")
    parts = [_text(vm, error), _text(vm, _property(vm, error, b"stack"))]
    return LoadError("\n".join(part for part in parts if part), hint="correct the source")


def _text(vm: Vm, value: int) -> str:
    address = vm.call("qjs_get_string_len", value, vm.scratch)
    size = min(vm.read_pointer(vm.scratch), ERROR_BYTES_MAX)
    return vm.read(address, size).decode("utf-8", "replace").strip() if address else ""


def _evaluate(vm: Vm, prelude_code: bytes, module_code: bytes) -> Handles:
    undefined = vm.call("qjs_get_undefined")
    prelude = _eval(vm, prelude_code)
    entry = vm.call_value(prelude, undefined, _host_object(vm), _limits_value(vm))
    if vm.call("qjs_is_exception", entry):
        raise LoadError("the prelude does not evaluate", hint="report this")
    install, start, turn, describe = (
        _property(vm, entry, name) for name in (b"install", b"start", b"turn", b"describe")
    )
    module = _eval(vm, module_code, describe)
    namespace = _settle(vm, module, turn, describe, undefined)
    problem = vm.call_value(install, undefined, namespace)
    text = vm.buffer_bytes(problem, ERROR_BYTES_MAX)
    if text is not None:
        raise LoadError(text.decode("utf-8", "replace"), hint="see docs/runtime.md")
    return Handles(
        runtime=vm.call("qjs_get_runtime_ptr"),
        context=vm.call("qjs_get_context_ptr"),
        undefined=undefined,
        scratch=vm.scratch,
        start=start,
        turn=turn,
    )


def _settle(vm: Vm, promise: int, turn: int, describe: int, undefined: int) -> int:
    """Run jobs and timers until a module's promise is settled; return its namespace."""
    while True:
        drain(vm)
        state = vm.call("qjs_promise_state", promise)
        if state != _PENDING:
            break
        if vm.buffer_bytes(vm.call_value(turn, undefined), ERROR_BYTES_MAX) is not None:
            raise LoadError(
                "the module waits at its top level for something that never happens",
                hint="there is no network while a module is loaded",
            )
    result = vm.call("qjs_promise_result", promise)
    if state != _FULFILLED:
        raise _thrown(vm, result, describe)
    return result


def drain(vm: Vm) -> None:
    """Run all pending jobs (promise reactions); raise Stopped where one cannot be run."""
    while vm.call("qjs_is_job_pending"):
        if vm.call("qjs_execute_pending_job") & 0x80000000:
            vm.call("qjs_get_exception")


def _eval(vm: Vm, bytecode: bytes, describe: int = 0) -> int:
    address = vm.store_bytes(bytecode)
    value = vm.call("qjs_eval_bytecode", address, len(bytecode))
    vm.call("wasm_free", address)
    if vm.call("qjs_is_exception", value):
        raise _thrown(vm, vm.call("qjs_get_exception"), describe)
    return value


def _thrown(vm: Vm, error: int, describe: int) -> LoadError:
    text = None
    if describe:
        told = vm.call_value(describe, vm.call("qjs_get_undefined"), error)
        text = vm.buffer_bytes(told, ERROR_BYTES_MAX)
    message = (text or b"it cannot be evaluated").decode("utf-8", "replace")
    return LoadError(message, hint="correct the function and deploy it again")


def _host_object(vm: Vm) -> int:
    """Return an object with the native functions, for the prelude alone."""
    host = vm.call("qjs_new_object")
    for name in (*hostcalls.FUNCTIONS, hostcalls.RANDOM, hostcalls.ENCODE, hostcalls.DECODE):
        address = vm.store_bytes(name)
        function = vm.call("qjs_new_host_function", address, len(name), 1)
        vm.call("qjs_set_prop_string", host, address, function)
        vm.call("wasm_free", address)
    return host


def _limits_value(vm: Vm) -> int:
    limits = vm.engine.limits
    text = f"{limits.output_bytes_max} {limits.log_bytes_max}".encode()
    return vm.call("qjs_new_string", vm.store_bytes(text), len(text))


def _property(vm: Vm, value: int, name: bytes) -> int:
    address = vm.store_bytes(name)
    found = vm.call("qjs_get_prop_string", value, address)
    vm.call("wasm_free", address)
    return found


def _fresh(engine: Engine) -> bytes:
    vm = Vm(engine, fuel=1, memory_bytes=engine.limits.spare_bytes, time_ms=0, seed=_NOTHING)
    try:
        return vm.read(0, vm.memory_bytes)
    finally:
        vm.close()


def _differences(before: bytes, after: bytes) -> tuple[Run, ...]:
    """Return where `after` differs from `before`, which is zero beyond its end, in whole blocks."""
    before = before.ljust(len(after), b"\0")
    runs: list[Run] = []
    start = -1
    for offset in range(0, len(after) + BLOCK_BYTES, BLOCK_BYTES):
        end = offset + BLOCK_BYTES
        if after[offset:end] != before[offset:end]:
            start = offset if start < 0 else start
        elif start >= 0:
            runs.append(Run(start, after[start:offset]))
            start = -1
    return tuple(runs)
