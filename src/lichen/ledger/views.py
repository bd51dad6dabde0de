"""Typed reads of a state: what nodes, gateways and faces ask."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from lichen.ledger import tables
from lichen.ledger.blocks import decode_block
from lichen.ledger.errors import UnknownRouteError
from lichen.ledger.history import history
from lichen.ledger.machine import block_key
from lichen.ledger.proofs import Prover
from lichen.ledger.routes import RouteTable
from lichen.ledger.tables import index_key
from lichen.ledger.transactions import decode_transaction
from lichen.ledger.types import Account, ChannelStatus, NodeStatus
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.identity import Address
    from lichen.ledger.blocks import Block
    from lichen.ledger.history import HistoryEntry, Place
    from lichen.ledger.results import ProofAnswer
    from lichen.ledger.state import State
    from lichen.ledger.transactions import Received
    from lichen.ledger.types import (
        App,
        Channel,
        EpochRecord,
        FunctionSpec,
        Grant,
        Node,
        Release,
        Settlements,
    )

_EMPTY = Account(0, Amount(0))


class View:
    """The records of a state, by name. Reads what is written, never a block half applied."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._prover = Prover()

    def account(self, address: Address) -> Account:
        """Return an account; one that never was is empty, with nonce 0."""
        return self._state.read(tables.ACCOUNTS, address) or _EMPTY

    def accounts(self) -> Iterator[tuple[Address, Account]]:
        """Yield every account; use it up before the state moves on (before the next await)."""
        return self._state.accounts()

    def node(self, address: Address) -> Node | None:
        """Return a node, or None when it is not registered."""
        return self._state.read(tables.NODES, address)

    def nodes(self, *, active_only: bool = False) -> list[Node]:
        """Return the nodes in the order of their addresses."""
        nodes = self._state.scan(tables.NODES)
        return [n for n in nodes if not active_only or n.status is NodeStatus.ACTIVE]

    def app(self, name: str) -> App | None:
        """Return an app, or None."""
        return self._state.read(tables.APPS, name.encode())

    def apps(self, *, after: str | None = None, limit: int | None = None) -> list[App]:
        """Return all apps in the order of their names, or `limit` of those behind `after`."""
        start = None if after is None else after.encode()
        return list(itertools.islice(self._state.scan(tables.APPS, after=start), limit))

    def apps_of(self, owner: Address) -> list[App]:
        """Return an owner's apps in the order of their names."""
        names = self._indexed(b"owner", owner)
        return [app for name in names if (app := self._state.read(tables.APPS, name))]

    def release(self, app: str, number: int) -> Release | None:
        """Return a release, or None."""
        if not 0 <= number < 1 << 32:
            return None
        return self._state.read(tables.RELEASES, tables.release_id(app, number))

    def releases(self, app: str) -> list[Release]:
        """Return an app's releases, oldest first."""
        return list(self._state.scan(tables.RELEASES, app.encode() + b"/"))

    def active_release(self, app: str) -> Release | None:
        """Return the release that serves, or None."""
        found = self.app(app)
        return None if found is None else self.release(app, found.active)

    def grant(self, owner: Address, app: str, delegate: Address) -> Grant | None:
        """Return a grant, or None; look at `expires_ms` too."""
        return self._state.read(tables.GRANTS, tables.grant_id(owner, app, delegate))

    def grants_of(self, owner: Address) -> list[Grant]:
        """Return the grants that an owner has given."""
        return list(self._state.scan(tables.GRANTS, owner))

    def grants_to(self, delegate: Address) -> list[Grant]:
        """Return the grants that a delegate holds."""
        keys = self._indexed(b"delegate", delegate)
        return [grant for key in keys if (grant := self._state.read(tables.GRANTS, key))]

    def channel(self, channel: bytes) -> Channel | None:
        """Return a channel, or None when it never was or is finalized."""
        return self._state.read(tables.CHANNELS, channel)

    def channels_of(
        self,
        *,
        payee: Address | None = None,
        signer: Address | None = None,
        payer: Address | None = None,
        open_only: bool = False,
    ) -> list[Channel]:
        """Return the channels of one payee, signer or payer that also fit the others given."""
        wanted = {b"payee": payee, b"signer": signer, b"payer": payer}
        named = [(name, address) for name, address in wanted.items() if address is not None]
        if not named:
            raise ValueError("channels_of needs a payee, a signer or a payer")
        name, address = named[0]
        channels = (self.channel(key) for key in self._indexed(name, address))
        return [
            channel
            for channel in channels
            if channel is not None
            and payee in (None, channel.payee)
            and signer in (None, channel.signer)
            and payer in (None, channel.payer)
            and (not open_only or channel.status is ChannelStatus.OPEN)
        ]

    def epoch_records(self, node: Address, epoch: int | None = None) -> list[EpochRecord]:
        """Return a node's settled batches in order, of one epoch or of all."""
        prefix = node if epoch is None else node + epoch.to_bytes(8, "big")
        return list(self._state.scan(tables.EPOCHS, prefix))

    def settlements(self, node: Address) -> Settlements | None:
        """Return where a node's settling stands, or None before its first settlement."""
        return self._state.read(tables.SETTLEMENTS, node)

    def transactions_of(
        self, address: Address, limit: int = 50, before: Place | None = None
    ) -> list[HistoryEntry]:
        """Return an account's history, newest first; page on with the last entry's place."""
        return history(self._state.store, address, limit, before)

    def transaction_at(self, place: Place) -> Received | None:
        """Return the transaction that stands at a place, or None."""
        block = self.block(place.height)
        if block is None or not 0 <= place.index < len(block.transactions):
            return None
        return decode_transaction(block.transactions[place.index])

    def prove(self, key: bytes) -> ProofAnswer:
        """Return what stands under a key of the state with all that shows it (see `light`)."""
        return self._prover.prove(self._state, key)

    def block(self, height: int) -> Block | None:
        """Return a block, or None above the last one."""
        data = self.block_bytes(height)
        return None if data is None else decode_block(data)

    def block_bytes(self, height: int) -> bytes | None:
        """Return a block as it is stored and streamed, or None above the last one."""
        return self._state.store.get(block_key(height)) if height > 0 else None

    def _indexed(self, name: bytes, address: Address) -> list[bytes]:
        prefix = index_key(name, address)
        return [key[len(prefix) :] for key, _ in self._state.store.scan(prefix)]


def match_route(release: Release, path: str) -> FunctionSpec:
    """Return the function that answers on a path; raise UnknownRouteError when none does."""
    functions = release.functions
    table = RouteTable((route, function) for function in functions for route in function.routes)
    found = table.match(path.encode("utf-8", "surrogatepass"))
    if found is None:
        raise UnknownRouteError(
            f"no function of {release.app} v{release.number} answers on {path[:200]}",
            hint="add a route for it and deploy again",
        )
    return found
