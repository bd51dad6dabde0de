import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import PaymentRequiredError, PeerError, VerificationError
from lichen.market import account
from lichen.market.account import Line, PayeeBook, PayerBook


def test_work_stops_at_the_credit_and_goes_on_after_a_voucher() -> None:
    book = PayeeBook(deposit=1000)
    book.charge(100)
    book.record(Line(0, "a", 100))
    with pytest.raises(PaymentRequiredError):
        book.admit(10, credit=100)
    book.accept(100)
    book.admit(10, credit=100)


def test_a_deposit_that_does_not_cover_the_ceiling_starts_nothing() -> None:
    with pytest.raises(PaymentRequiredError, match="deposit"):
        PayeeBook(deposit=5).admit(6, credit=100)


@pytest.mark.parametrize("cumulative", [0, 50, 100])
def test_a_voucher_that_does_not_raise_the_sum_is_refused(cumulative: int) -> None:
    book = PayeeBook(deposit=1000, owed=200, paid=100)
    with pytest.raises(VerificationError):
        book.accept(cumulative)
    assert book.paid == 100


def test_a_payer_refuses_a_run_that_it_never_placed() -> None:
    with pytest.raises(PeerError, match="never placed"):
        PayerBook(1000).approve(5, (Line(0, "x", 5),), recall=0)


def test_a_payer_refuses_the_same_run_twice() -> None:
    payer = PayerBook(1000)
    payer.place("x", 10)
    payer.approve(5, (Line(0, "x", 5),), recall=0)
    with pytest.raises(PeerError, match="never placed"):
        payer.approve(10, (Line(0, "x", 5),), recall=0)


def test_a_payer_refuses_a_bill_above_the_ceiling() -> None:
    payer = PayerBook(1000)
    payer.place("x", 10)
    with pytest.raises(PeerError, match="over 10"):
        payer.approve(11, (Line(0, "x", 11),), recall=0)


def test_a_payer_refuses_a_total_that_the_statement_does_not_explain() -> None:
    payer = PayerBook(1000)
    payer.place("x", 10)
    with pytest.raises(PeerError, match="comes to"):
        payer.approve(9, (Line(0, "x", 5),), recall=0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60), st.integers(1, 9))
def test_honest_books_agree_and_neither_side_is_exposed_beyond_its_bound(
    runs: list[tuple[int, int]], every: int
) -> None:
    payee, payer, credit, highest = PayeeBook(10**6), PayerBook(10**6), 120, 0
    for sequence, (ceiling, cost) in enumerate(runs):
        try:
            payee.admit(ceiling, credit)
        except PaymentRequiredError:
            _settle(payee, payer)
            payee.admit(ceiling, credit)
        amount = min(cost, ceiling)
        payer.place(str(sequence), ceiling)
        payee.charge(amount)
        payee.record(Line(sequence, str(sequence), amount))
        highest = max(highest, payee.unpaid)
        if sequence % every == 0:
            _settle(payee, payer)
    _settle(payee, payer)
    assert payee.paid == payee.owed == payer.signed
    assert highest < credit + 51
    assert not [line for line in payee.lines if line.amount]


def _settle(payee: PayeeBook, payer: PayerBook) -> None:
    owed, lines = payee.statement()
    cumulative = payer.approve(owed, lines, recall=0)
    if cumulative > payee.paid:
        payee.accept(cumulative)
    else:
        payee.lines.clear()


def test_a_statement_longer_than_its_bound_is_paid_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(account, "STATEMENT_RUNS_MAX", 3)
    payee, payer = PayeeBook(10**6), PayerBook(10**6)
    for sequence in range(8):
        payer.place(str(sequence), 5)
        payee.charge(5)
        payee.record(Line(sequence, str(sequence), 5))
    for expected in (15, 30, 40):
        _settle(payee, payer)
        assert payee.paid == expected
    assert not payee.lines


def test_a_refused_statement_leaves_the_book_as_it_was() -> None:
    payer = PayerBook(1000)
    payer.place("a", 5)
    with pytest.raises(PeerError):
        payer.approve(10, (Line(0, "a", 5), Line(1, "b", 5)), recall=0)
    assert (payer.signed, payer.forgiven, payer.placed) == (0, 0, {"a": 5})


def test_a_restarted_payer_pays_what_its_records_know_and_little_else() -> None:
    payer = PayerBook(1000, signed=100)
    known = {"old": 5}
    assert payer.approve(105, (Line(0, "old", 5),), recall=0, earlier=known.get) == 105
    with pytest.raises(PeerError):
        payer.approve(111, (Line(1, "old", 6),), recall=0, earlier=known.get)
    assert payer.approve(108, (Line(2, "lost", 3),), recall=3, earlier=known.get) == 108
    with pytest.raises(PeerError):
        payer.approve(109, (Line(3, "lost too", 1),), recall=3, earlier=known.get)


def test_a_run_is_paid_once_however_often_a_statement_names_it() -> None:
    payer = PayerBook(1000)
    payer.place("a", 5)
    with pytest.raises(PeerError):
        payer.approve(10, (Line(0, "a", 5), Line(1, "a", 5)), recall=0)
