"""What QuickJS imports: WASI without a world behind it, and the door to `hostcalls`.

Clock and randomness are those that were agreed; files, modules and time zones do not exist. Every
call is paid in fuel, since what happens outside of WebAssembly costs none by itself. A Python
exception must not cross into native code: `Vm.stop` keeps the reason, and a trap ends the run.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

import wasmtime
from wasmtime import _bindings as ffi

from lichen.runtime.exact.hostcalls import IMPORT_FUEL
from lichen.runtime.exact.outcome import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.runtime.exact.vm import Vm

_WASI: Final = b"wasi_snapshot_preview1"
_ENV: Final = b"env"
_BAD_DESCRIPTOR: Final = 8  # errno `badf` of WASI preview 1
_NS_PER_MS: Final = 10**6
_RANDOM_BYTES_MAX: Final = 4096
_TRAP: Final = b"stopped by the host"

Values = Any  # a ctypes pointer to wasmtime_val_raw


class Stopped(Exception):  # noqa: N818  # it is how a run ends, not a fault
    """Ends a run from within a host function."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind


def define(linker: wasmtime.Linker, current: Callable[[], Vm | None]) -> list[Any]:
    """Define all imports; keep what is returned for as long as the linker's module may run."""
    kept: list[Any] = []
    for module, name, parameters, results, body in _IMPORTS:
        callback = _callback(body, current, returns=bool(results))
        kind = wasmtime.FuncType(
            [_TYPES[letter] for letter in parameters], [_TYPES[letter] for letter in results]
        )
        error = ffi.wasmtime_linker_define_func_unchecked(
            linker.ptr(), _buffer(module), len(module), _buffer(name), len(name), kind.ptr(),
            callback, None, _NO_FINALIZER,
        )  # fmt: skip
        if error:
            raise RuntimeError(f"import {name!r} cannot be defined")
        kept.append(callback)
    return kept


def _callback(
    body: Callable[[Vm, Values], int], current: Callable[[], Vm | None], *, returns: bool
) -> Any:
    def call(_env: Any, _caller: Any, values: Values, _count: int) -> int:
        vm = current()
        if vm is None:
            return _trap()
        try:
            vm.charge(IMPORT_FUEL)
            result = body(vm, values)
        except Stopped as stop:
            vm.stop(stop.kind)
            return _trap()
        except Exception:  # noqa: BLE001  # a fault of this host must not look like a result
            vm.stop(Kind.INDETERMINATE)
            return _trap()
        if returns:
            values[0].i64 = result & 0xFFFFFFFF
        return 0

    return ffi.wasmtime_func_unchecked_callback_t(call)


def _trap() -> int:
    trap = ffi.wasmtime_trap_new(_buffer(_TRAP), len(_TRAP))
    return ctypes.cast(trap, ctypes.c_void_p).value or 0


def _buffer(text: bytes) -> Any:
    return ctypes.create_string_buffer(text, len(text))


def _clock(vm: Vm, values: Values) -> int:
    vm.write(values[2].i32, (vm.time_ms * _NS_PER_MS).to_bytes(8, "little"))
    return 0


def _random(vm: Vm, values: Values) -> int:
    address, count = values[0].i32, values[1].i32
    if not 0 <= count <= _RANDOM_BYTES_MAX:
        raise Stopped(Kind.EXCEPTION)
    vm.write(address, vm.randomness.take(count))
    return 0


def _host_call(vm: Vm, values: Values) -> int:
    name = vm.read(values[0].i32, values[1].i32)
    return vm.host_call(name, values[3].i32, values[4].i32)


def _none(_vm: Vm, _values: Values) -> int:
    return 0


def _no_file(_vm: Vm, _values: Values) -> int:
    return _BAD_DESCRIPTOR


_TYPES: Final = {"i": wasmtime.ValType.i32(), "I": wasmtime.ValType.i64()}
_NO_FINALIZER: Final = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_IMPORTS: Final[tuple[tuple[bytes, bytes, str, str, Callable[[Vm, Values], int]], ...]] = (
    (_ENV, b"host_call", "iiiii", "i", _host_call),
    (_ENV, b"host_get_timezone_offset", "ii", "i", _none),
    (_ENV, b"host_interrupt", "", "i", _none),
    (_ENV, b"host_promise_rejection", "iii", "", _none),
    (_ENV, b"host_module_normalize", "ii", "i", _none),
    (_ENV, b"host_module_load", "ii", "i", _none),
    (_WASI, b"clock_time_get", "iIi", "i", _clock),
    (_WASI, b"random_get", "ii", "i", _random),
    (_WASI, b"fd_close", "i", "i", _no_file),
    (_WASI, b"fd_fdstat_get", "ii", "i", _no_file),
    (_WASI, b"fd_seek", "iIii", "i", _no_file),
    (_WASI, b"fd_write", "iiii", "i", _no_file),
)
