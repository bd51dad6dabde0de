"""Transfers between accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.ledger.checks import check_positive
from lichen.ledger.handlers.call import credit, debit

if TYPE_CHECKING:
    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import Transfer


def transfer(draft: Draft, call: Call, body: Transfer) -> None:
    """Move FLK from the signer to another account."""
    check_positive(body.amount, "amount")

    debit(draft, call.address, body.amount, "transfer")
    credit(draft, body.to, body.amount)
