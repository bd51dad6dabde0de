"""Accounts: balance, nonce, history, channels."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from lichen.errors import CorruptionError
from lichen.gateway.api import parameters
from lichen.gateway.api.blocks import kind_of
from lichen.gateway.api.errors import BadParameterError
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import AccountView, ChannelView, HistoryEntry, Nonce, Page
from lichen.identity import Digest
from lichen.ledger.history import Place
from lichen.ledger.transactions import decode_transaction
from lichen.units import Amount

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.blocks import Block
    from lichen.ledger.history import HistoryEntry as Moved
    from lichen.ledger.types import Channel

HISTORY_LIMIT_MAX = 100
_PLACE = re.compile(r"([0-9]{1,15})-([0-9]{1,9})")


async def show(context: ApiContext, request: Request) -> AccountView:
    """Return an account's balance and nonce; one that never was has nothing."""
    address = parameters.address(request)
    account = context.replica.state.account(address)
    return AccountView(address, account.balance, account.nonce)


async def nonce(context: ApiContext, request: Request) -> Nonce:
    """Return the nonce that the account's next transaction has to carry."""
    return Nonce(context.replica.state.account(parameters.address(request)).nonce)


async def history(context: ApiContext, request: Request) -> Page[HistoryEntry]:
    """Return what moved an account's balance, the newest first.

    `cursor` and `before` name a place: `height-index`. A page has at most 100 entries.
    """
    limit = min(parameters.limit(request), HISTORY_LIMIT_MAX)
    cursor = parameters.cursor(request) or request.query_params.get("before", "")
    view = context.replica.state
    before = _place(cursor) if cursor else None
    entries = view.transactions_of(parameters.address(request), limit + 1, before)
    blocks: dict[int, Block | None] = {}
    items = []
    for entry in entries[:limit]:
        if entry.place.height not in blocks:
            await asyncio.sleep(0)  # a block may be large: let others have their turn
            blocks[entry.place.height] = view.block(entry.place.height)
        items.append(_entry(entry, blocks[entry.place.height]))
    last = entries[limit - 1].place if len(entries) > limit else None
    return Page(tuple(items), None if last is None else f"{last.height}-{last.index}")


async def channels(context: ApiContext, request: Request) -> Page[ChannelView]:
    """Return the payment channels that an account pays into, signs for, or is paid by."""
    address, view = parameters.address(request), context.replica.state
    found = {
        channel.id: channel
        for channel in (
            *view.channels_of(payer=address),
            *view.channels_of(payee=address),
            *view.channels_of(signer=address),
        )
    }
    entries = [_channel(found[key]) for key in sorted(found)]
    return page(request, entries, lambda channel: str(channel.id))


def _channel(channel: Channel) -> ChannelView:
    return ChannelView(
        id=Digest(channel.id),
        payer=channel.payer,
        payee=channel.payee,
        signer=channel.signer,
        opener=channel.opener,
        app=channel.app,
        deposit=channel.deposit,
        redeemed=channel.redeemed,
        status=channel.status.value,
        closes_ms=channel.closes_ms,
    )


def _place(cursor: str) -> Place:
    match = _PLACE.fullmatch(cursor)
    if match is None:
        raise BadParameterError("a cursor of a history looks like 17-0: height and index")
    return Place(int(match.group(1)), int(match.group(2)))


def _entry(entry: Moved, block: Block | None) -> HistoryEntry:
    if block is None:
        raise CorruptionError(
            f"block {entry.place.height} of the history is missing",
            hint="remove the follower's folder: it is fetched again",
        )
    signed = decode_transaction(block.transactions[entry.place.index]).signed
    return HistoryEntry(
        id=Digest(entry.id),
        height=entry.place.height,
        time_ms=entry.time_ms,
        kind=kind_of(signed.body),
        signer=signed.signer.address,
        change=str(entry.change),
        balance=Amount(entry.balance),
    )
