"""QuickJS, compiled by wasmtime for exact runs: what is shared by all runs of a process."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import wasmtime
from wasmtime import _bindings as ffi  # the wrappers cost several times what a run does

from lichen.errors import MachineError
from lichen.runtime.exact import imports, prelude
from lichen.runtime.exact.profile import Limits, profile_of

if TYPE_CHECKING:
    from lichen.runtime.exact.vm import Vm

POOLED: Final = 4  # instances alive at a time, in one process
RESIDENT_BYTES: Final = 2 * 2**20  # of a used memory, cleared by hand instead of by the kernel
TABLE_RESIDENT_BYTES: Final = 64 * 1024
NATIVE_STACK_BYTES: Final = 16 * 2**20
MIB: Final = 2**20

OptLevel = Literal["none", "speed"]


class Engine:
    """The engine of one process: compiled module, host functions, profile. Used by one thread.

    `compiled` is a file that this node's `compile_to` wrote; without it, QuickJS is compiled here,
    which takes some seconds.
    """

    def __init__(
        self,
        wasm: bytes,
        *,
        compiled: str | None = None,
        opt_level: OptLevel = "speed",
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.prelude = prelude.source()
        self.profile = profile_of(wasm, self.limits)
        self.profile_id = self.profile.id
        self.native = wasmtime.Engine(_config(self.limits, opt_level))
        self.module = (
            wasmtime.Module(self.native, wasm)
            if compiled is None
            else wasmtime.Module.deserialize_file(self.native, compiled)
        )
        self.current: Vm | None = None
        self.prelude_code: bytes | None = None  # its bytecode, once somebody needed it
        linker = wasmtime.Linker(self.native)
        self._callbacks = imports.define(linker, lambda: self.current)
        self.instance_pre = linker.instantiate_pre(self.module)

    def interrupt(self) -> None:
        """End the run under way as indeterminate; safe from any thread."""
        self.native.increment_epoch()


def compile_to(wasm: bytes, path: str, opt_level: OptLevel = "speed") -> None:
    """Compile QuickJS into a file for `Engine(compiled=...)`; it appears whole or not at all."""
    native = wasmtime.Engine(_config(Limits(), opt_level))
    data = wasmtime.Module(native, wasm).serialize()
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        os.fchmod(handle, 0o644)
    os.replace(temporary, path)


def _config(limits: Limits, opt_level: OptLevel) -> wasmtime.Config:
    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    config.cranelift_nan_canonicalization = True
    config.cranelift_opt_level = opt_level
    config.wasm_threads = False
    config.wasm_relaxed_simd_deterministic = True
    pointer = config.ptr()
    # This before the next, or wasmtime aborts the process.
    ffi.wasmtime_config_async_stack_size_set(pointer, NATIVE_STACK_BYTES)
    ffi.wasmtime_config_max_wasm_stack_set(pointer, limits.wasm_stack_bytes)
    ffi.wasmtime_pooling_allocation_strategy_set(pointer, _pooling(limits))
    return config


def _pooling(limits: Limits) -> Any:
    pooling = ffi.wasmtime_pooling_allocation_config_new()
    if not pooling:
        raise MachineError("wasmtime has no pooling allocator here", hint="install it again")
    values = {
        "total_memories": POOLED,
        "total_core_instances": POOLED,
        "total_tables": POOLED,
        "max_memory_size": limits.heap_mb_max * MIB + limits.spare_bytes,
        "linear_memory_keep_resident": RESIDENT_BYTES,
        "table_keep_resident": TABLE_RESIDENT_BYTES,
    }
    for name, value in values.items():
        setter = getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")
        setter(pooling, value)
    return pooling


if __name__ == "__main__":  # what `workers.prepare_files` starts
    compile_to(Path(sys.argv[1]).read_bytes(), sys.argv[2])
