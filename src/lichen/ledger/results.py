"""What the ledger answers to a transaction, the same in the process and over HTTP."""

from __future__ import annotations

import msgspec

from lichen.errors import LedgerError
from lichen.ledger.errors import BY_CODE
from lichen.ledger.tree import Proof


class Refusal(msgspec.Struct, frozen=True):
    """Why a transaction was refused: a stable code, what happened, and what to do."""

    code: str
    what: str
    hint: str = ""

    @classmethod
    def of(cls, error: LedgerError) -> Refusal:
        """Describe an error."""
        return cls(error.code, error.what, error.hint)

    def error(self) -> LedgerError:
        """Return the typed error again."""
        return BY_CODE.get(self.code, LedgerError)(self.what, hint=self.hint)


class Result(msgspec.Struct, frozen=True):
    """A transaction's id in hex and the height of the block it stands in, or its refusal.

    A transaction that was accepted before gives the height it stands at: to send one again is safe.
    """

    id: str
    height: int | None = None
    error: Refusal | None = None

    def accepted(self) -> int:
        """Return the height; raise the typed error when the transaction was refused."""
        if self.error is not None:
            raise self.error.error()
        if self.height is None:
            raise LedgerError("the ledger gave no height", hint="ask it for the transaction")
        return self.height


class Status(msgspec.Struct, frozen=True):
    """Where a ledger stands. Hashes are in hex."""

    network: str
    height: int
    time_ms: int
    state_root: str
    block_hash: str
    queued: int = 0


class ProofAnswer(msgspec.Struct, frozen=True):
    """An entry of the state (`value` None: absent) with its proof, all in lower-case hex.

    `header` is the canonical header of the block that the state came after, `signature` the
    sequencer's, of the block's hash; both are empty at height 0. `lichen.ledger.light` checks it.
    """

    height: int
    state_root: str
    value: str | None
    siblings: tuple[str, ...]
    other: str
    network: str = ""
    key: str = ""
    header: str = ""
    signature: str = ""

    def proof(self) -> Proof:
        """Return the proof; ValueError where something is not hex."""
        return Proof(tuple(map(bytes.fromhex, self.siblings)), bytes.fromhex(self.other))
