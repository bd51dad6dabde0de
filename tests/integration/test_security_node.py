"""A node against payers that lie: receipts, sessions and channels stay whose they are."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import pytest

from lichen.encoding import to_builtins
from lichen.errors import NotAllowedError
from lichen.identity import Address
from lichen.ledger.types import Channel, ChannelStatus
from lichen.market.account import Line, PayeeBook
from lichen.market.receipt_log import ReceiptLog
from lichen.node.sessions import Sessions, UnknownSessionError
from lichen.units import Amount
from tests.unit.test_market_receipt import KEY, NETWORK, make_body

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAYER = Address(b"\x01" * 20)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ReceiptLog]:
    log = ReceiptLog(str(tmp_path), KEY, NETWORK)
    yield log
    log.close()


def channel(number: int, status: ChannelStatus = ChannelStatus.OPEN) -> Channel:
    return Channel(
        id=number.to_bytes(32, "big"),
        payer=PAYER,
        payee=KEY.address,
        signer=PAYER,
        opener=PAYER,
        app="",
        deposit=Amount(1000),
        redeemed=Amount(0),
        status=status,
        closes_ms=0,
    )


async def test_a_second_receipt_of_a_run_does_not_take_the_first_ones_place(
    log: ReceiptLog,
) -> None:
    for amount in (5, 9):
        log.append("ab-1", bytes(32), amount, to_builtins(make_body(1, amount)))
        await log.flush({})
    assert log.receipt("ab-1").price.amount == 5


def test_a_closed_channel_gives_its_place_up(log: ReceiptLog) -> None:
    sessions = Sessions(KEY.address, log, channels_max=1)
    token, _ = sessions.open(channel(1), PAYER)
    sessions.update(channel(1, ChannelStatus.CLOSING), channel(1).id)
    with pytest.raises(UnknownSessionError):
        sessions.get(token.encode())
    assert not sessions.accounts
    assert not sessions.books


def test_channels_that_rest_cannot_keep_others_out(log: ReceiptLog) -> None:
    sessions = Sessions(KEY.address, log, channels_max=2)
    tokens = [sessions.open(channel(number), PAYER)[0] for number in range(5)]
    assert len(sessions.accounts) == 2
    sessions.get(tokens[-1].encode())
    with pytest.raises(UnknownSessionError):
        sessions.get(tokens[0].encode())


def test_a_channel_with_a_run_in_flight_keeps_its_place(log: ReceiptLog) -> None:
    sessions = Sessions(KEY.address, log, channels_max=1)
    token, account = sessions.open(channel(1), PAYER)
    account.book.begin(10)
    with pytest.raises(NotAllowedError, match="as many channels"):
        sessions.open(channel(2), PAYER)
    assert sessions.get(token.encode()) is account


async def test_channels_may_come_and_go_while_receipts_are_written(log: ReceiptLog) -> None:
    """Channels that close leave the books of the thread that writes; it must not stumble."""

    class Leaving(PayeeBook):
        """A book during whose reading another channel goes."""

        @property
        def lines(self) -> collections.deque[Line]:
            books.pop(b"other", None)
            return collections.deque()

        @lines.setter
        def lines(self, value: collections.deque[Line]) -> None:
            del value

    books: dict[bytes, PayeeBook] = {}
    books[bytes(32)], books[b"other"] = Leaving(100), PayeeBook(100)
    log.append("ab-1", b"elsewhere", 5, to_builtins(make_body(1, 5)))
    await log.flush(books)
    assert log.receipt("ab-1").run == "ab-1"
    assert b"other" not in books
