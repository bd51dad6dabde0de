"""Every target of the fuzzer holds for what it found before, and for some bytes of hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import all as _all
from tests.fuzz.kit import SEEDS, TARGETS, Target

del _all
EXAMPLES = 15


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_what_was_found_stays_mended(target: Target) -> None:
    for data in (*target.begin, *(seed.read_bytes() for seed in target.seeds())):
        target.run(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, derandomize=True, database=None)
def test_no_bytes_break_a_promise(target: Target, data: st.DataObject) -> None:
    start = data.draw(st.sampled_from((b"", *target.begin)))
    at = data.draw(st.integers(0, len(start)))
    target.run(start[:at] + data.draw(st.binary(max_size=64)) + start[at:])


def test_every_seed_belongs_to_a_target() -> None:
    assert {folder.name for folder in SEEDS.iterdir()} <= TARGETS.keys()
