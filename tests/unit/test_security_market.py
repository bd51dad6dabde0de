"""What a payer can owe a node, however many runs it starts at once."""

import pytest

from lichen.errors import PaymentRequiredError, PeerError
from lichen.market.account import Line, PayeeBook, PayerBook


def test_runs_in_flight_together_cannot_cost_more_than_the_deposit() -> None:
    book = PayeeBook(deposit=100)
    for _ in range(10):
        book.admit(10, credit=1000)
        book.begin(10)
    with pytest.raises(PaymentRequiredError, match="deposit"):
        book.admit(10, credit=1000)
    book.charge(1, 10)
    with pytest.raises(PaymentRequiredError):
        book.admit(10, credit=1000)
    book.charge(1, 10)
    book.admit(10, credit=1000)


def test_a_run_that_cost_less_than_its_ceiling_gives_the_rest_back() -> None:
    book = PayeeBook(deposit=100)
    book.begin(50)
    book.charge(5, 50)
    assert (book.owed, book.held) == (5, 0)


def test_a_payer_refuses_a_negative_line() -> None:
    payer = PayerBook(1000)
    payer.place("x", 10)
    with pytest.raises(PeerError, match="bills -1"):
        payer.approve(9, (Line(0, "x", 10), Line(1, "y", -1)), recall=100)
    assert (payer.signed, payer.placed) == (0, {"x": 10})
