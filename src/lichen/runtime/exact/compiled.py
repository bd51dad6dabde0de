"""QuickJS in machine code: compiled once per machine, by whoever needs it first.

It lies beside the engine that it was made of, which is as trusted, and is named by what it depends
on. wasmtime itself refuses a file that was made for another processor.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from lichen.errors import MachineError
from lichen.runtime.exact.profile import compiled_name

COMPILE_S_MAX: Final = 120.0


class Files(msgspec.Struct, frozen=True):
    """Paths of the engine and of its compiled form."""

    engine: str
    compiled: str


def prepare_files(quickjs: str, home: str) -> Files:
    """Find the compiled engine, or compile it (blocking, some seconds).

    Where the engine's folder cannot be written it is kept in `home`. Raises MachineError.
    """
    name = compiled_name(Path(quickjs).read_bytes())
    beside = os.path.dirname(quickjs)
    folder = beside if os.access(beside, os.W_OK) else home
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(f"{path}.lock", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(path):  # another process may have been faster
                _compile(quickjs, path)
    return Files(quickjs, path)


def _compile(quickjs: str, path: str) -> None:
    """Compile in a process of its own: wasmtime would keep the memory that it needs for that."""
    argv = [sys.executable, "-m", "lichen.runtime.exact.engine", quickjs, path]
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=COMPILE_S_MAX)
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(
            f"QuickJS cannot be compiled: {error}", hint="check the free disk space and memory"
        ) from error
