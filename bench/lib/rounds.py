"""Contenders side by side: alternating rounds, each with its load and the CPU time it cost."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from lib import wrk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Contender(NamedTuple):
    """Who is measured: where it answers, and what reads its CPU seconds so far.

    `work_s` reads the CPU of what stands behind it (the tenant), counted apart.
    """

    url: str
    cpu_s: Callable[[], float]
    work_s: Callable[[], float] = lambda: 0.0
    headers: Mapping[str, str] | None = None


class Round(NamedTuple):
    """One contender's load in one round with the CPU seconds that it cost."""

    load: wrk.Load
    cpu_s: float
    work_s: float

    @property
    def us_per_request(self) -> float:
        return self.cpu_s / self.load.requests * 1e6

    @property
    def work_us_per_request(self) -> float:
        return self.work_s / self.load.requests * 1e6

    @property
    def requests_per_cpu_s(self) -> float:
        return self.load.requests / max(self.cpu_s, 0.01)

    @property
    def mb_per_cpu_s(self) -> float:
        return self.load.bytes / 1e6 / max(self.cpu_s, 0.01)

    @property
    def mb_per_cpu_s_of_both(self) -> float:
        """Of the server and the one that receives, for what the kernel charges to either."""
        return self.load.bytes / 1e6 / max(self.cpu_s + self.load.cpu_s, 0.01)

    @property
    def requests_per_s(self) -> float:
        return self.load.requests / self.load.seconds


class Results(dict[str, list[Round]]):
    """Rounds by contender; medians over rounds, ratios within each round."""

    def median(self, name: str, value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, self[name]))

    def ratio(self, a: str, b: str, value: Callable[[Round], float]) -> float:
        return statistics.median(
            value(mine) / value(other) for mine, other in zip(self[a], self[b], strict=True)
        )


def alternate(
    contenders: Mapping[str, Contender],
    script: Path,
    *,
    rounds: int,
    seconds: int,
    connections: int,
    cut_off: bool = False,
    cpu: int | None = None,
) -> Results:
    """Measure all contenders once per round, in turning order; a first short round warms up.

    `cpu` is where wrk stays; without it the kernel moves it about.
    """
    results = Results({name: [] for name in contenders})
    for number in range(-1, rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            one = contenders[name]
            spent, work = one.cpu_s(), one.work_s()
            load = wrk.run(
                script, one.url, seconds=seconds if number >= 0 else 1, connections=connections,
                headers=one.headers, cut_off=cut_off, cpu=cpu,
            )  # fmt: skip
            if number >= 0:
                results[name].append(Round(load, one.cpu_s() - spent, one.work_s() - work))
    return results
