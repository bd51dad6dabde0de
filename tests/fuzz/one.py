"""Run one target under atheris until its time is over: `python -m tests.fuzz.one NAME FLAGS...`."""

import sys

import atheris

with atheris.instrument_imports(include=["lichen"]):
    from tests.fuzz import all as _all
from tests.fuzz.kit import TARGETS

del _all


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].run)
    atheris.Fuzz()


main()
