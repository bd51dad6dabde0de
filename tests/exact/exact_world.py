"""Engines, snapshots and runs for the tests of exact execution; also a process of its own.

`python -m tests.exact.exact_world OPT_LEVEL RUNS` runs every program and prints what came out.
"""

import json
import sys
import tempfile
from functools import cache
from pathlib import Path

from lichen.runtime.engines import ensure
from lichen.runtime.exact.compiled import prepare_files
from lichen.runtime.exact.engine import Engine
from lichen.runtime.exact.envelope import RequestHead, pack_request
from lichen.runtime.exact.run import Prepared, run
from lichen.runtime.exact.snapshot import take
from lichen.runtime.exact.stack import on_large_stack
from tests.exact.exact_programs import HOSTILE, PROGRAMS

SEED = bytes(range(32))
TIME_MS = 1_700_000_000_000
FUEL_MAX = 300_000_000
HEAP_MB = 32
REQUEST = pack_request(
    RequestHead(
        "POST",
        "https://shop.example/a/b?x=1&y=%C3%A4",
        (("host", "shop.example"), ("accept", "*/*")),
    ),
    b'{"n": 3}',
)


@cache
def wasm():
    return Path(ensure().quickjs).read_bytes()


def make_engine(opt_level="speed"):
    if opt_level == "speed":
        files = prepare_files(ensure().quickjs, tempfile.gettempdir())
        return Engine(wasm(), compiled=files.compiled)
    return Engine(wasm(), opt_level=opt_level)


def outcome(engine, prepared, **changes):
    options = {"seed": SEED, "time_ms": TIME_MS, "fuel_max": FUEL_MAX, **changes}
    return run(
        engine,
        prepared,
        changes.pop("data", REQUEST),
        **{k: v for k, v in options.items() if k != "data"},
    )


def results(opt_level, runs):
    """Return what came of `runs` runs of every program: one line each, or the disagreement."""
    engine = make_engine(opt_level)
    found = {"profile": engine.profile_id}
    for name, (code, _) in (PROGRAMS | HOSTILE).items():
        snapshot = take(engine, code.encode(), HEAP_MB)
        prepared = Prepared(engine, snapshot)
        seen = {
            (o.kind.value, o.output_hash.hex(), o.fuel, o.logs.hex())
            for o in (outcome(engine, prepared) for _ in range(runs))
        }
        found[name] = [snapshot.hash.hex(), *sorted(seen)]
    return found


if __name__ == "__main__":
    print(json.dumps(on_large_stack(lambda: results(sys.argv[1], int(sys.argv[2])))))
