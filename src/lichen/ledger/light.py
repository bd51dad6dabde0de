"""A light client: entries of the state from whoever has them, believed for their proof alone.

It trusts the genesis and nothing else. An answer carries a block's header, the signature of the
sequencer that the genesis names, and the Merkle proof of one entry under the header's state root:

    genesis -> network id, sequencer's key -> header -> state root -> entry

What it cannot know is whether there are newer blocks: an answer is as old as it says. It never goes
back behind a block that it has seen, and notices a sequencer that signs two blocks of one height.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from lichen.encoding import from_canonical
from lichen.errors import PeerError, UserError, VerificationError
from lichen.ledger import tables
from lichen.ledger.blocks import Header, block_hash
from lichen.ledger.state import State
from lichen.ledger.store import MemoryStore
from lichen.ledger.tree import DEPTH_MAX, HASH_BYTES, Proof, verify_proof
from lichen.ledger.types import Account, network_id
from lichen.units import Amount

if TYPE_CHECKING:
    from lichen.identity import Address
    from lichen.ledger.results import ProofAnswer
    from lichen.ledger.tables import Table
    from lichen.ledger.types import App, Channel, EpochRecord, Genesis, Node, Release, Settlements

T = TypeVar("T")

HEADER_BYTES_MAX = 256
VALUE_BYTES_MAX = 4 << 20
PROOF_BYTES_MAX = 2 * (VALUE_BYTES_MAX + 64 * 1024)  # a whole answer as JSON
_SIGNATURE_BYTES_MAX = 65
_NUMBER_MAX = 2**64 - 1
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_NEVER = Account(0, Amount(0))


class Entry(msgspec.Struct, frozen=True):
    """What was proved: under `key` the state after block `height` has `value` (None: nothing).

    `time_ms` is the block's, by the sequencer's clock; `block` its hash (at height 0 the network's
    id); `siblings` says how long the proof was.
    """

    key: bytes
    value: bytes | None
    height: int
    time_ms: int
    state_root: bytes
    block: bytes
    siblings: int


class Seen(msgspec.Struct, Generic[T], frozen=True):
    """A record (None: absent), and the block after which it stood so."""

    record: T | None
    height: int
    time_ms: int


class ProofSource(Protocol):
    """Whoever answers with proofs, trusted with nothing; `LedgerClient` is one."""

    async def prove(self, key: bytes) -> ProofAnswer:
        """Return the entry under a key with its proof."""
        ...


class Verifier:
    """Checks answers against a genesis. Pure."""

    def __init__(self, genesis: Genesis) -> None:
        """Take the genesis that is trusted; UserError when it names no sequencer."""
        if genesis.sequencer is None:
            raise UserError(
                "this network has no sequencer, whose signature a light client could check",
                hint="follow it: a follower replays every block",
            )
        self.network = network_id(genesis)
        self._sequencer = genesis.sequencer
        self._genesis = genesis
        self._first: tuple[bytes, bytes] | None = None

    def check(self, key: bytes, answer: ProofAnswer) -> Entry:
        """Return what `answer` proves about `key`; raise VerificationError when it does not."""
        _require(answer.network in ("", self.network.hex()), "it is of another network")
        _require(answer.key in ("", key.hex()), "it is about another key")
        value = None if answer.value is None else _bytes(answer.value, VALUE_BYTES_MAX, "value")
        _require(len(answer.siblings) <= DEPTH_MAX, "the proof is too long")
        siblings = tuple(_bytes(one, HASH_BYTES, "siblings") for one in answer.siblings)
        proof = Proof(siblings, _bytes(answer.other, 2 * HASH_BYTES, "other"))
        height, time_ms, root, block = self._anchor(answer)
        _require(answer.height == height, "its height is not the header's")
        _require(answer.state_root == root.hex(), "its state root is not the header's")
        _require(verify_proof(root, key, value, proof), "the Merkle proof does not hold")
        return Entry(key, value, height, time_ms, root, block, len(siblings))

    def header(self, data: bytes, signature: bytes) -> Header:
        """Return the header of a block that the sequencer signed; else VerificationError."""
        header = read_header(data)
        signed = self._sequencer.verify(block_hash(self.network, header), signature)
        _require(signed, "the network's sequencer did not sign the header")
        return header

    def _anchor(self, answer: ProofAnswer) -> tuple[int, int, bytes, bytes]:
        """Return height, time, state root and hash of the block that the answer stands on."""
        if not answer.header and answer.height == 0:  # what follows from the genesis alone
            if self._first is None:
                head = State(MemoryStore(), self._genesis).head
                self._first = head.state_root, head.hash
            return (0, self._genesis.time_ms, *self._first)
        data = _bytes(answer.header, HEADER_BYTES_MAX, "header")
        signature = _bytes(answer.signature, _SIGNATURE_BYTES_MAX, "signature")
        header = self.header(data, signature)
        block = block_hash(self.network, header)
        return header.height, header.time_ms, header.state_root, block


class LightClient:
    """Reads entries of one network from a source that is not trusted."""

    def __init__(self, genesis: Genesis, source: ProofSource) -> None:
        """Take the genesis that is trusted, and who to ask; UserError as `Verifier`."""
        self._verifier = Verifier(genesis)
        self._source = source
        self._newest: Entry | None = None

    @property
    def height(self) -> int:
        """The height of the newest block that was seen; 0 before the first answer."""
        return 0 if self._newest is None else self._newest.height

    async def entry(self, key: bytes) -> Entry:
        """Return what stands under a key of the state (see `tables`, `keyspec`).

        Raises VerificationError when the answer proves nothing or the sequencer signed two blocks
        of one height, PeerError when it is older than what was seen before.
        """
        entry = self._verifier.check(key, await self._source.prove(key))
        newest = self._newest
        if newest is not None and entry.height < newest.height:
            raise PeerError(
                f"the answer is of block {entry.height}, and block {newest.height} was seen before",
                hint="ask again, or somebody who is not behind",
            )
        if newest is not None and entry.height == newest.height and entry.block != newest.block:
            raise VerificationError(
                f"the sequencer signed two blocks of height {entry.height}",
                hint="keep both answers: they prove it; trust this network no further",
            )
        self._newest = entry
        return entry

    async def read(self, table: Table[T], id_: bytes) -> Seen[T]:
        """Return the record of a table; errors as `entry`."""
        entry = await self.entry(table.prefix + id_)
        return Seen(record_of(entry, table.kind), entry.height, entry.time_ms)

    async def account(self, address: Address) -> Seen[Account]:
        """Return an account; one that never was is empty, with nonce 0."""
        seen = await self.read(tables.ACCOUNTS, address)
        return seen if seen.record else Seen(_NEVER, seen.height, seen.time_ms)

    async def node(self, address: Address) -> Seen[Node]:
        """Return a registered node."""
        return await self.read(tables.NODES, address)

    async def app(self, name: str) -> Seen[App]:
        """Return an app."""
        return await self.read(tables.APPS, name.encode())

    async def release(self, app: str, number: int) -> Seen[Release]:
        """Return a release of an app."""
        return await self.read(tables.RELEASES, tables.release_id(app, number))

    async def channel(self, channel: bytes) -> Seen[Channel]:
        """Return a channel; one that is finalized is absent."""
        return await self.read(tables.CHANNELS, channel)

    async def epoch(self, node: Address, epoch: int, sequence: int = 0) -> Seen[EpochRecord]:
        """Return a settled batch of a node's receipts."""
        return await self.read(tables.EPOCHS, tables.epoch_id(node, epoch, sequence))

    async def settlements(self, node: Address) -> Seen[Settlements]:
        """Return where a node's settling stands."""
        return await self.read(tables.SETTLEMENTS, node)


