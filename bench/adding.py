"""Adding 1 GB of content: ours beside Kubo's, and beside the SHA-256 that bounds both.

What is timed, and how the two are made to do the same, says `content_add.py`, which measures more.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from typing import TYPE_CHECKING

import content_add
from lib.gateways import KUBO, find
from lib.table import Figure
from lichen.content import V1_2025

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB_OF_1_GB = 954
KUBO_BOUND = 2.0
HASH_BOUND = 0.6


def measure(folder: Path, *, rounds: int, mib: int = MIB_OF_1_GB) -> list[Figure]:
    """Hash, add and add with Kubo by turns; the first turn warms up."""
    source = folder / "source"
    content_add.write_source(source, mib)
    program = find(KUBO)
    kubo = None if program is None else content_add.Kubo(program, folder)
    tasks: dict[str, Callable[[], object]] = {
        "sha256": lambda: content_add.hash_only(source),
        "lichen": lambda: content_add.add(source, folder, V1_2025),
    }
    if kubo is not None:
        tasks["kubo"] = lambda: kubo.add(source)
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, run in tasks.items():
            if kubo is not None and name == "kubo":
                kubo.prepare()
            os.sync()  # what the one before left to be written is not to be paid by the next
            start = time.perf_counter()
            run()
            if number:
                taken[name].append(time.perf_counter() - start)
            shutil.rmtree(folder / "new", ignore_errors=True)
    source.unlink()
    return _figures(taken, mib)


def _figures(taken: dict[str, list[float]], mib: int) -> list[Figure]:
    def ratio(other: str) -> float:
        pairs = zip(taken[other], taken["lichen"], strict=True)
        return statistics.median(theirs / mine for theirs, mine in pairs)

    def note(other: str) -> str:
        mine, theirs = (mib / statistics.median(taken[name]) for name in ("lichen", other))
        return f"lichen {mine:.0f} MiB/s, {other} {theirs:.0f}"

    figures = [
        Figure(
            "adding 1 GB, of sha256's speed", ratio("sha256"), "x", (">=", HASH_BOUND),
            note("sha256"),
        )
    ]  # fmt: skip
    if "kubo" in taken:
        bound = (">=", KUBO_BOUND)
        figures.append(Figure("adding 1 GB : kubo", ratio("kubo"), "x", bound, note("kubo")))
    else:
        figures.append(Figure("adding 1 GB : kubo, not here", None, "", note=KUBO.how_to_get()))
    return figures
