"""A ledger in memory whose clock only moves when told to: for tests of whatever needs one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lichen.identity import KeyKind, PrivateKey
from lichen.ledger.machine import Applied, Outcome, apply_block, apply_transaction, seal
from lichen.ledger.state import State
from lichen.ledger.store import MemoryStore
from lichen.ledger.tables import CHANNELS
from lichen.ledger.transactions import (
    SignedTransaction,
    Transaction,
    decode_transaction,
    encode_transaction,
    sign_transaction,
)
from lichen.ledger.types import Genesis, GenesisAccount, Params
from lichen.ledger.views import View
from lichen.units import FLK, Amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import Received

GENESIS_MS = 1_700_000_000_000


def key_of(name: str, kind: KeyKind = KeyKind.SECP256K1) -> PrivateKey:
    """Return the test key of a name: the same name gives the same key everywhere."""
    return PrivateKey(kind, hashlib.sha256(b"lichen test key " + name.encode()).digest())


def genesis_of(*names: str, balance: int = 1000 * FLK, **params: int) -> Genesis:
    """Return a genesis that gives each name's key a balance; `params` override the defaults."""
    values = {
        "transaction_fee": 10**14,
        "settlement_fee_bps": 200,
        "stake_min": 10 * FLK,
        "challenge_ms": 60_000,
        "unbond_ms": 600_000,
        "epoch_ms": 10_000,
    } | params
    rules = Params(
        transaction_fee=Amount(values["transaction_fee"]),
        settlement_fee_bps=values["settlement_fee_bps"],
        stake_min=Amount(values["stake_min"]),
        challenge_ms=values["challenge_ms"],
        unbond_ms=values["unbond_ms"],
        epoch_ms=values["epoch_ms"],
        treasury=key_of("treasury").address,
    )
    accounts = tuple(GenesisAccount(key_of(name).address, Amount(balance)) for name in names)
    return Genesis("test", GENESIS_MS, rules, accounts)


class MemoryLedger:
    """Applies each transaction as a block of its own; `view` reads the state.

    `sequencer` signs the blocks, where the genesis names one.
    """

    def __init__(self, genesis: Genesis, sequencer: PrivateKey | None = None) -> None:
        self.genesis = genesis
        self._sequencer = sequencer
        self.state = State(MemoryStore(), genesis)
        self.view = View(self.state)
        self.network = self.state.network
        self.time_ms = genesis.time_ms

    def advance(self, ms: int) -> None:
        """Move the clock on."""
        self.time_ms += ms

    def sign(self, key: PrivateKey, body: Transaction) -> SignedTransaction:
        """Sign a transaction with the account's next nonce."""
        nonce = self.view.account(key.address).nonce
        return sign_transaction(self.network, key, nonce, body)

    def submit(self, key: PrivateKey, body: Transaction) -> Outcome:
        """Sign and apply; raise the refusal."""
        return self.apply(encode_transaction(self.sign(key, body)))

    def apply(self, raw: bytes) -> Outcome:
        """Apply an encoded transaction; raise the refusal."""
        (outcome,) = self.block([raw])
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def block(self, raws: Sequence[bytes]) -> list[Outcome]:
        """Make one block of those among the encoded transactions that are not refused."""
        draft = self.state.draft(self.time_ms)
        outcomes = [_apply(draft, decode_transaction(raw)) for raw in raws]
        kept = [(raw, o) for raw, o in zip(raws, outcomes, strict=True) if o.error is None]
        if kept:
            raws, moved = [raw for raw, _ in kept], [outcome for _, outcome in kept]
            applied = seal(self.state, draft, raws, moved, self._sequencer)
            self.adopt(applied)
        return outcomes

    def replayed(self) -> State:
        """Return a fresh state that the same blocks lead to."""
        state = State(MemoryStore(), self.genesis)
        for height in range(1, self.state.head.height + 1):
            block = self.view.block(height)
            if block is None:
                raise LookupError(f"block {height} is missing")
            applied = apply_block(state, block)
            state.store.write(applied.changes.entries)
            state.adopt(applied.changes)
        return state

    def money(self) -> int:
        """Return all there is: balances, stakes, and what is left in channels."""
        balances = sum(account.balance for _, account in self.view.accounts())
        stakes = sum(node.stake for node in self.view.nodes())
        channels = self.state.scan(CHANNELS)
        return balances + stakes + sum(c.deposit - c.redeemed for c in channels)

    def adopt(self, applied: Applied) -> None:
        """Write a block that was worked out, and move on to it."""
        self.state.store.write(applied.changes.entries)
        self.state.adopt(applied.changes)


def _apply(draft: Draft, received: Received) -> Outcome:
    return apply_transaction(draft, received, signature_holds=received.signature_holds())