def read_header(data: bytes) -> Header:
    """Read a header's canonical bytes, as strictly as contracts do; else VerificationError."""
    _require(len(data) <= HEADER_BYTES_MAX, "the header is too long")
    try:
        header = from_canonical(data, Header)
    except UserError as error:
        raise VerificationError(f"the header is not a block's: {error}") from error
    numbers = header.height, header.time_ms, header.transactions
    _require(all(0 <= number <= _NUMBER_MAX for number in numbers), "a number is out of range")
    _require(header.height > 0, "the header's height is 0, which is the genesis's")
    hashes = header.previous, header.transactions_hash, header.state_root
    _require(all(len(one) == HASH_BYTES for one in hashes), "a hash has a wrong length")
    return header


def record_of(entry: Entry, kind: type[T]) -> T | None:
    """Return an entry's record, None when it is absent."""
    if entry.value is None:
        return None
    try:
        return from_canonical(entry.value, kind)
    except UserError as error:
        raise VerificationError(
            f"the entry holds, but is unknown to this version: {error}", hint="update lichen"
        ) from error


def _bytes(text: str, size_max: int, field: str) -> bytes:
    _require(len(text) <= 2 * size_max, f"{field} is too long")
    _require(_HEX.fullmatch(text) is not None, f"{field} is not lower-case hexadecimal")
    return bytes.fromhex(text)


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise VerificationError(
            f"the proof does not hold: {why}", hint="ask another ledger, gateway or node"
        )
