"""The gateway's run log on a real disk."""

from pathlib import Path

import pytest

from lichen.errors import NotFoundError
from lichen.gateway.runs import Attempt, RunLog, RunRecord
from lichen.identity import Address

GATEWAY = Address(bytes(range(20)))


def make_record(run: str) -> RunRecord:
    return RunRecord(run, "hello/1/api", "GET", "/", 1, 10, attempts=(Attempt("n", "ok", 5),))


def test_run_ids_never_repeat_across_restarts(tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):
        log = RunLog(str(tmp_path), GATEWAY)
        seen |= {log.next_run() for _ in range(5)}
        del log  # as after kill -9: nothing is flushed
    assert len(seen) == 15


async def test_a_record_is_found_before_and_after_it_is_written(tmp_path: Path) -> None:
    log = RunLog(str(tmp_path), GATEWAY)
    run = log.next_run()
    log.add(make_record(run))
    assert log.get(run).function == "hello/1/api"
    log.bill(run, 7)
    log.close()
    log = RunLog(str(tmp_path), GATEWAY)
    assert (log.get(run).amount, log.get(run).attempts[0].outcome) == (7, "ok")
    log.bill(run, 8)
    await log.flush()
    assert log.get(run).amount == 8
    log.close()


async def test_only_the_newest_runs_are_kept(tmp_path: Path) -> None:
    log = RunLog(str(tmp_path), GATEWAY, runs_max=3)
    runs = [log.next_run() for _ in range(5)]
    for run in runs:
        log.add(make_record(run))
    await log.flush()
    with pytest.raises(NotFoundError):
        log.get(runs[1])
    assert log.get(runs[2]).run == runs[2]
    log.close()
