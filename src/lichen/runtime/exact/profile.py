"""What has to be equal on two machines so that their exact runs are comparable."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Final

import msgspec

from lichen.encoding import canonical, sha256
from lichen.runtime.exact import hostcalls, prelude

PROFILE_CHARS: Final = 32
WASMTIME: Final = version("wasmtime")


class Limits(msgspec.Struct, frozen=True):
    """The limits that decide outcomes, in bytes and units of fuel.

    `js_stack_bytes` is where QuickJS throws a RangeError; `wasm_stack_bytes`, far beyond it, is
    where wasmtime gives up, which is no result. `spare_bytes` of linear memory are kept for the
    engine itself above a function's heap.
    """

    js_stack_bytes: int = 128 * 1024
    wasm_stack_bytes: int = 8 * 2**20
    heap_mb_max: int = 256
    spare_bytes: int = 16 * 2**20
    gc_threshold_bytes: int = 2 * 2**20
    input_bytes_max: int = 16 * 2**20
    output_bytes_max: int = 16 * 2**20
    log_bytes_max: int = 64 * 1024
    load_fuel_max: int = 5_000_000_000
    fuel_max: int = 400_000_000_000


class Profile(msgspec.Struct, frozen=True):
    """Engine, compiler, prelude, host functions and limits. Hashes are SHA-256 in hex.

    `prices` are the fuel that host functions cost: (name, per call, per byte of input).
    """

    engine: str
    wasmtime: str
    prelude: str
    crypto: str
    prices: tuple[tuple[str, int, int], ...]
    limits: Limits

    @property
    def id(self) -> str:
        """The profile's name in receipts."""
        return f"exact-{sha256(canonical(self)).hex()[:PROFILE_CHARS]}"


def profile_of(wasm: bytes, limits: Limits) -> Profile:
    """Describe the engine that this QuickJS makes, without starting it."""
    return Profile(
        engine=hashlib.sha256(wasm).hexdigest(),
        wasmtime=WASMTIME,
        prelude=hashlib.sha256(prelude.source()).hexdigest(),
        crypto=hostcalls.CRYPTO,
        prices=hostcalls.prices(),
        limits=limits,
    )


def compiled_name(wasm: bytes) -> str:
    """Name the file of a compiled engine: another wasmtime or engine has another one."""
    key = hashlib.sha256(wasm + WASMTIME.encode()).hexdigest()[:16]
    return f"quickjs-{key}.cwasm"
