"""The ABCI application: the ledger's state machine, driven by CometBFT. No I/O but the store.

    CheckTx -> PrepareProposal -> ProcessProposal -> (agreement) -> FinalizeBlock -> Commit

A proposal that holds a refused transaction is voted down, so blocks hold accepted ones only and
nobody fills them for free. A CometBFT block with transactions becomes the next block of our own
chain, with CometBFT's time; one without (it makes one after every change, to sign the state)
leaves our chain where it is. So blocks, their hashes and the state are what the embedded engine
would have made of the same transactions, and whoever follows need not know about CometBFT.

The application hash is the hash of our last block, whose header has the state root: the validators
agree on the whole chain of headers. Everything here runs on one thread at a time; `advance` makes
what was committed visible, and has to run on the thread that reads the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lichen import __version__
from lichen.encoding import canonical, from_json
from lichen.errors import CorruptionError, LedgerError, LichenError, UserError
from lichen.ledger.blocks import BLOCK_TRANSACTION_BYTES_MAX, BLOCK_TRANSACTIONS_MAX
from lichen.ledger.comet import messages as m
from lichen.ledger.comet.pool import Pool, Proposal, Signatures
from lichen.ledger.comet.snapshots import Restoring, SnapshotFolder
from lichen.ledger.errors import BadNonceError
from lichen.ledger.history import find_transaction
from lichen.ledger.machine import Applied, Outcome, seal
from lichen.ledger.results import Refusal, Result
from lichen.ledger.state import State
from lichen.ledger.types import Genesis
from lichen.ledger.views import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.identity import Address
    from lichen.ledger.store import Store

HEIGHT_KEY = b"m/comet"
CHAIN_ID_DIGITS = 40  # CometBFT allows 50 letters
RETAINED_BLOCKS = 100_000
REFUSED = 1
UNKNOWN_PATH = 2
_TX_OVERHEAD_BYTES = 6  # tag and length of each transaction in CometBFT's count

Settled = tuple[bytes, Result]


def chain_id(network: bytes) -> str:
    """Return the name that CometBFT signs votes for: it binds them to the network id."""
    return f"lichen-{network.hex()[:CHAIN_ID_DIGITS]}"


class _Worked(msgspec.Struct, frozen=True):
    """A proposal or block that has been worked out, for whoever asks about it again."""

    height: int
    time_ms: int
    txs: tuple[bytes, ...]
    proposal: Proposal
    outcomes: tuple[Outcome, ...]

    def is_of(self, request: m.ProcessProposal | m.FinalizeBlock) -> bool:
        return (self.height, self.time_ms) == (request.height, request.time_ms) and (
            self.txs == request.txs
        )


class _Finalized(msgspec.Struct, frozen=True):
    """A block that was decided, not yet written. `applied` is None where it changes nothing."""

    height: int
    applied: Applied | None


class App:
    """Answers ABCI requests for one ledger's store."""

    def __init__(
        self, store: Store, genesis: Genesis, snapshots: SnapshotFolder, clock_ms: Callable[[], int]
    ) -> None:
        """Go on from what the store has; raise CorruptionError when another engine wrote it."""
        self.store = store
        self.state = State(store, genesis)
        self.local: set[bytes] = set()
        self.height = int.from_bytes(store.get(HEIGHT_KEY) or b"", "big")
        if self.state.head.height and not self.height:
            raise CorruptionError(
                "another engine has ordered this ledger's blocks",
                hint="run it with the engine that it was made with",
            )
        self._clock_ms = clock_ms
        self._snapshots = snapshots
        self._signatures = Signatures()
        self._pool = Pool(self.state, self._signatures)
        self._worked: _Worked | None = None
        self._finalized: _Finalized | None = None
        self._written: _Finalized | None = None
        self._restoring: Restoring | None = None
        self._restored = False
        self._refused: list[Outcome] = []
        self._settled: list[Settled] = []
        self._handlers: dict[type, Callable[[Any], bytes]] = {
            m.Echo: lambda request: m.echo(request.message),
            m.Flush: lambda _: m.flush(),
            m.Info: self._info,
            m.InitChain: self._init_chain,
            m.Query: self._query,
            m.CheckTx: self._check_tx,
            m.Commit: self._commit,
            m.ListSnapshots: self._list_snapshots,
            m.OfferSnapshot: self._offer_snapshot,
            m.LoadSnapshotChunk: self._load_snapshot_chunk,
            m.ApplySnapshotChunk: self._apply_snapshot_chunk,
            m.PrepareProposal: self._prepare_proposal,
            m.ProcessProposal: self._process_proposal,
            m.ExtendVote: lambda _: m.extend_vote(),
            m.VerifyVoteExtension: self._verify_vote_extension,
            m.FinalizeBlock: self._finalize_block,
        }

    def handle(self, request: m.Request) -> bytes:
        """Return the answer to a request. What it raises must stop CometBFT."""
        return self._handlers[type(request)](request)

    def next_nonce(self, address: Address) -> int:
        """Return the nonce behind all of an account's transactions that are known here."""
        return self._pool.next_nonce(address)

    def place(self, identity: bytes) -> int | None:
        """Return the height of the block that holds a transaction, or None."""
        place = find_transaction(self.store, identity)
        return None if place is None else place.height

    def advance(self) -> list[Settled]:
        """Show what has been committed; return the transactions whose fate is known now."""
        if self._restored:
            self._restored = False
            self.store.refresh()
            self.state = State(self.store, self.state.genesis)
            self._pool.reset(self.state, self._clock_ms())
        if self._written is not None:
            finalized, self._written = self._written, None
            self.height = finalized.height
            if finalized.applied is not None:
                self.state.adopt(finalized.applied.changes)
            else:
                self.store.refresh()
            self._snapshots.offer(self.store, self.height, self.state.head.height)
            self._pool.reset(self.state, self._clock_ms())
        settled, self._settled = self._settled, []
        return settled

    def _info(self, _request: m.Info) -> bytes:
        app_hash = self.state.head.hash if self.height else b""
        return m.info(__version__, self.height, app_hash)

    def _init_chain(self, request: m.InitChain) -> bytes:
        genesis = from_json(request.app_state, Genesis)
        if genesis != self.state.genesis or request.chain_id != chain_id(self.state.network):
            raise UserError("CometBFT was started for another network", hint="see its genesis.json")
        if request.initial_height != 1 or self.height:
            raise UserError("the chain has begun already", hint="restore CometBFT's data folder")
        return m.init_chain(self.state.head.hash, request.validators)

    def _check_tx(self, request: m.CheckTx) -> bytes:
        outcome = self._pool.check(request.tx, again=request.again, local=self.local)
        if outcome.error is None:
            return m.check_tx(0)
        self._settle_refused(outcome.id, outcome.error)
        return m.check_tx(REFUSED, outcome.error.what, outcome.error.code)

    def _prepare_proposal(self, request: m.PrepareProposal) -> bytes:
        proposal = Proposal(self.state, self._signatures, request.time_ms)
        early: dict[tuple[bytes, int], bytes] = {}
        left = min(request.max_bytes, BLOCK_TRANSACTION_BYTES_MAX)
        queue = list(reversed(request.txs))
        while queue and len(proposal.raws) < BLOCK_TRANSACTIONS_MAX:
            raw = queue.pop()
            size = len(raw) + _TX_OVERHEAD_BYTES
            if size > left:
                break
            outcome = proposal.try_add(raw)
            if outcome.error is None:
                left -= size
                signer, nonce = self._place_of(raw)
                successor = early.pop((signer, nonce + 1), None)
                if successor is not None:
                    queue.append(successor)
            elif isinstance(outcome.error, BadNonceError):
                early[self._place_of(raw)] = raw  # its predecessor may stand behind it
        self._worked = _Worked(
            request.height,
            request.time_ms,
            tuple(proposal.raws),
            proposal,
            tuple(proposal.accepted),
        )
        return m.prepare_proposal(proposal.raws)

    def _place_of(self, raw: bytes) -> tuple[bytes, int]:
        signed = self._signatures.read(raw)[0].signed
        return signed.signer.address, signed.nonce

    def _process_proposal(self, request: m.ProcessProposal) -> bytes:
        if self._worked is not None and self._worked.is_of(request):
            return m.process_proposal(accept=True)
        fits = len(request.txs) <= BLOCK_TRANSACTIONS_MAX and (
            sum(map(len, request.txs)) <= BLOCK_TRANSACTION_BYTES_MAX
        )
        if not fits:
            return m.process_proposal(accept=False)
        proposal = Proposal(self.state, self._signatures, request.time_ms)
        outcomes = []
        for raw in request.txs:
            outcomes.append(proposal.try_add(raw))
            if outcomes[-1].error is not None:
                return m.process_proposal(accept=False)
        self._worked = _Worked(
            request.height, request.time_ms, request.txs, proposal, tuple(outcomes)
        )
        return m.process_proposal(accept=True)

    def _finalize_block(self, request: m.FinalizeBlock) -> bytes:
        if request.height != self.height + 1:
            raise CorruptionError(f"block {request.height} does not follow {self.height}")
        worked, self._worked = self._worked, None
        if worked is None or not worked.is_of(request):
            proposal = Proposal(self.state, self._signatures, request.time_ms)
            outcomes = tuple(proposal.add(raw) for raw in request.txs)
        else:
            proposal, outcomes = worked.proposal, worked.outcomes
        applied = None
        if proposal.raws:
            applied = seal(self.state, proposal.draft, proposal.raws, proposal.accepted)
        self._finalized = _Finalized(request.height, applied)
        self._refused = [one for one in outcomes if one.error is not None]
        codes = [(0, "") if one.error is None else (REFUSED, one.error.code) for one in outcomes]
        head = self.state.head if applied is None else applied.changes.head
        return m.finalize_block(codes, head.hash)

    def _commit(self, _request: m.Commit) -> bytes:
        finalized, self._finalized = self._finalized, None
        if finalized is None:
            raise CorruptionError("there is no block to commit", hint="this is a flaw of CometBFT")
        entries = {} if finalized.applied is None else finalized.applied.changes.entries
        self.store.write({**entries, HEIGHT_KEY: finalized.height.to_bytes(8, "big")})
        self._written = finalized
        if finalized.applied is not None:
            height = finalized.applied.block.header.height
            accepted = finalized.applied.outcomes
            self._settled += [(one.id, Result(one.id.hex(), height)) for one in accepted]
        for one in self._refused:
            if one.error is not None:
                self._settle_refused(one.id, one.error)
        # CometBFT's old blocks may go where newcomers can begin from a snapshot; ours all stay
        old = finalized.height - RETAINED_BLOCKS
        return m.commit(max(0, old) if self._snapshots.enabled else 0)

    def _settle_refused(self, identity: bytes, error: LedgerError) -> None:
        """Note a refusal, unless the transaction has been accepted before."""
        height = self.place(identity) if identity and isinstance(error, BadNonceError) else None
        refusal = None if height is not None else Refusal.of(error)
        self._settled.append((identity, Result(identity.hex(), height, refusal)))

    def _query(self, request: m.Query) -> bytes:
        """Read an entry by its key, with the proofs that lead from it to the application hash."""
        if request.path not in ("", "/entry"):
            return m.query_failed(UNKNOWN_PATH, "the only path is /entry, with a key as data")
        value, proof = self.state.prove(request.data)
        operations = [("lichen/state/1", request.data, canonical(proof))]
        block = View(self.state).block(self.state.head.height)
        if block is not None:
            operations.append(("lichen/block/1", b"", canonical(block.header)))
        ops = tuple(operations) if request.prove else ()
        return m.query(self.height, request.data, value or b"", ops)

    def _list_snapshots(self, _request: m.ListSnapshots) -> bytes:
        return m.list_snapshots(tuple(self._snapshots.available()))

    def _load_snapshot_chunk(self, request: m.LoadSnapshotChunk) -> bytes:
        return m.load_snapshot_chunk(
            self._snapshots.load(request.height, request.format, request.chunk)
        )

    def _offer_snapshot(self, request: m.OfferSnapshot) -> bytes:
        self._restoring = None
        if self.height:
            return m.offer_snapshot(m.OFFER_ABORT)  # there is a state to lose here
        try:
            self._restoring = Restoring(request.snapshot, request.app_hash)
        except UserError:
            return m.offer_snapshot(m.OFFER_REJECT)
        return m.offer_snapshot(m.OFFER_ACCEPT)

    def _apply_snapshot_chunk(self, request: m.ApplySnapshotChunk) -> bytes:
        restoring = self._restoring
        if restoring is None:
            return m.apply_snapshot_chunk(m.CHUNK_ABORT)
        if not restoring.add(request.index, request.chunk):
            return m.apply_snapshot_chunk(
                m.CHUNK_RETRY, refetch=request.index, reject=request.sender
            )
        if not restoring.complete:
            return m.apply_snapshot_chunk(m.CHUNK_ACCEPT)
        self._restoring = None
        try:
            entries = restoring.entries(self.state.genesis, self.store)
        except LichenError:  # whatever a stranger put into it
            return m.apply_snapshot_chunk(m.CHUNK_REJECT_SNAPSHOT)
        height = restoring.snapshot.height
        self.store.write({**entries, HEIGHT_KEY: height.to_bytes(8, "big")})
        self.height, self._restored = height, True
        return m.apply_snapshot_chunk(m.CHUNK_ACCEPT)

    def _verify_vote_extension(self, request: m.VerifyVoteExtension) -> bytes:
        return m.verify_vote_extension(accept=not request.extension)
