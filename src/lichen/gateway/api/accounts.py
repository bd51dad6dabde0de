"""Accounts: balance, nonce, history, channels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lichen.gateway.api import parameters
from lichen.gateway.api.blocks import kind_of, transactions_in
from lichen.gateway.api.errors import BadParameterError
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import AccountView, ChannelView, HistoryEntry, Nonce, Page
from lichen.identity import Digest
from lichen.ledger.history import Place
from lichen.units import Amount

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.transactions import Received
    from lichen.ledger.types import Channel
    from lichen.ledger.views import View

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
    blocks: dict[int, tuple[Received, ...]] = {}
    items = tuple(
        HistoryEntry(
            id=Digest(entry.id),
            height=entry.place.height,
            time_ms=entry.time_ms,
            kind=kind_of(received.signed.body),
            signer=received.signed.signer.address,
            change=str(entry.change),
            balance=Amount(entry.balance),
        )
        for entry in entries[:limit]
        if (received := _transaction(view, blocks, entry.place)) is not None
    )
    last = entries[limit - 1].place if len(entries) > limit else None
    return Page(items, None if last is None else f"{last.height}-{last.index}")


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


def _transaction(
    view: View, blocks: dict[int, tuple[Received, ...]], place: Place
) -> Received | None:
    """Read a transaction; one block is decoded once per request."""
    if place.height not in blocks:
        blocks[place.height] = transactions_in(view, place.height)
    transactions = blocks[place.height]
    return transactions[place.index] if place.index < len(transactions) else None
