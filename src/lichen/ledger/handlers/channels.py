"""Payment channels: money set aside, moved by vouchers, and given back after a challenge period.

    open -> (closing, by the paying side) -> gone
    open -> gone, by the payee at once

While a channel is closing, vouchers are still redeemed: the payee has `challenge_ms` to bring the
latest one. A channel that is gone leaves the state; its id never comes again, because it follows
from its opener's nonce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from lichen.ledger.checks import check_channel_id, check_positive
from lichen.ledger.errors import (
    ChallengeRunningError,
    ChannelClosingError,
    NotOwnerError,
    UnknownChannelError,
)
from lichen.ledger.handlers.apps import known_app
from lichen.ledger.handlers.call import credit, debit
from lichen.ledger.handlers.grants import give_back, spend
from lichen.ledger.tables import CHANNELS
from lichen.ledger.transactions import channel_id
from lichen.ledger.types import Channel, ChannelStatus
from lichen.units import Amount

if TYPE_CHECKING:
    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import (
        CloseChannel,
        FinalizeChannel,
        OpenChannel,
        TopUpChannel,
    )


def open_channel(draft: Draft, call: Call, body: OpenChannel) -> None:
    """Set a deposit aside, from the signer or under the owner's grant."""
    check_positive(body.deposit, "deposit")
    if body.app or body.owner is not None:
        known_app(draft, body.app)
    payer = body.owner if body.owner is not None else call.address
    if payer != call.address:
        spend(draft, payer, body.app, call.address, body.deposit)

    debit(draft, payer, body.deposit, "deposit")
    opened = Channel(
        id=channel_id(draft.network, call.address, call.nonce),
        payer=payer,
        payee=body.payee,
        signer=body.signer,
        opener=call.address,
        app=body.app,
        deposit=body.deposit,
        redeemed=Amount(0),
        status=ChannelStatus.OPEN,
        closes_ms=0,
    )
    draft.write(CHANNELS, opened.id, opened)


def top_up(draft: Draft, call: Call, body: TopUpChannel) -> None:
    """Add to the deposit of an open channel."""
    check_positive(body.amount, "amount")
    channel = known_channel(draft, body.channel)
    if call.address not in (channel.payer, channel.opener):
        raise NotOwnerError(
            "only its payer or its opener tops a channel up", hint="sign with that key"
        )
    _require_open(channel)
    if call.address != channel.payer:
        spend(draft, channel.payer, channel.app, call.address, body.amount)
    elif channel.opener != channel.payer:
        raise NotOwnerError(
            "the channel lives under a grant", hint="raise the grant; its opener tops it up"
        )

    debit(draft, channel.payer, body.amount, "top-up")
    grown = replace(channel, deposit=Amount(channel.deposit + body.amount))
    draft.write(CHANNELS, channel.id, grown)


def close(draft: Draft, call: Call, body: CloseChannel) -> None:
    """End a channel: at once by its payee, after the challenge period by the paying side."""
    channel = known_channel(draft, body.channel)
    if call.address == channel.payee:
        _finish(draft, channel)
        return
    if call.address not in (channel.payer, channel.signer, channel.opener):
        raise NotOwnerError(
            "only a channel's payer, opener, signer or payee closes it", hint="sign with that key"
        )
    _require_open(channel)

    closes_ms = draft.time_ms + draft.params.challenge_ms
    closing = replace(channel, status=ChannelStatus.CLOSING, closes_ms=closes_ms)
    draft.write(CHANNELS, channel.id, closing)


def finalize(draft: Draft, _call: Call, body: FinalizeChannel) -> None:
    """Give the rest of a closing channel back, after its challenge period."""
    channel = known_channel(draft, body.channel)
    if channel.status is not ChannelStatus.CLOSING:
        raise ChallengeRunningError("the channel is open", hint="close it first")
    if draft.time_ms < channel.closes_ms:
        raise ChallengeRunningError(
            f"the challenge period runs for {channel.closes_ms - draft.time_ms} ms more",
            hint="finalize after that",
        )

    _finish(draft, channel)


def known_channel(draft: Draft, channel: bytes) -> Channel:
    """Return a channel; raise UnknownChannelError when it is not, or no more, there."""
    check_channel_id(channel)
    found = draft.read(CHANNELS, channel)
    if found is None:
        raise UnknownChannelError(
            f"there is no channel {channel.hex()}", hint="it may have been finalized"
        )
    return found


def _finish(draft: Draft, channel: Channel) -> None:
    rest = channel.deposit - channel.redeemed
    draft.write(CHANNELS, channel.id, None)
    credit(draft, channel.payer, rest)
    give_back(draft, channel, rest)


def _require_open(channel: Channel) -> None:
    if channel.status is not ChannelStatus.OPEN:
        raise ChannelClosingError("the channel is closing", hint="open another one")
