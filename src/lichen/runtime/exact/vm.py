"""One QuickJS in one fresh WebAssembly instance, driven through raw calls.

A run makes about ten calls, and through wasmtime's wrappers each would cost as much as the whole
run does. Whatever comes out of linear memory is hostile: addresses and lengths are checked here.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, memmove, string_at
from typing import TYPE_CHECKING, Any, Final

import wasmtime
from wasmtime import _bindings as ffi

from lichen.runtime.exact import hostcalls
from lichen.runtime.exact.imports import Stopped
from lichen.runtime.exact.outcome import Kind
from lichen.runtime.exact.stack import require_large_stack

if TYPE_CHECKING:
    from lichen.runtime.exact.engine import Engine

PAGE_BYTES: Final = 65_536
POINTER_BYTES: Final = 4
ARGUMENTS_MAX: Final = 8
TRAP_STACK, TRAP_INTERRUPT, TRAP_FUEL = 0, 10, 11  # wasmtime/trap.h

_NAMES: Final[dict[str, tuple[Any, int]]] = {}
_call = ffi._wasmtime_func_call_unchecked  # noqa: SLF001  # without a wrapper's frame
_export = ffi._wasmtime_instance_export_get  # noqa: SLF001
_memory_data = ffi._wasmtime_memory_data  # noqa: SLF001
_memory_size = ffi._wasmtime_memory_data_size  # noqa: SLF001
_get_fuel = ffi._wasmtime_context_get_fuel  # noqa: SLF001
_set_fuel = ffi._wasmtime_context_set_fuel  # noqa: SLF001
_Values = ffi.wasmtime_val_raw * ARGUMENTS_MAX
_TrapPointer = ctypes.POINTER(ffi.wasm_trap_t)


class Vm:
    """A fresh instance with `fuel` to burn. Ends by `close`; `Stopped` says how a run ended early.

    `time_ms` is what its clock shows, `seed` what its randomness comes from.
    """

    __slots__ = (
        "_context", "_fuel", "_functions", "_instance", "_item", "_kind", "_memory", "_store",
        "_values", "engine", "fuel_max", "randomness", "scratch", "time_ms",
    )  # fmt: skip

    def __init__(
        self, engine: Engine, *, fuel: int, memory_bytes: int, time_ms: int, seed: bytes
    ) -> None:
        require_large_stack()
        self.engine, self.fuel_max, self.time_ms = engine, fuel, time_ms
        self.randomness = hostcalls.Randomness(seed)
        self.scratch = 0
        self._kind: Kind | None = None
        self._fuel = ctypes.c_uint64()
        self._store = store = wasmtime.Store(engine.native)
        store.set_limits(memory_size=memory_bytes, instances=1, memories=1, tables=1)
        store.set_fuel(fuel)
        store.set_epoch_deadline(1)
        self._context = store._context()  # noqa: SLF001
        engine.current = self
        self._instance = byref(engine.instance_pre.instantiate(store)._instance)  # noqa: SLF001
        self._item = ffi.wasmtime_extern_t()
        self._functions: dict[str, Any] = {}
        self._values = _Values()
        self._find("memory")
        self._memory = byref(ffi.wasmtime_memory_t.from_buffer_copy(self._item.of.memory))

    def close(self) -> None:
        """Free the instance."""
        self.engine.current = None
        self._store.close()

    def _find(self, name: str) -> None:
        named = _NAMES.get(name)
        if named is None:
            encoded = name.encode()
            buffer = ctypes.create_string_buffer(encoded, len(encoded))
            named = _NAMES[name] = (buffer, len(encoded))
        if not _export(self._context, self._instance, *named, byref(self._item)):
            raise RuntimeError(f"the engine has no export {name!r}")

    def call(self, name: str, *arguments: int) -> int:
        """Call an export with i32 arguments; raise Stopped when that ends the run."""
        function = self._functions.get(name)
        if function is None:
            self._find(name)
            found = ffi.wasmtime_func_t.from_buffer_copy(self._item.of.func)
            function = self._functions[name] = byref(found)
        values = self._values
        for index, argument in enumerate(arguments):
            values[index].i32 = argument
        trap = _TrapPointer()
        error = _call(self._context, function, values, ARGUMENTS_MAX, byref(trap))
        if error or trap:
            self._ended(error, trap)
        return values[0].i32 & 0xFFFFFFFF

    def _ended(self, error: Any, trap: Any) -> None:
        code = ctypes.c_uint8()
        known = bool(trap) and ffi.wasmtime_trap_code(trap, byref(code))
        if trap:
            ffi.wasm_trap_delete(trap)
        if error:
            ffi.wasmtime_error_delete(error)
        kind = self._kind
        if kind is None and known:
            kind = _TRAPS.get(code.value, Kind.EXCEPTION)
        raise Stopped(kind or Kind.INDETERMINATE)

    def stop(self, kind: Kind) -> None:
        """Remember why a host function is about to end the run; the first reason counts."""
        if self._kind is None:
            self._kind = kind

    @property
    def fuel_used(self) -> int:
        """The fuel burnt so far."""
        _get_fuel(self._context, byref(self._fuel))
        return self.fuel_max - self._fuel.value

    def charge(self, fuel: int) -> None:
        """Burn fuel for work outside of WebAssembly; raise Stopped when there is too little."""
        _get_fuel(self._context, byref(self._fuel))
        left = self._fuel.value - fuel
        _set_fuel(self._context, max(0, left))
        if left < 0:
            raise Stopped(Kind.OUT_OF_FUEL)

    @property
    def memory_bytes(self) -> int:
        """The size of linear memory."""
        return int(_memory_size(self._context, self._memory))

    def grow(self, pages: int) -> None:
        """Add pages of linear memory."""
        before = ctypes.c_uint64()
        error = ffi.wasmtime_memory_grow(self._context, self._memory, pages, byref(before))
        if error:
            ffi.wasmtime_error_delete(error)
            raise Stopped(Kind.INDETERMINATE)

    def _at(self, address: int, size: int) -> int:
        address &= 0xFFFFFFFF
        if size < 0 or address + size > self.memory_bytes:
            raise Stopped(Kind.EXCEPTION)
        data = ctypes.cast(_memory_data(self._context, self._memory), ctypes.c_void_p).value
        return (data or 0) + address

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of linear memory; raise Stopped when they are outside of it."""
        return string_at(self._at(address, size), size)

    def read_pointer(self, address: int) -> int:
        """Return a 32-bit number."""
        return int.from_bytes(self.read(address, POINTER_BYTES), "little")

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into linear memory; raise Stopped when they do not fit in it."""
        memmove(self._at(address, len(data)), data, len(data))

    def restore(self, runs: list[tuple[int, bytes, int]]) -> None:
        """Put a snapshot's bytes (offset, bytes, size), which were checked, into linear memory."""
        base = self._at(0, 0)
        for offset, data, size in runs:
            memmove(base + offset, data, size)

    def get_global(self, name: str) -> int:
        """Return a mutable i32 global."""
        return int(self._global(name).of.i32)

    def set_global(self, name: str, value: int) -> None:
        """Set a mutable i32 global."""
        slot = self._global(name)
        slot.of.i32 = value
        found = ffi.wasmtime_global_t.from_buffer_copy(self._item.of.global_)
        ffi.wasmtime_global_set(self._context, byref(found), byref(slot))

    def _global(self, name: str) -> Any:
        self._find(name)
        found = ffi.wasmtime_global_t.from_buffer_copy(self._item.of.global_)
        value = ffi.wasmtime_val_t()
        ffi.wasmtime_global_get(self._context, byref(found), byref(value))
        return value

    def store_bytes(self, data: bytes) -> int:
        """Copy bytes into memory that QuickJS allocates, NUL-terminated; return the address."""
        address = self.call("wasm_malloc", len(data) + 1)
        if address == 0:
            raise Stopped(Kind.OUT_OF_MEMORY)
        self.write(address, data + b"\0")
        return address

    def new_buffer(self, data: bytes) -> int:
        """Return a handle of an ArrayBuffer with these bytes."""
        address = self.store_bytes(data)
        handle = self.call("qjs_new_array_buffer", address, len(data))
        self.call("wasm_free", address)
        return handle

    def buffer_bytes(self, handle: int, bytes_max: int) -> bytes | None:
        """Return what an ArrayBuffer holds; None for another value, or one that is too long."""
        if not self.call("qjs_is_array_buffer", handle):
            return None
        address = self.call("qjs_get_array_buffer", handle, self.scratch)
        size = self.read_pointer(self.scratch)
        if size > bytes_max:
            return None
        return self.read(address, size)

    def call_value(self, function: int, this: int, *arguments: int) -> int:
        """Call a JavaScript function by handle, with at most two arguments."""
        slots = self.scratch + POINTER_BYTES
        self.write(slots, b"".join(a.to_bytes(POINTER_BYTES, "little") for a in arguments))
        return self.call("qjs_call", function, this, len(arguments), slots)

    def host_call(self, name: bytes, count: int, arguments: int) -> int:
        """Serve `host.NAME(value)`: bytes in, bytes out; 0 tells QuickJS that it throws."""
        data = b""
        if name == hostcalls.ENCODE:
            return self._encode(self.read_pointer(arguments)) if count > 0 else 0
        if count > 0:
            found = self.buffer_bytes(
                self.read_pointer(arguments), self.engine.limits.input_bytes_max
            )
            if found is None:
                return self._throw("a host function takes an ArrayBuffer")
            data = found
        try:
            if name == hostcalls.DECODE:
                return self._decode(data)
            return self.new_buffer(self._serve(name, data))
        except ValueError as error:
            return self._throw(str(error))

    def _encode(self, handle: int) -> int:
        """Return a buffer with a string in UTF-8."""
        address = self.call("qjs_get_string_len", handle, self.scratch)
        if address == 0:
            return 0  # it could not be converted, and QuickJS knows why
        size = self.read_pointer(self.scratch)
        self.charge(hostcalls.TEXT_FUEL + size * hostcalls.TEXT_FUEL_PER_BYTE)
        text = self.read(address, size)
        self.call("qjs_free_cstring", address)
        return self.new_buffer(hostcalls.without_surrogates(text))

    def _decode(self, data: bytes) -> int:
        """Return a string from UTF-8; what is malformed becomes U+FFFD."""
        self.charge(hostcalls.TEXT_FUEL + len(data) * hostcalls.TEXT_FUEL_PER_BYTE)
        text = data.decode("utf-8", "replace").encode()
        address = self.store_bytes(text)
        value = self.call("qjs_new_string", address, len(text))
        self.call("wasm_free", address)
        return value

    def _serve(self, name: bytes, data: bytes) -> bytes:
        if name == hostcalls.RANDOM:
            count = int.from_bytes(data[:POINTER_BYTES], "little")
            wanted = min(count, hostcalls.RANDOM_BYTES_MAX)
            self.charge(hostcalls.RANDOM_FUEL + wanted * hostcalls.RANDOM_FUEL_PER_BYTE)
            return self.randomness.take(count)
        function = hostcalls.FUNCTIONS.get(name)
        if function is None:
            raise ValueError("there is no such host function")
        self.charge(function.fuel + len(data) * function.fuel_per_byte)
        return function.call(data)

    def _throw(self, message: str) -> int:
        text = self.store_bytes(message.encode())
        error = self.call("qjs_new_string", text, len(message.encode()))
        self.call("qjs_throw", error)
        return 0


_TRAPS: Final = {
    TRAP_STACK: Kind.INDETERMINATE,
    TRAP_INTERRUPT: Kind.INDETERMINATE,
    TRAP_FUEL: Kind.OUT_OF_FUEL,
}
