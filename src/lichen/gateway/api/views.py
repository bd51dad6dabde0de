"""What the API answers: frozen structs that the gateway encodes and the client library decodes.

Amounts are decimal strings of 10^-18 FLK, times `_ms` since 1970, hashes lower-case hex, keys and
addresses their canonical text. Ledger records appear as the ledger defines them wherever they hold
no raw bytes.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from lichen.content.cid import CID
from lichen.identity import Address, Digest
from lichen.ledger.results import Result
from lichen.ledger.types import App, FunctionSpec, Genesis, Node, Prices, Release
from lichen.units import Amount

T = TypeVar("T")


class View(msgspec.Struct, frozen=True):
    """Base of all answers; a client ignores fields that it does not know."""


class Page(View, Generic[T], frozen=True):
    """A part of a list. `cursor` asks for the next part and is None at the end."""

    items: tuple[T, ...]
    cursor: str | None = None


class Status(View, frozen=True):
    """Where the gateway stands: its view of the ledger, and how much there is."""

    network: Digest
    name: str
    version: str
    gateway: Address
    height: int
    time_ms: int
    state_root: Digest
    nodes_active: int


class Network(View, frozen=True):
    """The network's id, which is the hash of its genesis, and the genesis itself."""

    id: Digest
    genesis: Genesis


class AccountView(View, frozen=True):
    """An account; one that never was has nothing."""

    address: Address
    balance: Amount
    nonce: int


class Nonce(View, frozen=True):
    """The nonce that the account's next transaction has to carry."""

    nonce: int


class HistoryEntry(View, frozen=True):
    """One transaction that moved an account's balance by `change` (which may be negative)."""

    id: Digest
    height: int
    time_ms: int
    kind: str
    signer: Address
    change: str
    balance: Amount


class ChannelView(View, frozen=True):
    """A payment channel; `redeemed` of the `deposit` has gone to the payee."""

    id: Digest
    payer: Address
    payee: Address
    signer: Address
    opener: Address
    app: str
    deposit: Amount
    redeemed: Amount
    status: str
    closes_ms: int


class TransactionView(View, frozen=True):
    """A transaction of a block. `body` is as it was signed, with bytes as hex."""

    id: Digest
    signer: Address
    nonce: int
    body: dict[str, Any]


class BlockView(View, frozen=True):
    """A block of the ledger and the state root after it."""

    height: int
    hash: Digest
    time_ms: int
    state_root: Digest
    transactions: tuple[TransactionView, ...]


class TransactionResults(View, frozen=True):
    """One result per submitted transaction, in their order, as the ledger gave them."""

    results: tuple[Result, ...]


class AppView(View, frozen=True):
    """An app with the release that serves it now, if there is one, and its path here."""

    app: App
    release: Release | None
    path: str


class FunctionView(View, frozen=True):
    """A function of an app's active release. `id` is `app/release/name`."""

    id: str
    owner: Address
    app: str
    release: int
    spec: FunctionSpec


class NodeView(View, frozen=True):
    """A registered node, and how this gateway finds it."""

    node: Node
    reachable: bool
    in_flight: int
    latency_ms: int
    failures: int


class NodeOffer(View, frozen=True):
    """What a node charges, for comparing."""

    address: Address
    prices: Prices
    tiers: tuple[str, ...]
    stake: Amount


class PriceRange(View, frozen=True):
    """The lowest, median and highest price of the active nodes for one unit."""

    unit: str
    lowest: Amount
    median: Amount
    highest: Amount


class MarketPrices(View, frozen=True):
    """The open market's prices per unit; `nodes` offers were counted."""

    nodes: int
    prices: tuple[PriceRange, ...]


class NodeQuote(View, frozen=True):
    """What one node would charge for a run, typically and at the very most; its latency so far."""

    node: Address
    typical: Amount
    ceiling: Amount
    latency_ms: int


class FunctionQuote(View, frozen=True):
    """What a run of a function costs before it runs; `refused` says why nodes are left out."""

    function: str
    verify: str
    nodes: tuple[NodeQuote, ...]
    refused: str


class Attempt(View, frozen=True):
    """One node that was tried: what came of it, and after how many microseconds."""

    node: str
    outcome: str
    after_us: int


class RunView(View, frozen=True):
    """A run as this gateway saw it.

    `status` is the HTTP status answered (0: the caller went away first); `amount` is what was
    finally paid, None until the node has billed it.
    """

    run: str
    function: str
    method: str
    target: str
    started_ms: int
    ceiling: Amount
    node: str
    status: int
    wall_us: int
    error: str
    attempts: tuple[Attempt, ...]
    refusals: str
    amount: Amount | None


class Why(View, frozen=True):
    """A run and its story, one sentence per step."""

    run: RunView
    story: tuple[str, ...]


class Uploaded(View, frozen=True):
    """The roots of the CAR that was stored, and the bytes of the CAR.

    Roots are pinned for the account; those that are `incomplete`, because blocks below them are
    missing, for a day only.
    """

    roots: tuple[CID, ...]
    bytes: int
    incomplete: tuple[CID, ...] = ()


class ContentView(View, frozen=True):
    """A block that this gateway's store holds, and whether anybody pins it there."""

    cid: CID
    bytes: int
    codec: str
    pinned: bool = False


class Missing(View, frozen=True):
    """Which of the blocks asked for this gateway's store lacks."""

    cids: tuple[CID, ...]


class PinView(View, frozen=True):
    """An account's pin: what it weighs (64 bytes for each block beside its own), and until when.

    `expires_ms` is null for as long as wanted. While blocks are `missing` (up to 1000 are named)
    nothing was pinned.
    """

    cid: CID
    bytes: int
    added_ms: int
    expires_ms: int | None = None
    missing: tuple[CID, ...] = ()


class PinPage(View, frozen=True):
    """A part of an account's pins, and what all of them weigh and may weigh together."""

    items: tuple[PinView, ...]
    cursor: str | None
    pinned_bytes: int
    pinned_bytes_max: int


class NameView(View, frozen=True):
    """What a mutable name stands for now: a path of content, which may be believed for `ttl_s`."""

    name: str
    path: str
    ttl_s: int


class EpochView(View, frozen=True):
    """A settled batch of a node's receipts, as on the ledger."""

    node: Address
    epoch: int
    sequence: int
    first: int
    receipts: int
    receipts_root: Digest


class LogLine(View, frozen=True):
    """A line that a function wrote, or a notice about the log itself (`level` `notice`)."""

    time_ms: int
    node: str
    function: str
    run: str
    level: str
    text: str


class Event(View, frozen=True):
    """Something that happened: `kind` is block, release, run, runs, missed or closing."""

    kind: str
    time_ms: int
    data: dict[str, Any]


def node_text(node: str) -> str:
    """Spell a node's address as everywhere else; a run that no node took has an empty one."""
    return str(Address.parse(node)) if node else ""
