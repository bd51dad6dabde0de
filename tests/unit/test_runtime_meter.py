"""The meter: fair, and nothing lost or invented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.runtime.meter import READ_ERROR_NS, Cost, Meter, Share

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
        meter.read(**reading)
        if kind == "start":
            runs.append(meter.start())
        elif kind == "finish" and runs:
            costs.append(meter.finish(runs.pop(pick % len(runs))))
    while runs:
        costs.append(meter.finish(runs.pop()))
    assert sum(c.cpu_ns for c in costs) + meter.cpu.idle + meter.cpu.remainder == cpu
    memory_sum = sum(c.memory_byte_ns for c in costs) + meter.memory.idle + meter.memory.remainder
    assert memory_sum == byte_ns
    assert meter.in_flight == 0


def test_a_run_alone_pays_all_and_two_together_pay_half_each():
    meter = Meter(cpu_ns=100, memory_bytes=10, now_ns=0)
    meter.read(cpu_ns=150, memory_bytes=10, now_ns=1)
    first = meter.start()
    meter.read(cpu_ns=250, memory_bytes=10, now_ns=2)
    second = meter.start()
    meter.read(cpu_ns=450, memory_bytes=10, now_ns=12)
    assert meter.finish(first) == Cost(200, 60, 11)
    meter.read(cpu_ns=460, memory_bytes=10, now_ns=13)
    assert meter.finish(second) == Cost(110, 60, 11)
    assert meter.cpu.idle == 50


def test_what_does_not_divide_is_carried_to_the_next_event():
    share = Share()
    share.advance(10, 3)
    assert (share.clock, share.remainder) == (3, 1)
    share.advance(2, 3)
    assert (share.clock, share.remainder) == (4, 0)


def test_a_clock_that_goes_backwards_counts_as_standing_still():
    meter = Meter(cpu_ns=100, memory_bytes=8, now_ns=100)
    run = meter.start()
    meter.read(cpu_ns=50, memory_bytes=8, now_ns=50)
    assert meter.finish(run) == Cost(0, 0, 0)


def test_finishing_twice_is_refused():
    meter = Meter(cpu_ns=0, memory_bytes=0, now_ns=0)
    run = meter.start()
    meter.finish(run)
    with pytest.raises(RuntimeError):
        meter.finish(run)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=200))
def test_a_start_or_end_without_a_reading_moves_no_more_than_the_error(events):
    """One core, always busy: each run's true share is known."""
    seldom, often = (Meter(cpu_ns=0, memory_bytes=0, now_ns=0) for _ in range(2))
    runs = []
    now = 0
    for number, (starts, step) in enumerate(events):
        now += step
        reading = {"cpu_ns": now, "memory_bytes": 0, "now_ns": now}
        often.read(**reading)
        if seldom.due(now):
            seldom.read(**reading)
        if starts or not runs:
            runs.append((number, seldom.start(), often.start()))
        else:
            began, mine, true = runs.pop(0)
            error = seldom.finish(mine).cpu_ns - often.finish(true).cpu_ns
            assert abs(error) <= (number - began + 1) * READ_ERROR_NS


def test_a_run_that_is_alone_is_always_read():
    meter = Meter(cpu_ns=0, memory_bytes=0, now_ns=0)
    assert meter.due(0)
    meter.start()
    assert not meter.due(READ_ERROR_NS - 1)
    assert meter.due(READ_ERROR_NS)


@pytest.mark.parametrize(("byte_ns", "expected"), [(0, 0), (1, 1), (2**20 * 10**6, 1)])
def test_memory_time_is_rounded_up_to_mib_milliseconds(byte_ns, expected):
    assert Cost(0, byte_ns, 0).memory_mb_ms == expected
