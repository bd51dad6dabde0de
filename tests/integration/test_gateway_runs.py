"""The gateway's run log on a real disk."""

import asyncio
from pathlib import Path

import lmdb
import msgspec
import pytest

from lichen.errors import NotFoundError
from lichen.gateway.runs import PAGE_RUNS, PAGES_MAX, Attempt, RunLog, RunRecord
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


async def test_the_newest_runs_are_kept_page_by_page(tmp_path: Path) -> None:
    log = RunLog(str(tmp_path), GATEWAY, runs_max=PAGE_RUNS)
    runs = [log.next_run() for _ in range(5 * PAGE_RUNS)]
    for at in range(0, len(runs), 100):
        for run in runs[at : at + 100]:
            log.add(make_record(run))
        await log.flush()
    for state in ("in memory", "on disk"):
        with pytest.raises(NotFoundError):
            log.get(runs[0])
        newest = runs[-PAGE_RUNS:]
        assert [log.get(run).run for run in newest] == newest, state
        log.close()
        log = RunLog(str(tmp_path), GATEWAY, runs_max=PAGE_RUNS)
    log.close()


async def test_what_is_billed_while_it_is_written_is_written_again(tmp_path: Path) -> None:
    log = RunLog(str(tmp_path), GATEWAY)
    runs = [log.next_run() for _ in range(300)]
    for run in runs:
        log.add(make_record(run))
    assert log.pending == 300
    writing = asyncio.ensure_future(log.flush())
    await asyncio.sleep(0)
    for run in runs:
        log.bill(run, 7)
    await writing
    assert log.pending == 300
    await log.flush()
    log.close()
    log = RunLog(str(tmp_path), GATEWAY)
    assert {log.get(run).amount for run in runs} == {7}
    log.close()


async def test_memory_holds_a_bounded_number_of_pages_and_loses_none(tmp_path: Path) -> None:
    log = RunLog(str(tmp_path), GATEWAY)
    runs = [log.next_run() for _ in range((PAGES_MAX + 50) * PAGE_RUNS)][::PAGE_RUNS]
    for run in runs:
        log.add(make_record(run))
    assert len(log._pages) > PAGES_MAX  # none of them is written yet
    await log.flush()
    log.add(make_record(log.next_run()))
    assert len(log._pages) <= PAGES_MAX
    assert {log.get(run).amount for run in runs} == {-1}
    log.bill(runs[0], 3)
    log.close()
    log = RunLog(str(tmp_path), GATEWAY)
    assert log.get(runs[0]).amount == 3
    assert log.ceiling(runs[0], "n") is None
    assert log.ceiling(runs[1], "n") == 10
    assert log.ceiling(runs[1], "another") is None
    log.close()


async def test_a_disk_that_fails_leaves_all_for_the_next_time(tmp_path: Path, monkeypatch) -> None:
    log = RunLog(str(tmp_path), GATEWAY)
    run = log.next_run()
    log.add(make_record(run))
    with monkeypatch.context() as broken:
        broken.setattr(log, "_write", fail)
        with pytest.raises(OSError, match="full"):
            await log.flush()
    assert log.pending == 1
    await log.flush()
    assert log.pending == 0
    log.close()


def fail(pages: object) -> None:
    raise OSError("full")


def test_a_log_of_the_first_layout_is_carried_over_whole(tmp_path: Path) -> None:
    RunLog(str(tmp_path), GATEWAY).close()
    runs = [f"{GATEWAY.hex()[:8]}-{number:012x}" for number in range(1, 3 * PAGE_RUNS)]
    with lmdb.open(str(tmp_path), max_dbs=1) as env:
        stored = env.open_db(b"runs")
        with env.begin(write=True, db=stored) as txn:
            for run in runs:
                txn.put(run.encode(), msgspec.msgpack.encode(make_record(run)))
    for _ in range(2):  # the second time there is nothing left to carry over
        log = RunLog(str(tmp_path), GATEWAY)
        assert [log.get(run).run for run in runs] == runs
        log.close()
