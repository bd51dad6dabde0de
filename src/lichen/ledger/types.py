"""What the ledger keeps: frozen records, one per kind of state entry, and the genesis.

Amounts are `Amount` (10^-18 FLK), times milliseconds since 1970, sizes bytes unless the name ends
in another unit. Every record is encoded by `encoding.canonical`, so its bytes are the same on every
machine and its hash can stand in the state tree.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from lichen.content.cid import CID
from lichen.encoding import canonical, sha256
from lichen.errors import UserError
from lichen.identity import Address, KeyKind, PublicKey
from lichen.units import AMOUNT_MAX, Amount

BASIS_POINTS = 10_000
GENESIS_ACCOUNTS_MAX = 100_000
GENESIS_NAME_BYTES_MAX = 64
VALIDATORS_MAX = 128
POWER_MAX = 10**9


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything agreed on: frozen, and an unknown field is an error."""


class Params(Record, frozen=True):
    """The rules that a network fixes at its birth."""

    transaction_fee: Amount
    settlement_fee_bps: int
    stake_min: Amount
    challenge_ms: int
    unbond_ms: int
    epoch_ms: int
    treasury: Address


class GenesisAccount(Record, frozen=True):
    """A balance that exists from the start."""

    address: Address
    balance: Amount


class Validator(Record, frozen=True):
    """Who agrees on the order of transactions, by an ed25519 key, and how much the vote weighs."""

    key: PublicKey
    power: int


class Genesis(Record, frozen=True, omit_defaults=True):
    """The first state of a network; its hash is the network's id.

    `sequencer` is the key that signs every block where one process orders them; without one,
    whoever follows believes the ledger that it asks about the order, and checks all the rest.
    `validators` are those who agree on the order where several do (more than two thirds of their
    power); a network has a sequencer, or validators, or neither.
    """

    name: str
    time_ms: int
    params: Params
    accounts: tuple[GenesisAccount, ...]
    sequencer: PublicKey | None = None
    validators: tuple[Validator, ...] = ()


class Prices(Record, frozen=True):
    """What a node asks: per run, CPU second, GiB-second of memory, GiB out, GiB-month kept."""

    request: Amount
    cpu_s: Amount
    memory_gib_s: Amount
    egress_gib: Amount
    storage_gib_month: Amount


class Capacity(Record, frozen=True):
    """What a node offers: tenants at once, memory for them, bytes of storage."""

    slots: int
    memory_mb: int
    storage_bytes: int


class Account(Record, frozen=True):
    """A balance; `nonce` is the one that the account's next transaction must carry."""

    nonce: int
    balance: Amount


class NodeStatus(StrEnum):
    """A node offers work, or is on its way out with its stake still bound."""

    ACTIVE = "active"
    EXITING = "exiting"


class Node(Record, frozen=True):
    """A registered node. `withdraw_ms` is when the stake may leave, 0 while the node is active."""

    address: Address
    key: PublicKey
    endpoint: str
    capacity: Capacity
    prices: Prices
    tiers: tuple[str, ...]
    stake: Amount
    status: NodeStatus
    registered_ms: int
    withdraw_ms: int


class App(Record, frozen=True):
    """An application: `releases` have been published, `active` serves (0: none yet)."""

    name: str
    owner: Address
    description: str
    created_ms: int
    releases: int
    active: int


class Runtime(StrEnum):
    """How a function runs."""

    JS = "js"
    EXACT = "exact"
    WASM = "wasm"


class FunctionSpec(Record, frozen=True):
    """One function of a release: its code, where it answers and within which limits it runs."""

    name: str
    code: CID
    runtime: Runtime
    routes: tuple[str, ...]
    memory_mb: int
    timeout_ms: int
    verify: str
    max_price: Amount
    min_tier: str
    run_first: bool
    schedule: tuple[str, ...]
    content_bytes: int


class Release(Record, frozen=True):
    """One published version of an app; it never changes."""

    app: str
    number: int
    site: CID | None
    functions: tuple[FunctionSpec, ...]
    manifest: CID | None
    published_ms: int


