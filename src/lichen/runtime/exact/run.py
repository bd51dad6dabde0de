"""One exact run: a fresh instance, the snapshot in it, the input to it, and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.runtime.exact.envelope import MalformedOutputError, split_request, unpack_result
from lichen.runtime.exact.imports import Stopped
from lichen.runtime.exact.outcome import Kind, Outcome
from lichen.runtime.exact.snapshot import STACK_POINTER, drain
from lichen.runtime.exact.vm import PAGE_BYTES, Vm

if TYPE_CHECKING:
    from lichen.runtime.exact.engine import Engine
    from lichen.runtime.exact.snapshot import Snapshot

SEED_BYTES: Final = 32
_MIB: Final = 2**20
_RESULT_SPARE_BYTES: Final = 256 * 1024  # kind, logs and head around an output


class Prepared:
    """A snapshot in the form that is restored fastest."""

    __slots__ = ("memory_bytes", "pages", "runs", "snapshot")

    def __init__(self, engine: Engine, snapshot: Snapshot) -> None:
        if snapshot.profile != engine.profile_id:
            raise ValueError("this snapshot was taken by another engine")
        self.snapshot = snapshot
        self.pages = snapshot.pages
        self.memory_bytes = snapshot.heap_mb * _MIB + engine.limits.spare_bytes
        self.runs = [(run.offset, run.data, len(run.data)) for run in snapshot.runs]


def run(
    engine: Engine,
    snapshot: Snapshot | Prepared,
    data: bytes,
    *,
    seed: bytes,
    time_ms: int,
    fuel_max: int,
) -> Outcome:
    """Run a function on packed input (see envelope.py): a pure function of its arguments.

    `seed` has SEED_BYTES. The run ends at `fuel_max`. Call it on a large stack (stack.py).
    """
    prepared = snapshot if isinstance(snapshot, Prepared) else Prepared(engine, snapshot)
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    if len(data) > engine.limits.input_bytes_max:
        raise ValueError(f"the input has more than {engine.limits.input_bytes_max} bytes")
    head, body = split_request(data)
    fuel_max = min(fuel_max, engine.limits.fuel_max)
    vm = Vm(engine, fuel=fuel_max, memory_bytes=prepared.memory_bytes, time_ms=time_ms, seed=seed)
    try:
        kind, output, logs = _drive(vm, prepared, head, body)
        fuel = vm.fuel_used
        if fuel >= fuel_max:  # wasmtime looks now and then only: it may have gone beyond
            return Outcome(Kind.OUT_OF_FUEL, b"", fuel_max)
        return Outcome(kind, output, fuel, logs)
    except Stopped as stopped:
        fuel = fuel_max if stopped.kind is Kind.OUT_OF_FUEL else vm.fuel_used
        return Outcome(stopped.kind, b"", 0 if stopped.kind is Kind.INDETERMINATE else fuel)
    finally:
        vm.close()


def _drive(vm: Vm, prepared: Prepared, head: bytes, body: bytes) -> tuple[Kind, bytes, bytes]:
    snapshot, handles = prepared.snapshot, prepared.snapshot.handles
    vm.grow(prepared.pages - vm.memory_bytes // PAGE_BYTES)
    vm.restore(prepared.runs)
    vm.set_global(STACK_POINTER, snapshot.stack_pointer)
    vm.scratch = handles.scratch
    vm.call("qjs_set_runtime_and_context", handles.runtime, handles.context)
    text = vm.call("qjs_new_string", vm.store_bytes(head), len(head))
    content = vm.new_buffer(body) if body else handles.undefined
    begun = vm.call_value(handles.start, handles.undefined, text, content)
    if vm.call("qjs_is_exception", begun):
        return _refused()
    limits = vm.engine.limits
    bytes_max = limits.output_bytes_max + limits.log_bytes_max + _RESULT_SPARE_BYTES
    while True:
        drain(vm)
        turned = vm.call_value(handles.turn, handles.undefined)
        result = vm.buffer_bytes(turned, bytes_max)
        if result is not None:
            break
        if vm.call("qjs_is_exception", turned):
            return _refused()
    try:
        kind, logs, output = unpack_result(result)
    except MalformedOutputError as error:
        return Kind.EXCEPTION, error.what.encode(), b""
    return kind, output, logs


def _refused() -> tuple[Kind, bytes, bytes]:
    """Name what not even the prelude could catch: the function broke what it runs on."""
    return Kind.EXCEPTION, b"the function broke its own surroundings", b""
