"""Evaluates a bundle as a node will, to find out before it is deployed whether it can be.

It happens in a process of its own: should the engine fail, only that one ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.errors import MachineError
from lichen.runtime.errors import LoadError
from lichen.runtime.exact.compiled import prepare_files

if TYPE_CHECKING:
    from lichen.runtime.engines import Engines

CHECK_S_MAX: Final = 60.0


class Checked(msgspec.Struct, frozen=True):
    """A snapshot's hash in hex, how many bytes a run copies, and the fuel that evaluating took.

    Or, with `error` and `hint`, why there is none.
    """

    hash: str = ""
    memory_bytes: int = 0
    fuel: int = 0
    error: str = ""
    hint: str = ""


def check(code: bytes, heap_mb: int, engines: Engines) -> Checked:
    """Evaluate a bundle (blocking); raise LoadError with what is wrong with it."""
    files = prepare_files(engines.quickjs, tempfile.gettempdir())
    argv = [sys.executable, "-m", __name__, files.engine, files.compiled, str(heap_mb)]
    try:
        done = subprocess.run(
            argv, input=code, capture_output=True, timeout=CHECK_S_MAX, check=False
        )
        found = msgspec.json.decode(done.stdout, type=Checked)
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        raise MachineError(
            f"the function cannot be evaluated here: {error}", hint="run `lichen doctor`"
        ) from error
    if found.error:
        raise LoadError(found.error, hint=found.hint)
    return found


def main() -> None:
    """Evaluate what standard input holds; arguments: engine, compiled engine, MiB of heap."""
    from lichen.runtime.exact.engine import Engine
    from lichen.runtime.exact.snapshot import take
    from lichen.runtime.exact.stack import on_large_stack

    engine, compiled, heap_mb = sys.argv[1:]
    code = sys.stdin.buffer.read()

    def work() -> Checked:
        try:
            made = take(Engine(Path(engine).read_bytes(), compiled=compiled), code, int(heap_mb))
        except LoadError as error:
            return Checked(error=error.what, hint=error.hint)
        return Checked(made.hash.hex(), made.memory_bytes, made.fuel)

    sys.stdout.buffer.write(msgspec.json.encode(on_large_stack(work)))


if __name__ == "__main__":
    main()
