"""The determinism of exact execution, at length: `make test-exact RUNS=10000`.

Every program runs in four processes, two for each level of optimisation of the compiler, one after
the other; all have to say the same of every program.
"""

import argparse
import json
import subprocess
import sys

from tests.exact.exact_programs import HOSTILE, PROGRAMS

LEVELS = ("speed", "none", "speed", "none")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    wanted = parser.parse_args().runs
    programs = len(PROGRAMS) + len(HOSTILE)
    each = -(-wanted // (len(LEVELS) * programs))
    tables = []
    for level in LEVELS:
        argv = [sys.executable, "-m", "tests.exact.exact_world", level, str(each)]
        tables.append(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout))
        print(f"{level}: {programs} programs, {each} runs each", flush=True)
    wrong = [name for name in tables[0] if any(t[name] != tables[0][name] for t in tables)]
    wrong += [n for n, v in tables[0].items() if n != "profile" and len(v) != 2]
    total = each * programs * len(LEVELS)
    print(f"{total} runs of {programs} programs: {len(wrong)} disagree {wrong or ''}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
