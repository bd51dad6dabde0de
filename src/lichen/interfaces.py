"""The map of the system: what can be replaced by something else, and what each promises.

Rooms are written against these; `node/process.py` and `gateway/process.py` compose the shipped ones
by hand. The functions at the end hold those to their promise when types are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from lichen.cdn.retrieval.fetch import Fetcher
    from lichen.content.blocks import Blocks
    from lichen.content.cid import CID
    from lichen.content.flat import FlatFile
    from lichen.content.store import BlockStore
    from lichen.identity import Address
    from lichen.ledger.blocks import Block
    from lichen.ledger.client import LedgerClient
    from lichen.ledger.comet.engine import CometEngine
    from lichen.ledger.engine import Engine
    from lichen.ledger.follower import Follower
    from lichen.ledger.results import Result, Status
    from lichen.ledger.store import LmdbStore, MemoryStore
    from lichen.ledger.types import Genesis
    from lichen.ledger.views import View
    from lichen.market.receipt_log import ReceiptLog
    from lichen.runtime.bwrap import Bubblewrap
    from lichen.runtime.exact.pool import ExactPool
    from lichen.runtime.exact.tenant import ExactTenant
    from lichen.runtime.exits import ExitKind, ExitReason
    from lichen.runtime.logs import LogLine
    from lichen.runtime.meter import Cost, Run
    from lichen.runtime.pool import Pool as TenantPool
    from lichen.runtime.sandbox import Command, Job, NoSandbox
    from lichen.runtime.tenant import Tenant as WorkerdTenant
    from lichen.runtime.tenant import TenantSpec


class OrderingEngine(Protocol):
    """Puts transactions in one order for everybody.

    A result is returned only when the block that holds the transaction is durable; two engines that
    order the same transactions in the same blocks reach the same state root.
    """

    async def submit(self, raws: Sequence[bytes]) -> list[Result]:
        """Order encoded transactions: one result each."""
        ...

    def status(self) -> Status:
        """Say where the ledger stands."""
        ...


class Ledger(Protocol):
    """A ledger as its clients reach it, whichever engine orders it."""

    async def genesis(self) -> Genesis:
        """Return the network's genesis."""
        ...

    async def submit(self, transactions: Sequence[Any]) -> list[Result]:
        """Submit transactions; one result each, once they are durable."""
        ...

    def blocks(self, first: int) -> AsyncIterator[Block]:
        """Stream the blocks from a height on."""
        ...


class StateStore(Protocol):
    """Keeps the state's bytes by key; `write` is all or nothing."""

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries below a prefix in the order of their keys."""
        ...


class Replica(Protocol):
    """A checked copy of the ledger's state, following its blocks."""

    state: View

    @property
    def height(self) -> int:
        """The last block that was applied."""
        ...

    async def wait_for(self, height: int) -> None:
        """Wait until a block is applied."""
        ...

    def on_block(self, callback: Callable[[Block, frozenset[bytes]], None]) -> Callable[[], None]:
        """Hear of every applied block and the keys that it changed."""
        ...


class ContentStore(Protocol):
    """Holds content by hash: what was put is durable and verified, and never served otherwise."""

    def get_block(self, cid: CID) -> bytes | None:
        """Return a block, or None when it is not here."""
        ...

    def put_blocks(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """Verify and store blocks, all or none."""
        ...

    def flat_file(self, cid: CID) -> FlatFile | None:
        """Return a file's content in one piece, for sendfile."""
        ...


class ContentSource(Protocol):
    """Gets content that is not here; whatever comes back has the hash that was asked for."""

    def fetch_file(self, cid: CID, bytes_max: int) -> Awaitable[bytes]:
        """Return a file of at most `bytes_max`."""
        ...


class Sandbox(Protocol):
    """Turns a job into a command that confines it to a tier's promise."""

    tier: ClassVar[str]

    def seen(self, directory: str) -> str:
        """Return where the job sees its folder."""
        ...

    def command(self, job: Job) -> Command:
        """Build the command line."""
        ...


class Tenant(Protocol):
    """One tenant's function, running: nothing of it is ever seen by another tenant's.

    `exited` resolves when it runs no more, `last_used` is on the monotonic clock.
    """

    socket_path: str
    exited: asyncio.Future[ExitReason]
    last_used: float

    @property
    def in_flight(self) -> int:
        """How many runs have begun and not ended."""
        ...

    def begin(self) -> Run:
        """Begin a run."""
        ...

    def end(self, run: Run) -> Cost:
        """End it and say what it cost."""
        ...

    async def responsive(self, timeout_s: float) -> bool:
        """Tell whether it still turns: a run that is late in one that does not is stuck."""
        ...

    def on_log(self, callback: Callable[[LogLine], None]) -> None:
        """Hear of its console lines."""
        ...

    def stop(self, kind: ExitKind = "stopped") -> None:
        """End it now."""
        ...


class Runtime(Protocol):
    """Runs functions of one kind. `tier` and `profile` stand in the receipts of its runs."""

    @property
    def tier(self) -> str:
        """What confines a function."""
        ...

    @property
    def profile(self) -> str:
        """Which engine runs it, exactly."""
        ...

    async def start(self) -> None:
        """Get ready for functions."""
        ...

    async def claim(self, spec: TenantSpec) -> Tenant:
        """Start a tenant's function."""
        ...


class ReceiptKeeper(Protocol):
    """Keeps receipts: append-only, durable before they are handed out, one per run."""

    def append(self, run: str, channel: bytes, amount: int, body: dict[str, Any]) -> None:
        """Take a finished run."""
        ...

    def is_durable(self, run: str) -> bool:
        """Tell whether a run's receipt is on disk."""
        ...


class Payer(Protocol):
    """Whose transactions a process sends."""

    address: Address

    async def submit(self, body: Any) -> Result:
        """Sign and submit one transaction."""
        ...


if TYPE_CHECKING:
    from lichen.ledger.submitter import Submitter

    def _engines(
        alone: Engine, several: CometEngine, client: LedgerClient
    ) -> tuple[OrderingEngine, OrderingEngine, Ledger]:
        return alone, several, client

    def _state(a: LmdbStore, b: MemoryStore, c: Follower) -> tuple[StateStore, StateStore, Replica]:
        return a, b, c

    def _content(store: BlockStore, source: Fetcher) -> tuple[ContentStore, Blocks, ContentSource]:
        return store, store, source

    def _sandboxes(bwrap: Bubblewrap, none: NoSandbox) -> tuple[Sandbox, Sandbox]:
        return bwrap, none

    def _runtimes(pool: TenantPool, tenant: WorkerdTenant) -> tuple[Runtime, Tenant]:
        return pool, tenant

    def _exact(pool: ExactPool, tenant: ExactTenant) -> tuple[Runtime, Tenant]:
        return pool, tenant

    def _market(log: ReceiptLog, payer: Submitter) -> tuple[ReceiptKeeper, Payer]:
        return log, payer
