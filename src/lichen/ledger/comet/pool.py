"""What waits for a block, as seen from here: the state as if all of it had been applied.

CometBFT keeps the transactions; this answers whether one may wait. Each is applied to a draft over
the last block's state, so a refusal has its true reason at once, and an account may have many
transactions waiting. One that came before its predecessor (gossip has no order) is parked: it may
wait without having been applied, for some blocks, as long as it could at least pay its fee.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from lichen.errors import LedgerError
from lichen.ledger.cache import Cache
from lichen.ledger.errors import BadNonceError, BadTransactionError, OverdraftError
from lichen.ledger.machine import Outcome, apply_transaction
from lichen.ledger.transactions import Received, decode_transaction

if TYPE_CHECKING:
    from lichen.identity import Address
    from lichen.ledger.state import Draft, State

NONCES_AHEAD_MAX = 64
PARKED_BLOCKS_MAX = 16
PARKED_MAX = 4096
VERIFIED_MAX = 32_768

log = structlog.get_logger()


class Signatures:
    """Transactions whose signature was found to hold: each is looked at once per process."""

    def __init__(self) -> None:
        self._held: Cache[bytes, Received] = Cache(VERIFIED_MAX)

    def read(self, raw: bytes) -> tuple[Received, bool]:
        """Decode and verify; raise BadTransactionError for what is no transaction."""
        received = self._held.get(raw)
        if received is not None:
            return received, True
        received = decode_transaction(raw)
        holds = received.signature_holds()
        if holds:  # what does not hold is not kept: junk would push out the rest
            self._held.put(raw, received)
        return received, holds


def apply_raw(draft: Draft, signatures: Signatures, raw: bytes) -> Outcome:
    """Apply a transaction's bytes to a draft, or refuse them and leave the draft as it was."""
    try:
        received, holds = signatures.read(raw)
    except LedgerError as error:
        return Outcome(b"", error)
    return apply_transaction(draft, received, signature_holds=holds)


def try_raw(draft: Draft, signatures: Signatures, raw: bytes) -> Outcome:
    """Apply as above, and refuse what our own rules fail on: nobody may stop us by that."""
    try:
        return apply_raw(draft, signatures, raw)
    except Exception:
        draft.refuse()
        log.exception("transaction-failed", bytes=len(raw))
        return Outcome(b"", BadTransactionError("the ledger failed on this transaction"))


class Pool:
    """Decides what may wait for a block."""

    def __init__(self, state: State, signatures: Signatures) -> None:
        self._signatures = signatures
        self._parked: dict[bytes, int] = {}
        self._parked_before: dict[bytes, int] = {}
        self.reset(state, state.head.time_ms)

    def reset(self, state: State, time_ms: int) -> None:
        """Begin anew over the state of a new block; what still waits is checked again."""
        self._draft = state.draft(max(time_ms, state.head.time_ms))
        self._waiting: set[bytes] = set()
        self._parked, self._parked_before = {}, self._parked

    def next_nonce(self, address: Address) -> int:
        """Return the nonce behind an account's transactions, the waiting ones included."""
        return self._draft.account(address).nonce

    def check(self, raw: bytes, *, again: bool, local: set[bytes]) -> Outcome:
        """Tell whether a transaction may wait (again: still); the outcome has its refusal.

        For the ids in `local` somebody waits here: he is told of a gap at once, nothing is parked.
        """
        try:
            received, holds = self._signatures.read(raw)
        except LedgerError as error:
            return Outcome(b"", error)
        if received.id in self._waiting:
            return Outcome(received.id, None)
        ahead = received.signed.nonce - self.next_nonce(received.signed.signer.address)
        foreign = received.signed.network != self._draft.network or not holds
        may_park = again or received.id not in local
        if may_park and not foreign and 0 < ahead <= NONCES_AHEAD_MAX:
            return Outcome(received.id, self._park(received, again=again))
        outcome = try_raw(self._draft, self._signatures, raw)
        if outcome.error is None:
            self._waiting.add(outcome.id)
        return outcome

    def _park(self, received: Received, *, again: bool) -> LedgerError | None:
        blocks = self._parked_before.get(received.id, 0) + again
        account = self._draft.account(received.signed.signer.address)
        if blocks > PARKED_BLOCKS_MAX:
            return BadNonceError(
                f"the transactions before nonce {received.signed.nonce} did not come",
                hint="send them first",
            )
        if account.balance < self._draft.params.transaction_fee:
            return OverdraftError("the account cannot pay the fee", hint="send FLK to it first")
        if len(self._parked) >= PARKED_MAX and received.id not in self._parked:
            return BadNonceError(
                f"the next nonce is {account.nonce}", hint="send what comes before it first"
            )
        self._parked[received.id] = blocks
        return None


class Proposal:
    """Transactions for a block, applied one after the other to a draft."""

    def __init__(self, state: State, signatures: Signatures, time_ms: int) -> None:
        self.draft = state.draft(max(time_ms, state.head.time_ms))
        self.raws: list[bytes] = []
        self.accepted: list[Outcome] = []
        self._signatures = signatures

    def add(self, raw: bytes) -> Outcome:
        """Apply a transaction; a refused one leaves no trace."""
        return self._keep(raw, apply_raw(self.draft, self._signatures, raw))

    def try_add(self, raw: bytes) -> Outcome:
        """Apply a transaction that nobody has decided on; what our rules fail on is refused."""
        return self._keep(raw, try_raw(self.draft, self._signatures, raw))

    def _keep(self, raw: bytes, outcome: Outcome) -> Outcome:
        if outcome.error is None:
            self.raws.append(raw)
            self.accepted.append(outcome)
        return outcome
