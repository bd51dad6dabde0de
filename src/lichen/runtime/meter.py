"""Who used what: a process's CPU and memory, shared out fairly among the runs inside it.

One process serves many runs at the same time and the kernel only counts per process. So a virtual
clock advances by `delta / runs in flight` whenever a run starts or ends, and a run costs what the
clock advanced while it was in flight: O(1) per event, however many runs there are. This is the
virtual time of fair queueing (Parekh and Gallager, 1993).

A reading costs as much as a write to a socket, so while others run too it serves for a moment:
`due` tells when the next one must be taken. A start or an end thereby moves `READ_ERROR_NS` at most
from one run to its neighbours in the same process; nothing is lost.

All is integers. What does not divide is carried to the next event, so nothing is lost or invented:
the sum over all runs, plus `idle`, plus the carried remainder is the process's total exactly.
"""

from __future__ import annotations

from typing import Final

import msgspec

READ_ERROR_NS: Final = 20_000


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What one run used: CPU in ns, memory in byte-nanoseconds, wall time in ns."""

    cpu_ns: int
    memory_byte_ns: int
    wall_ns: int

    @property
    def memory_mb_ms(self) -> int:
        """Memory-time in MiB-milliseconds, rounded up."""
        return -(-self.memory_byte_ns // (2**20 * 10**6))


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run in flight: the readings of the clocks when it began."""

    cpu: int
    memory: int
    started_ns: int


class Share:
    """One divided quantity: `advance` by its growth, read the virtual clock before and after."""

    __slots__ = ("clock", "idle", "remainder")

    def __init__(self) -> None:
        self.clock = 0
        self.idle = 0
        self.remainder = 0

    def advance(self, delta: int, runs: int) -> None:
        """Divide `delta` among `runs` runs in flight, or count it as idle when there are none."""
        if runs:
            step, self.remainder = divmod(delta + self.remainder, runs)
            self.clock += step
        else:
            self.idle += delta


class Meter:
    """Divides the readings of one process among its runs.

    Readings (`cpu_ns` a CPU clock, `memory_bytes` resident memory, `now_ns` a monotonic clock) come
    in with every event. Clocks never run backwards here: a lower reading counts as no progress.
    """

    __slots__ = ("_cpu_ns", "_memory_bytes", "_now_ns", "cpu", "in_flight", "memory")

    def __init__(self, *, cpu_ns: int, memory_bytes: int, now_ns: int) -> None:
        self.cpu, self.memory = Share(), Share()
        self.in_flight = 0
        self._cpu_ns, self._memory_bytes, self._now_ns = cpu_ns, memory_bytes, now_ns

    def read(self, *, cpu_ns: int, memory_bytes: int, now_ns: int) -> None:
        """Take a reading; call it between events too, so that memory is sampled more finely."""
        if cpu_ns > self._cpu_ns:
            self.cpu.advance(cpu_ns - self._cpu_ns, self.in_flight)
            self._cpu_ns = cpu_ns
        if now_ns > self._now_ns:
            self.memory.advance(self._memory_bytes * (now_ns - self._now_ns), self.in_flight)
            self._now_ns = now_ns
        self._memory_bytes = memory_bytes

    def due(self, now_ns: int) -> bool:
        """Tell whether a run may only start or end after another reading."""
        return now_ns - self._now_ns >= READ_ERROR_NS * self.in_flight

    def start(self) -> Run:
        """Begin a run, at the latest reading."""
        self.in_flight += 1
        return Run(self.cpu.clock, self.memory.clock, self._now_ns)

    def finish(self, run: Run) -> Cost:
        """End a run (once), at the latest reading, and say what it cost."""
        if self.in_flight == 0:
            raise RuntimeError("a run was finished twice")
        self.in_flight -= 1
        return Cost(
            self.cpu.clock - run.cpu, self.memory.clock - run.memory, self._now_ns - run.started_ns
        )
