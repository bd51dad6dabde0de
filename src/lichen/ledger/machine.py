"""The state machine: one transaction, one block.

A refused transaction leaves no trace: no fee, no nonce, no entry. The embedded engine does not put
it into a block at all, so spam costs us a look and its sender the refusal. A block that holds one
all the same (an engine that orders before it executes, such as CometBFT, may do that) stays valid:
the transaction has no effect there either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.errors import CorruptionError, LedgerError, UserError
from lichen.ledger.blocks import Block, Header, block_hash, encode_block, transactions_hash
from lichen.ledger.checks import NONCE_MAX
from lichen.ledger.errors import (
    BadNonceError,
    BadSignatureError,
    BadTransactionError,
    WrongNetworkError,
)
from lichen.ledger.handlers import HANDLERS
from lichen.ledger.handlers.call import Call, credit, debit
from lichen.ledger.history import history_entries
from lichen.ledger.state import Changes, Draft, Movement, State, write_head
from lichen.ledger.tables import ACCOUNTS
from lichen.ledger.transactions import Received, decode_transaction
from lichen.ledger.types import Account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.identity import PrivateKey

_BLOCK = b"b/"


class Outcome(msgspec.Struct, frozen=True):
    """What became of a transaction: refused with `error`, or the balances it moved."""

    id: bytes
    error: LedgerError | None
    movements: tuple[Movement, ...] = ()


class Applied(msgspec.Struct, frozen=True):
    """A block that has been worked out: what became of its transactions, and what to write."""

    block: Block
    outcomes: tuple[Outcome, ...]
    changes: Changes


def apply_transaction(draft: Draft, received: Received, *, signature_holds: bool) -> Outcome:
    """Apply one transaction to the draft, or refuse it and leave the draft as it was."""
    try:
        _apply(draft, received, signature_holds=signature_holds)
    except LedgerError as error:
        draft.refuse()
        return Outcome(received.id, error)
    except UserError as error:
        draft.refuse()
        return Outcome(received.id, BadTransactionError(error.what, hint=error.hint))
    return Outcome(received.id, None, draft.accept())


def apply_block(state: State, block: Block, *, check_signatures: bool = True) -> Applied:
    """Work out the block that follows `state`, which stays as it is until it adopts the changes.

    Raises CorruptionError when the block does not follow, or its header does not hold.
    """
    header = block.header
    _require(header.height == state.head.height + 1, header, "it is not the next one")
    _require(header.previous == state.head.hash, header, "it follows another block")
    _require(header.time_ms >= state.head.time_ms, header, "it goes back in time")
    _require(header.transactions == len(block.transactions), header, "transactions are missing")
    digest = transactions_hash(block.transactions)
    _require(header.transactions_hash == digest, header, "its transactions were changed")
    sequencer = state.genesis.sequencer
    if sequencer is not None and check_signatures:
        signed = sequencer.verify(block_hash(state.network, header), block.signature)
        _require(signed, header, "the network's sequencer did not sign it")
    draft = state.draft(header.time_ms)
    outcomes = [_apply_raw(draft, raw, check=check_signatures) for raw in block.transactions]
    changes = draft.finish()
    _require(header.state_root == changes.head.state_root, header, "its state root is another")
    return _write_block(state, block, outcomes, changes)


def seal(
    state: State,
    draft: Draft,
    accepted: Sequence[bytes],
    outcomes: Sequence[Outcome],
    key: PrivateKey | None = None,
) -> Applied:
    """Make the block of a draft's accepted transactions, signed by the sequencer's key."""
    changes = draft.finish()
    header = Header(
        height=draft.height,
        previous=state.head.hash,
        time_ms=draft.time_ms,
        transactions=len(accepted),
        transactions_hash=transactions_hash(accepted),
        state_root=changes.head.state_root,
    )
    signature = b"" if key is None else key.sign(block_hash(state.network, header))
    return _write_block(state, Block(header, tuple(accepted), signature), outcomes, changes)


def block_key(height: int) -> bytes:
    """Return the key that a block is stored under."""
    return _BLOCK + height.to_bytes(8, "big")


def _write_block(
    state: State, block: Block, outcomes: Sequence[Outcome], changes: Changes
) -> Applied:
    changes = write_head(changes, block_hash(state.network, block.header))
    changes.entries[block_key(block.header.height)] = encode_block(block)
    moved = [(outcome.id, outcome.movements) for outcome in outcomes]
    header = block.header
    history = history_entries(state.genesis, header.height, header.time_ms, moved)
    changes.entries.update(history)
    return Applied(block, tuple(outcomes), changes)


def _apply_raw(draft: Draft, raw: bytes, *, check: bool) -> Outcome:
    try:
        received = decode_transaction(raw)
    except LedgerError as error:
        return Outcome(b"", error)
    holds = not check or received.signature_holds()
    return apply_transaction(draft, received, signature_holds=holds)


def _apply(draft: Draft, received: Received, *, signature_holds: bool) -> None:
    signed = received.signed
    if signed.network != draft.network:
        raise WrongNetworkError(
            "the transaction is for another network",
            hint=f"sign it for {draft.network.hex()}",
        )
    if not signature_holds:
        raise BadSignatureError("the signature does not hold", hint="sign the transaction again")
    call = Call(signed.signer, signed.signer.address, signed.nonce)
    expected = draft.account(call.address).nonce
    if signed.nonce != expected or signed.nonce > NONCE_MAX:
        raise BadNonceError(
            f"the nonce is {signed.nonce}, the next one of {call.address} is {expected}",
            hint="sign the transaction again with that nonce",
        )
    HANDLERS[type(signed.body)](draft, call, signed.body)
    _charge(draft, call)


def _charge(draft: Draft, call: Call) -> None:
    """Take the fee, last, so that a node can pay it from what it redeems; move the nonce."""
    fee = draft.params.transaction_fee
    debit(draft, call.address, fee, "transaction fee")
    account = draft.account(call.address)
    draft.write(ACCOUNTS, call.address, Account(account.nonce + 1, account.balance))
    credit(draft, draft.params.treasury, fee)


def _require(holds: bool, header: Header, why: str) -> None:
    if not holds:
        raise CorruptionError(
            f"block {header.height} is not valid: {why}",
            hint="this ledger cannot be trusted, or its data is damaged; compare it with another",
        )
