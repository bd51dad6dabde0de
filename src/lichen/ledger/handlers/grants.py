"""Grants: an owner lets another key open channels for an app, up to a limit, until a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from lichen.ledger.checks import check_time
from lichen.ledger.errors import GrantExhaustedError, UnknownGrantError
from lichen.ledger.handlers.apps import owned_app
from lichen.ledger.tables import GRANTS, grant_id
from lichen.ledger.types import Grant
from lichen.units import Amount, format_flk

if TYPE_CHECKING:
    from lichen.identity import Address
    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import GrantSpending, RevokeSpending
    from lichen.ledger.types import Channel


def grant(draft: Draft, call: Call, body: GrantSpending) -> None:
    """Set a delegate's limit and end; what it has out already keeps counting."""
    check_time(body.expires_ms)
    owned_app(draft, call, body.app)

    key = grant_id(call.address, body.app, body.delegate)
    before = draft.read(GRANTS, key)
    spent = before.spent if before is not None else Amount(0)
    granted = Grant(call.address, body.app, body.delegate, body.limit, spent, body.expires_ms)
    draft.write(GRANTS, key, granted)


def revoke(draft: Draft, call: Call, body: RevokeSpending) -> None:
    """End a grant. Its record stays, so that a later one goes on counting from it."""
    key = grant_id(call.address, body.app, body.delegate)
    before = draft.read(GRANTS, key)
    if before is None:
        raise UnknownGrantError("there is no such grant", hint="check the app and the delegate")

    draft.write(GRANTS, key, replace(before, limit=Amount(0), expires_ms=0))


def spend(draft: Draft, owner: Address, app: str, delegate: Address, amount: int) -> None:
    """Count a deposit against a grant; raise when there is none, or not enough of it."""
    key = grant_id(owner, app, delegate)
    held = draft.read(GRANTS, key)
    if held is None or draft.time_ms >= held.expires_ms:
        raise UnknownGrantError(
            f"{owner} has given {delegate} no grant for {app!r} that is in force",
            hint="the owner has to grant spending first",
        )
    if held.spent + amount > held.limit:
        raise GrantExhaustedError(
            f"{format_flk(max(0, held.limit - held.spent))} FLK of the grant are left, "
            f"{format_flk(amount)} are needed",
            hint="the owner may grant a higher limit",
        )

    draft.write(GRANTS, key, replace(held, spent=Amount(held.spent + amount)))


def give_back(draft: Draft, channel: Channel, amount: int) -> None:
    """Take a refund off what the channel's grant counts as spent."""
    if channel.opener == channel.payer:
        return
    key = grant_id(channel.payer, channel.app, channel.opener)
    held = draft.read(GRANTS, key)
    if held is not None:
        draft.write(GRANTS, key, replace(held, spent=Amount(held.spent - amount)))
