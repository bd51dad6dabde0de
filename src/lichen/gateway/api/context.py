"""What the API needs of the gateway around it, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from lichen.cdn.names.resolver import Resolved
    from lichen.content.cid import CID
    from lichen.content.store import BlockStore
    from lichen.gateway.api.events import EventHub
    from lichen.gateway.placement import Health
    from lichen.gateway.runs import RunRecord
    from lichen.identity import Address
    from lichen.identity.nonces import NonceCache
    from lichen.ledger.results import Result
    from lichen.ledger.types import App, Genesis
    from lichen.ledger.views import View


class Replica(Protocol):
    """What this process knows of the ledger, as a `lichen.ledger.follower.Follower` offers it."""

    genesis: Genesis
    state: View

    @property
    def network(self) -> bytes:
        """The network's id."""
        ...

    @property
    def height(self) -> int:
        """The height of the last block that was applied."""
        ...

    @property
    def time_ms(self) -> int:
        """The time of that block."""
        ...

    @property
    def state_root(self) -> bytes:
        """The root of the state tree after that block."""
        ...


class ApiContext(Protocol):
    """The gateway as its API sees it. Reads are of this process's replica and never wait.

    `hosts` are the names by which it is reached, in lower case and without ports: signed requests
    have to name one of them. `gateway` is the address that apps grant spending to. An upload of at
    most `upload_bytes_max` goes to `store` and is pinned there, for each account up to
    `account_bytes_max`.
    """

    gateway: Address
    hosts: frozenset[str]
    upload_bytes_max: int
    account_bytes_max: int
    store: BlockStore
    events: EventHub
    nonces: NonceCache

    @property
    def replica(self) -> Replica:
        """The followed ledger."""
        ...

    @property
    def health(self) -> Mapping[bytes, Health]:
        """How each node behaved lately, by address."""
        ...

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        ...

    async def submit(self, transactions: Sequence[bytes]) -> Sequence[Result]:
        """Pass transactions to the ledger; one result each, once they stand on disk there.

        Waits until this process's follower has applied them, so that whoever reads next sees what
        he wrote. Raises PeerUnavailableError when the ledger does not answer.
        """
        ...

    async def fetch(self, cid: CID, bytes_max: int) -> None:
        """Bring the whole DAG below a CID into the store; raise NotFoundError, LimitError."""
        ...

    async def resolve_name(self, name: str) -> Resolved:
        """Return what a mutable name stands for; raise what `Names.resolve` raises."""
        ...

    def run_record(self, run: str) -> RunRecord:
        """Return a run's record; raise NotFoundError."""
        ...

    async def receipt(self, run: str) -> bytes:
        """Fetch a run's receipt, in its one spelling, from the node that ran it."""
        ...

    def logs(self, app: App, *, follow: bool) -> AsyncIterator[bytes]:
        """Gather an app's log lines from its nodes, each one JSON `LogLine`, without line end."""
        ...
