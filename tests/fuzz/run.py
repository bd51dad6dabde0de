"""Fuzz targets one after the other, each in a process of its own: `make fuzz [SECONDS=60] [TARGET=name]`.

What was learnt is kept in `.fuzz/`, so that the next run goes on from there. An input that breaks a
promise is stored there too, and the way to make it a seed is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import all as _all
from tests.fuzz.kit import SEEDS, TARGETS, Target

del _all
WORK = Path(".fuzz")
EXECUTIONS = re.compile(r"number_of_executed_units: (\d+)")
RSS_MB_MAX = 2048
ONE_S_MAX = 10


def main() -> int:
    options = _options()
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris, which has wheels for Linux on x86-64, Python 3.11 to 3.13;")
        print("here only the seeds and hypothesis run: make test-unit")
        return 2
    os.nice(19)
    names = options.target or sorted(TARGETS)
    unknown = set(names) - set(TARGETS)
    if unknown:
        print(f"no target {', '.join(unknown)}; there are {', '.join(sorted(TARGETS))}")
        return 2
    seconds = max(1, options.seconds // len(names))
    failed, total = [], 0
    for name in names:
        done, executions, said = _fuzz(TARGETS[name], seconds)
        total += executions
        held = "ok" if done else "FAILED"
        print(f"{name:20} {executions:>10} executions in {seconds} s  {held}", flush=True)
        if not done:
            failed.append(name)
            lines = [line for line in said.splitlines() if not line.startswith("INFO: ")]
            print("\n".join(lines[-40:]))
    print(f"{'all':20} {total:>10} executions")
    if failed:
        print(
            f"broken: {', '.join(failed)}. An input is in {WORK}/NAME/found-*: mend what it shows,"
        )
        print(f"then keep it as {SEEDS.relative_to(Path.cwd())}/NAME/what-it-shows")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--target", action="append", help="only this one; repeatable")
    return parser.parse_args()


def _fuzz(target: Target, seconds: int) -> tuple[bool, int, str]:
    """Run one target; tell whether it held, how often it ran and what it said."""
    corpus = WORK / target.name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.begin):
        (corpus / f"begin-{number}").write_bytes(data)
    seeds = SEEDS / target.name
    command = [
        sys.executable, "-m", "tests.fuzz.one", target.name,
        f"-max_total_time={seconds}", f"-max_len={target.bytes_max}", f"-timeout={ONE_S_MAX}",
        f"-rss_limit_mb={RSS_MB_MAX}", "-print_final_stats=1",
        f"-artifact_prefix={WORK}/{target.name}/found-",
        str(corpus), *([str(seeds)] if seeds.is_dir() else []),
    ]  # fmt: skip
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="lichen-fuzz-", dir=memory) as folder:
        environment = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=seconds + 120, env=environment
        )
    said = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    found = EXECUTIONS.search(said)
    return done.returncode == 0, int(found[1]) if found else 0, said


sys.exit(main())
