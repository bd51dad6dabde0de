"""The two books of a payment channel: what a node is owed, and what a payer has signed for.

Both are plain state without I/O. Work runs on credit: the node starts a run while less than
`credit` is unpaid, then asks for a voucher; the payer signs a cumulative amount that covers exactly
the runs it placed, each at most at its ceiling. So the node can lose `credit` and the runs in
flight, the payer nothing beyond what it agreed to per run.
"""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING

import msgspec

from lichen.errors import PaymentRequiredError, PeerError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

STATEMENT_RUNS_MAX = 10_000
PLACED_MAX = 100_000


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One run on a statement: the receipt's sequence number, the run, and its amount."""

    sequence: int
    run: str
    amount: int


class PayeeBook:
    """What one channel owes this node. Amounts are cumulative since the channel opened.

    `owed` counts every finished run, `durable` those whose receipts are on disk, `paid` is the
    latest voucher. `acknowledged` is the sequence of the last receipt that a voucher covered.
    """

    def __init__(
        self, deposit: int, *, owed: int = 0, paid: int = 0, acknowledged: int = -1
    ) -> None:
        self.deposit = deposit
        self.owed = owed
        self.durable = owed
        self.paid = paid
        self.acknowledged = acknowledged
        self.held = 0  # the ceilings of the runs in flight
        self.lines: collections.deque[Line] = collections.deque()

    @property
    def unpaid(self) -> int:
        """What the node would lose if the payer left now."""
        return self.owed - self.paid

    def admit(self, ceiling: int, credit: int) -> None:
        """Raise PaymentRequiredError when a run up to `ceiling` may not start."""
        if self.owed - self.paid >= credit:
            raise PaymentRequiredError(
                f"{self.owed - self.paid} is unpaid, the credit is {credit}",
                hint="send a voucher for the channel's statement, then repeat the request",
            )
        if self.owed + self.held + ceiling > self.deposit:
            raise PaymentRequiredError(
                "the channel's deposit does not cover another run",
                hint="top the channel up by `lichen deploy` or a TopUpChannel transaction",
            )

    def begin(self, ceiling: int) -> None:
        """Set aside what a run that starts now may cost."""
        self.held += ceiling

    def charge(self, amount: int, ceiling: int = 0) -> None:
        """Count a finished run; `ceiling` was set aside for it."""
        self.owed += amount
        self.held -= ceiling

    def record(self, line: Line) -> None:
        """Put a run whose receipt is on disk on the next statement."""
        self.durable += line.amount
        self.lines.append(line)

    def statement(self) -> tuple[int, tuple[Line, ...]]:
        """Return the oldest unpaid runs, at most STATEMENT_RUNS_MAX, and the total up to them."""
        settled = self.durable - sum(line.amount for line in self.lines)
        lines = tuple(itertools.islice(self.lines, STATEMENT_RUNS_MAX))
        return settled + sum(line.amount for line in lines), lines

    def accept(self, cumulative: int) -> None:
        """Take a verified voucher; raise VerificationError when it does not raise the sum."""
        if cumulative <= self.paid:
            raise VerificationError(
                f"the voucher's {cumulative} is not above the {self.paid} already paid",
                hint="vouchers are cumulative: sign the new total",
            )
        if cumulative > self.deposit:
            raise VerificationError("the voucher is above the channel's deposit")
        self.paid = cumulative
        settled = self.durable - sum(line.amount for line in self.lines)
        while self.lines and settled + self.lines[0].amount <= cumulative:
            line = self.lines.popleft()
            settled += line.amount
            self.acknowledged = line.sequence


class PayerBook:
    """What a payer has signed on one channel, and the runs that it has placed and not yet paid.

    `placed` maps a run to its ceiling; the oldest beyond PLACED_MAX, which a node never billed, are
    forgotten.
    """

    def __init__(self, deposit: int, *, signed: int = 0, redeemed: int = 0) -> None:
        self.deposit = deposit
        self.signed = max(signed, redeemed)
        self.placed: dict[str, int] = {}
        self.forgiven = 0

    def place(self, run: str, ceiling: int) -> None:
        """Remember a run that was sent to the node."""
        if len(self.placed) >= PLACED_MAX:
            del self.placed[next(iter(self.placed))]
        self.placed[run] = ceiling

    def approve(
        self,
        owed: int,
        lines: tuple[Line, ...],
        recall: int,
        earlier: Callable[[str], int | None] = lambda _: None,
    ) -> int:
        """Return the cumulative amount to sign for a statement that asks for `owed` in total.

        Runs placed before this payer last restarted are not in the book: `earlier` looks the
        ceiling of one up in what is on disk, and up to `recall` may be paid for those that a crash
        took from there too. Raises PeerError, and leaves the book as it was, when the node bills
        what was never placed, twice, or above a ceiling.
        """
        total, forgiven, billed = 0, self.forgiven, set[str]()
        for line in lines:
            if line.amount < 0:
                raise PeerError(f"the node bills {line.amount} for run {line.run[:80]!r}")
            ceiling = None
            if line.run not in billed:
                ceiling = self.placed.get(line.run)
                ceiling = earlier(line.run) if ceiling is None else ceiling
            billed.add(line.run)
            if ceiling is None:
                forgiven += line.amount
                if forgiven > recall:
                    raise PeerError(
                        f"the node bills run {line.run}, which was never placed with it",
                        hint="the node is no longer used; its vouchers stay as they are",
                    )
            elif line.amount > ceiling:
                raise PeerError(f"the node bills {line.amount} for run {line.run}, over {ceiling}")
            total += line.amount
        if owed != self.signed + total:
            raise PeerError(
                f"the node claims {owed} in total, the statement comes to {self.signed + total}"
            )
        if owed > self.deposit:
            raise PeerError("the node bills more than the channel's deposit")
        for run in billed:
            self.placed.pop(run, None)
        self.signed, self.forgiven = owed, forgiven
        return owed
