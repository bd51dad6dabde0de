"""Delegations off the ledger: this key lets that account spend up to X for app Y until T.

A delegate may hand on a part of its right: a chain of at most LINKS_MAX delegations, each signed by
the delegate of the one before, naming it by its hash, and never wider in app, amount or time.
Whoever holds the chain proves its right without asking anybody. What was spent under it is not
known here: `GrantSpending` on the ledger is the form that settles.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from lichen.encoding import canonical, sha256
from lichen.errors import NotAllowedError, VerificationError
from lichen.identity.address import Address
from lichen.identity.digest import signing_digest
from lichen.identity.keys import PrivateKey, PublicKey
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN = "lichen/delegation/1"
LINKS_MAX = 4


class DelegationInvalidError(VerificationError):
    """A chain of delegations is malformed, or one of its signatures does not hold."""

    code = "delegation-invalid"


class DelegationWidensError(DelegationInvalidError):
    """A delegation gives away more than its issuer has."""

    code = "delegation-widens"


class DelegationExpiredError(NotAllowedError):
    """A delegation does not hold at this time."""

    code = "delegation-expired"


class Delegation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed. `app` None means every app; `parent` is empty at the root of a chain.

    It holds from `starts_ms` until just before `expires_ms`.
    """

    issuer: PublicKey
    delegate: Address
    app: str | None
    limit: Amount
    starts_ms: int
    expires_ms: int
    parent: bytes = b""


class SignedDelegation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A delegation with its issuer's signature."""

    body: Delegation
    signature: bytes

    def id(self) -> bytes:
        """Return the 32-byte hash by which the next link names this one."""
        return sha256(canonical(self.body))


class SpendingRight(msgspec.Struct, frozen=True):
    """What a chain comes to: `delegate` may spend what is `owner`'s, within these bounds."""

    owner: Address
    delegate: Address
    app: str | None
    limit: Amount
    starts_ms: int
    expires_ms: int

    def allows(self, app: str, amount: int, now_ms: int) -> bool:
        """Tell whether spending `amount` for `app` at this time is within the right."""
        return (
            self.app in (None, app)
            and 0 <= amount <= self.limit
            and self.starts_ms <= now_ms < self.expires_ms
        )


def sign_delegation(network: bytes, key: PrivateKey, body: Delegation) -> SignedDelegation:
    """Sign `body` with its issuer's key; raise DelegationInvalidError for another key."""
    if body.issuer != key.public:
        raise DelegationInvalidError("a delegation is signed by its issuer")
    return SignedDelegation(body, key.sign(signing_digest(DOMAIN, network, canonical(body))))


def verify_delegations(
    network: bytes, chain: Sequence[SignedDelegation], now_ms: int
) -> SpendingRight:
    """Check a chain, root first, and return the right that it gives to the last delegate.

    Raises DelegationInvalidError, DelegationWidensError or DelegationExpiredError.
    """
    if not 1 <= len(chain) <= LINKS_MAX:
        raise DelegationInvalidError(f"a chain has 1 to {LINKS_MAX} delegations, not {len(chain)}")
    if chain[0].body.parent:
        raise DelegationInvalidError("the first delegation of the chain is missing")
    for link in chain:
        _check_link(network, link, now_ms)
    for parent, child in itertools.pairwise(chain):
        _check_narrowing(parent, child.body)
    last = chain[-1].body
    return SpendingRight(
        owner=chain[0].body.issuer.address,
        delegate=last.delegate,
        app=last.app,
        limit=last.limit,
        starts_ms=last.starts_ms,
        expires_ms=last.expires_ms,
    )


def _check_link(network: bytes, link: SignedDelegation, now_ms: int) -> None:
    body = link.body
    if not body.issuer.verify(signing_digest(DOMAIN, network, canonical(body)), link.signature):
        raise DelegationInvalidError(
            f"the delegation by {body.issuer.address} is not signed by its key",
            hint="it was changed, or made for another network: ask the owner for a new one",
        )
    if now_ms < body.starts_ms:
        raise DelegationExpiredError(
            f"the delegation holds only in {body.starts_ms - now_ms} ms",
            hint="wait, or set the clocks by NTP",
        )
    if now_ms >= body.expires_ms:
        raise DelegationExpiredError(
            f"the delegation by {body.issuer.address} expired {now_ms - body.expires_ms} ms ago",
            hint="ask its issuer for a new one",
        )


def _check_narrowing(parent: SignedDelegation, child: Delegation) -> None:
    wider = parent.body
    if child.parent != parent.id() or child.issuer.address != wider.delegate:
        raise DelegationInvalidError("the delegations of the chain do not follow each other")
    if wider.app not in (None, child.app):
        raise DelegationWidensError(f"the issuer may spend for app {wider.app} only")
    if child.limit > wider.limit:
        raise DelegationWidensError(f"the issuer may spend {wider.limit} at most")
    if child.starts_ms < wider.starts_ms or child.expires_ms > wider.expires_ms:
        raise DelegationWidensError("the issuer may spend for a shorter time only")
