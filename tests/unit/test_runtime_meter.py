"""The meter: fair, and nothing lost or invented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.runtime.meter import Cost, Meter, Share

EVENT = st.tuples(
    st.sampled_from(["start", "finish", "read"]),
    st.integers(0, 10**12),  # CPU ns since the last event
    st.integers(0, 10**12),  # wall ns since the last event
    st.integers(0, 2**34),  # memory now
    st.integers(0, 10**6),  # which run to finish
)


@given(st.lists(EVENT, max_size=200))
def test_runs_idle_and_remainder_add_up_to_the_total_exactly(events):
    meter = Meter(cpu_ns=0, memory_bytes=0, now_ns=0)
    cpu = now = byte_ns = held = 0
    costs, runs = [], []
    for kind, cpu_step, time_step, memory, pick in events:
        cpu, now = cpu + cpu_step, now + time_step
        byte_ns += held * time_step
        held = memory
        reading = {"cpu_ns": cpu, "memory_bytes": memory, "now_ns": now}
        if kind == "start":
            runs.append(meter.start(**reading))
        elif kind == "finish" and runs:
            costs.append(meter.finish(runs.pop(pick % len(runs)), **reading))
        else:
            meter.read(**reading)
    while runs:
        costs.append(meter.finish(runs.pop(), cpu_ns=cpu, memory_bytes=held, now_ns=now))
    assert sum(c.cpu_ns for c in costs) + meter.cpu.idle + meter.cpu.remainder == cpu
    memory_sum = sum(c.memory_byte_ns for c in costs) + meter.memory.idle + meter.memory.remainder
    assert memory_sum == byte_ns
    assert meter.in_flight == 0


def test_a_run_alone_pays_all_and_two_together_pay_half_each():
    meter = Meter(cpu_ns=100, memory_bytes=10, now_ns=0)
    first = meter.start(cpu_ns=150, memory_bytes=10, now_ns=1)
    second = meter.start(cpu_ns=250, memory_bytes=10, now_ns=2)
    assert meter.finish(first, cpu_ns=450, memory_bytes=10, now_ns=12) == Cost(200, 60, 11)
    assert meter.finish(second, cpu_ns=460, memory_bytes=10, now_ns=13) == Cost(110, 60, 11)
    assert meter.cpu.idle == 50


def test_what_does_not_divide_is_carried_to_the_next_event():
    share = Share()
    share.advance(10, 3)
    assert (share.clock, share.remainder) == (3, 1)
    share.advance(2, 3)
    assert (share.clock, share.remainder) == (4, 0)


def test_a_clock_that_goes_backwards_counts_as_standing_still():
    meter = Meter(cpu_ns=100, memory_bytes=8, now_ns=100)
    run = meter.start(cpu_ns=100, memory_bytes=8, now_ns=100)
    assert meter.finish(run, cpu_ns=50, memory_bytes=8, now_ns=50) == Cost(0, 0, 0)


def test_finishing_twice_is_refused():
    meter = Meter(cpu_ns=0, memory_bytes=0, now_ns=0)
    run = meter.start(cpu_ns=0, memory_bytes=0, now_ns=0)
    meter.finish(run, cpu_ns=0, memory_bytes=0, now_ns=0)
    with pytest.raises(RuntimeError):
        meter.finish(run, cpu_ns=0, memory_bytes=0, now_ns=0)


@pytest.mark.parametrize(("byte_ns", "expected"), [(0, 0), (1, 1), (2**20 * 10**6, 1)])
def test_memory_time_is_rounded_up_to_mib_milliseconds(byte_ns, expected):
    assert Cost(0, byte_ns, 0).memory_mb_ms == expected
