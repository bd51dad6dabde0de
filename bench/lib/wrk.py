"""Load by wrk: one thread, a number of connections that are kept alive, for a few seconds."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from lib.machine import find_tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SUMMARY = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n#%d %d %d %d %d %d\\n', summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# A new range with every request, so that no cache of whole responses can answer.
_RANGES = """
math.randomseed(1)
request = function()
  local at = math.random(0, OF - SIZE)
  return wrk.format("GET", nil, {["Range"] = string.format("bytes=%d-%d", at, at + SIZE - 1)})
end
"""


# No two requests are the same, so that no memory of whole requests can answer.
_VARIED = """
local number = 0
request = function()
  number = number + 1
  return wrk.format("GET", nil, {["X-Number"] = number})
end
"""


class Load(NamedTuple):
    """What one run of wrk saw, and its own CPU time. Latencies are in microseconds."""

    requests: int
    bytes: int
    seconds: float
    p50_us: int
    p99_us: int
    cpu_s: float


def write_scripts(folder: Path, *, of_bytes: int = 500_000_000, range_bytes: int = 2**20) -> None:
    """Write wrk's scripts into `folder`; `ranges.lua` is for a file of `of_bytes`."""
    (folder / "plain.lua").write_text(_SUMMARY)
    (folder / "varied.lua").write_text(_SUMMARY + _VARIED)
    ranges = _RANGES.replace("SIZE", str(range_bytes)).replace("OF", str(of_bytes))
    (folder / "ranges.lua").write_text(_SUMMARY + ranges)


def run(
    script: Path,
    url: str,
    *,
    seconds: int,
    connections: int,
    headers: Mapping[str, str] | None = None,
    cut_off: bool = False,
    cpu: int | None = None,
) -> Load:
    """Run wrk once, on one CPU if so said; `cut_off` allows downloads that its end breaks off."""
    fields = [
        part for name, value in (headers or {}).items() for part in ("-H", f"{name}: {value}")
    ]
    command = [
        find_tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", *fields, "-s", str(script), url,
    ]  # fmt: skip
    stay = None if cpu is None else functools.partial(os.sched_setaffinity, 0, {cpu})
    before = _children_cpu_s()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, preexec_fn=stay
    )
    cpu_s = _children_cpu_s() - before
    line = next(line for line in done.stdout.splitlines() if line.startswith("#"))
    requests, size, micros, p50, p99, errors = (int(word) for word in line[1:].split())
    if errors and not cut_off:
        raise SystemExit(f"{errors} of {requests} requests to {url} failed:\n{done.stdout}")
    return Load(requests, size, micros / 1e6, p50, p99, cpu_s)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