class Grant(Record, frozen=True):
    """`delegate` may open channels for the owner's app until `expires_ms`.

    `limit` bounds what is out at any moment: deposits of the delegate's channels less what came
    back from them (`spent`). Granting again sets a new limit and keeps `spent`, so to allow X more,
    grant `spent + X`. A revoked grant keeps its record with limit 0.
    """

    owner: Address
    app: str
    delegate: Address
    limit: Amount
    spent: Amount
    expires_ms: int


class ChannelStatus(StrEnum):
    """A channel is open, or closing with its challenge period running; afterwards it is gone."""

    OPEN = "open"
    CLOSING = "closing"


class Channel(Record, frozen=True):
    """Money set aside by `payer` for `payee`; vouchers of `signer` move it.

    `opener` is the payer, or the delegate who opened it under the payer's grant. `closes_ms` is 0
    while the channel is open.
    """

    id: bytes
    payer: Address
    payee: Address
    signer: Address
    opener: Address
    app: str
    deposit: Amount
    redeemed: Amount
    status: ChannelStatus
    closes_ms: int


class EpochRecord(Record, frozen=True):
    """One settled batch of a node's receipts: `receipts` of them from the node's `first` on.

    Records are only ever added: the batches of one epoch are numbered by `sequence` from 0, and
    `first` continues where the node's previous batch, of whichever epoch, ended.
    """

    node: Address
    epoch: int
    sequence: int
    first: int
    receipts: int
    receipts_root: bytes


class Settlements(Record, frozen=True):
    """Where a node's settling stands: its latest epoch, batches in it, receipts in all."""

    epoch: int
    batches: int
    receipts: int


def network_id(genesis: Genesis) -> bytes:
    """Return the network's 32-byte id: the SHA-256 of the canonical genesis."""
    return sha256(canonical(genesis))


def epoch_at(genesis: Genesis, time_ms: int) -> int:
    """Return the number of the epoch that `time_ms` lies in; epoch 0 starts at the genesis."""
    return max(0, time_ms - genesis.time_ms) // genesis.params.epoch_ms


def check_genesis(genesis: Genesis) -> None:
    """Raise UserError when no network can start from `genesis`."""
    params = genesis.params
    _require(0 < len(genesis.name.encode()) <= GENESIS_NAME_BYTES_MAX, "name")
    _require(genesis.time_ms >= 0, "time_ms")
    _require(0 <= params.settlement_fee_bps <= BASIS_POINTS, "params.settlement_fee_bps")
    _require(params.challenge_ms >= 0, "params.challenge_ms")
    _require(params.unbond_ms >= 0, "params.unbond_ms")
    _require(params.epoch_ms > 0, "params.epoch_ms")
    _require(len(genesis.accounts) <= GENESIS_ACCOUNTS_MAX, "accounts: too many")
    addresses = {account.address for account in genesis.accounts}
    _require(len(addresses) == len(genesis.accounts), "accounts: an address stands twice")
    total = sum(account.balance for account in genesis.accounts)
    _require(total <= AMOUNT_MAX, "accounts: the balances add up to more than an amount can hold")
    _check_validators(genesis)


def _check_validators(genesis: Genesis) -> None:
    validators = genesis.validators
    _require(len(validators) <= VALIDATORS_MAX, "validators: too many")
    _require(not validators or genesis.sequencer is None, "validators: there is a sequencer too")
    keys = {validator.key for validator in validators}
    _require(len(keys) == len(validators), "validators: a key stands twice")
    _require(all(key.kind is KeyKind.ED25519 for key in keys), "validators: keys are ed25519")
    powers = [validator.power for validator in validators]
    _require(all(0 < power <= POWER_MAX for power in powers), "validators: power")


def _require(holds: bool, field: str) -> None:
    if not holds:
        raise UserError(f"the genesis is not valid: {field}", hint="mend that field")
