"""Who asks, and the two ways money moves inside a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.identity import Address, PublicKey
from lichen.ledger.errors import OverdraftError
from lichen.ledger.tables import ACCOUNTS
from lichen.ledger.types import Account
from lichen.units import Amount, format_flk

if TYPE_CHECKING:
    from lichen.ledger.state import Draft


class Call(msgspec.Struct, frozen=True):
    """A transaction's signer, as key and as address, and its nonce."""

    key: PublicKey
    address: Address
    nonce: int


def debit(draft: Draft, address: Address, amount: int, purpose: str) -> None:
    """Take `amount` from an account; raise OverdraftError when it is not there."""
    account = draft.account(address)
    if account.balance < amount:
        raise OverdraftError(
            f"{address} holds {format_flk(account.balance)} FLK, "
            f"the {purpose} takes {format_flk(amount)}",
            hint="send FLK to that account first, or ask for less",
        )
    draft.write(ACCOUNTS, address, Account(account.nonce, Amount(account.balance - amount)))


def credit(draft: Draft, address: Address, amount: int) -> None:
    """Add `amount` to an account."""
    if amount:
        account = draft.account(address)
        draft.write(ACCOUNTS, address, Account(account.nonce, Amount(account.balance + amount)))
