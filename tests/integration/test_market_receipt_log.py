"""The receipt log against a real disk: nothing acknowledged is lost, restarts change nothing."""

from pathlib import Path

import libipld
import lmdb
import msgspec
import pytest

from lichen.encoding import to_builtins
from lichen.errors import CorruptionError, NotFoundError
from lichen.identity import PrivateKey
from lichen.identity.digest import Digest
from lichen.market.account import PayeeBook
from lichen.market.receipt import write_receipt
from lichen.market.receipt_log import ReceiptLog
from lichen.verify.receipt import verify_receipt
from tests.unit.test_market_receipt import KEY, NETWORK, make_body

CHANNEL = bytes(32)


def _append(log: ReceiptLog, book: PayeeBook, runs: range, amount: int = 5) -> None:
    for run in runs:
        book.charge(amount)
        log.append(f"ab-{run}", CHANNEL, amount, to_builtins(make_body(run, amount)))


async def test_flushed_receipts_verify_and_survive_reopening(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    book, _ = log.open_book(CHANNEL, 10**6)
    _append(log, book, range(5000))
    await log.flush({CHANNEL: book})
    log.close()
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    assert log.count == 5000
    for run in (0, 4095, 4096, 4999):
        receipt = log.receipt(f"ab-{run}")
        assert verify_receipt(write_receipt(receipt), network=NETWORK).receipt.run == f"ab-{run}"
    with pytest.raises(NotFoundError):
        log.receipt("ab-5000")
    log.close()


async def test_a_reopened_book_asks_for_exactly_what_no_voucher_covered(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    book, _ = log.open_book(CHANNEL, 10**6)
    books = {CHANNEL: book}
    _append(log, book, range(10))
    await log.flush(books)
    book.accept(50)
    log.save_voucher(CHANNEL, book, b"s" * 65)
    _append(log, book, range(10, 13))
    await log.flush(books)
    log.close()
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    book, voucher = log.open_book(CHANNEL, 10**6)
    assert (book.owed, book.paid, voucher) == (65, 50, b"s" * 65)
    assert [line.run for line in book.statement()[1]] == ["ab-10", "ab-11", "ab-12"]
    assert log.vouchers() == [(CHANNEL, 50, b"s" * 65)]
    log.close()


async def test_the_oldest_paid_batches_go_once_the_bound_is_passed(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK, receipts_max=20)
    book, _ = log.open_book(CHANNEL, 10**6)
    for start in range(0, 100, 10):
        _append(log, book, range(start, start + 10))
        await log.flush({CHANNEL: book})
        book.accept(book.owed)
        log.save_voucher(CHANNEL, book, b"s" * 65)
    with pytest.raises(NotFoundError):
        log.receipt("ab-0")
    assert log.receipt("ab-99").run == "ab-99"
    log.close()


async def test_unpaid_receipts_are_kept_whatever_the_bound(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK, receipts_max=5)
    book, _ = log.open_book(CHANNEL, 10**6)
    for start in range(0, 50, 10):
        _append(log, book, range(start, start + 10))
        await log.flush({CHANNEL: book})
    assert log.receipt("ab-0").run == "ab-0"
    log.close()


async def test_of_a_run_that_came_twice_the_first_receipt_stays(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    book, _ = log.open_book(CHANNEL, 10**6)
    for amount in (5, 6, 7):
        _append(log, book, range(2), amount)
        _append(log, book, range(1), amount)
        await log.flush({CHANNEL: book})
    assert int(log.receipt("ab-0").price.amount) == 5
    assert log.count == 9
    log.close()


async def test_pruning_leaves_the_places_of_neighbouring_runs(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK, receipts_max=20)
    book, _ = log.open_book(CHANNEL, 10**6)
    for start in range(10, 60, 5):  # two batches for each page of places
        _append(log, book, range(start, start + 5))
        await log.flush({CHANNEL: book})
        book.accept(book.owed)
        log.save_voucher(CHANNEL, book, b"s" * 65)
    known = [run for run in range(10, 60) if log.is_durable(f"ab-{run}")]
    assert known == list(range(60 - len(known), 60))
    assert 20 <= len(known) < 50
    assert all(log.receipt(f"ab-{run}").run == f"ab-{run}" for run in known)
    log.close()


def test_a_log_of_another_node_is_refused(tmp_path: Path) -> None:
    ReceiptLog(str(tmp_path), KEY, NETWORK).close()
    with pytest.raises(CorruptionError):
        ReceiptLog(str(tmp_path), PrivateKey.generate(), NETWORK)
    with pytest.raises(CorruptionError):
        ReceiptLog(str(tmp_path), KEY, Digest(bytes(32)))


async def test_nothing_is_anchored_twice(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    book, _ = log.open_book(CHANNEL, 10**6)
    _append(log, book, range(3))
    await log.flush({CHANNEL: book})
    assert [log.root_since(first)[1] for first in (0, 3)] == [3, 0]
    log.close()


def _as_in_the_first_layout(path: Path) -> None:
    """Write a log as the first versions did: an entry for every receipt and one for its run."""
    with lmdb.open(str(path), max_dbs=4) as env:
        pages, places, bodies, runs = (
            env.open_db(name) for name in (b"pages", b"places", b"bodies", b"runs")
        )
        with env.begin(write=True) as txn:
            for key, page in txn.cursor(pages):
                for at, body in enumerate(msgspec.msgpack.decode(page, type=list[bytes])):
                    number = (int.from_bytes(key, "big") + at).to_bytes(8, "big")
                    txn.put(number, body, db=bodies)
                    run = libipld.decode_dag_cbor(body)["run"].encode()
                    txn.put(run, number, db=runs, overwrite=False)
            txn.drop(pages)
            txn.drop(places)


async def test_a_log_of_the_first_layout_is_carried_over_whole(tmp_path: Path) -> None:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    book, _ = log.open_book(CHANNEL, 10**6)
    for start in range(0, 700, 7):
        _append(log, book, range(start, start + 7))
        await log.flush({CHANNEL: book})
    before = [write_receipt(log.receipt(f"ab-{run}")) for run in range(700)]
    log.close()
    _as_in_the_first_layout(tmp_path)
    for _ in range(2):  # the second time there is nothing left to carry over
        log = ReceiptLog(str(tmp_path), KEY, NETWORK)
        assert [write_receipt(log.receipt(f"ab-{run}")) for run in range(700)] == before
        assert log.open_book(CHANNEL, 10**6)[0].owed == 3500
        log.close()
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    _append(log, book, range(700, 701))
    await log.flush({CHANNEL: book})
    assert verify_receipt(write_receipt(log.receipt("ab-700")), network=NETWORK)
    log.close()
