"""The tables of the state: under which key each kind of record stands, and how it is found again.

A record's key, such as `node/` and the address, is its key in the state tree too. Look-ups by
another field go over index entries (`x/...`) that follow from the records; they are not part of the
tree, and only exist while their record does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lichen.ledger.types import (
    Account,
    App,
    Channel,
    EpochRecord,
    Grant,
    Node,
    Release,
    Settlements,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.identity import Address

T = TypeVar("T")


class Table(Generic[T]):
    """One kind of record: its key prefix, its type, and the index entries it brings about."""

    __slots__ = ("index", "kind", "prefix")

    def __init__(
        self,
        prefix: bytes,
        kind: type[T],
        index: Callable[[T], tuple[bytes, ...]] | None = None,
    ) -> None:
        self.prefix = prefix
        self.kind = kind
        self.index = index


def index_key(name: bytes, value: bytes, key: bytes = b"") -> bytes:
    """Return the index entry that leads from `value` to the record under `key`."""
    return b"x/" + name + b"/" + value + key


ACCOUNTS = Table(b"account/", Account)
NODES = Table(b"node/", Node)
APPS = Table(b"app/", App, lambda app: (index_key(b"owner", app.owner, app.name.encode()),))
RELEASES = Table(b"release/", Release)
GRANTS = Table(
    b"grant/",
    Grant,
    lambda grant: (
        index_key(b"delegate", grant.delegate, grant_id(grant.owner, grant.app, grant.delegate)),
    ),
)
CHANNELS = Table(
    b"channel/",
    Channel,
    lambda channel: tuple(
        index_key(name, address, channel.id)
        for name, address in (
            (b"payee", channel.payee),
            (b"signer", channel.signer),
            (b"payer", channel.payer),
        )
    ),
)
EPOCHS = Table(b"epoch/", EpochRecord)
SETTLEMENTS = Table(b"settlements/", Settlements)

ALL: tuple[Table[Any], ...] = (
    ACCOUNTS,
    NODES,
    APPS,
    RELEASES,
    GRANTS,
    CHANNELS,
    EPOCHS,
    SETTLEMENTS,
)


def release_id(app: str, number: int) -> bytes:
    """Return the part of a release's key behind the prefix."""
    return app.encode() + b"/" + number.to_bytes(4, "big")


def grant_id(owner: Address, app: str, delegate: Address) -> bytes:
    """Return the part of a grant's key behind the prefix."""
    return owner + delegate + app.encode()


def epoch_id(node: Address, epoch: int, sequence: int) -> bytes:
    """Return the part of an epoch record's key behind the prefix."""
    return node + epoch.to_bytes(8, "big") + sequence.to_bytes(4, "big")
