"""The one table of the API: path, handler, what it takes and what it answers.

The server's routes and the OpenAPI document are both made from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from lichen.gateway.api import (
    accounts,
    apps,
    blocks,
    content,
    epochs,
    events,
    functions,
    market,
    names,
    nodes,
    proofs,
    runs,
    status,
    storage,
    transactions,
    views,
)
from lichen.ledger.results import ProofAnswer
from lichen.ledger.types import App, Grant, Release
from lichen.market.receipt import Receipt

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext

Handler = Callable[["ApiContext", "Request"], Awaitable[Any]]


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter."""

    name: str
    about: str
    kind: str = "string"


class Entry(msgspec.Struct, frozen=True):
    """A route. `answer` is the type of the JSON body; `media_type` says so where it is not JSON.

    `takes` is the media type of the body of a POST; `signed` asks for an RFC 9421 signature.
    """

    path: str
    handler: Handler
    answer: Any
    query: tuple[Parameter, ...] = ()
    method: str = "GET"
    media_type: str = "application/json"
    takes: str = ""
    signed: bool = False


PAGED = (
    Parameter("limit", "entries at most, 1 to 500; some lists give fewer", "integer"),
    Parameter("cursor", "the cursor of the page before"),
)


def table() -> tuple[Entry, ...]:
    """Return all routes below `/api/v1`, except for the OpenAPI document itself."""
    return (
        Entry("/status", status.status, views.Status),
        Entry("/network", status.network, views.Network),
        Entry("/accounts/{address}", accounts.show, views.AccountView),
        Entry("/accounts/{address}/nonce", accounts.nonce, views.Nonce),
        Entry(
            "/accounts/{address}/history",
            accounts.history,
            views.Page[views.HistoryEntry],
            (*PAGED, Parameter("before", "the same as cursor: height-index")),
        ),
        Entry(
            "/accounts/{address}/channels",
            accounts.channels,
            views.Page[views.ChannelView],
            PAGED,
        ),
        Entry(
            "/apps",
            apps.index,
            views.Page[App],
            (*PAGED, Parameter("owner", "the address of their owner")),
        ),
        Entry("/apps/{app}", apps.show, views.AppView),
        Entry("/apps/{app}/releases", apps.releases, views.Page[Release], PAGED),
        Entry("/apps/{app}/releases/{number}", apps.release, Release),
        Entry("/apps/{app}/grants", apps.grants, views.Page[Grant], PAGED),
        Entry(
            "/apps/{app}/logs",
            apps.logs,
            views.LogLine,
            (Parameter("follow", "1: stay and follow"),),
            media_type="application/x-ndjson",
            signed=True,
        ),
        Entry("/functions/{app}", functions.of_app, views.Page[views.FunctionView], PAGED),
        Entry("/functions/{app}/{function}", functions.show, views.FunctionView),
        Entry("/nodes", nodes.index, views.Page[views.NodeView], PAGED),
        Entry("/nodes/{address}", nodes.show, views.NodeView),
        Entry(
            "/transactions",
            transactions.submit,
            views.TransactionResults,
            method="POST",
            takes=transactions.MEDIA_TYPE,
        ),
        Entry(
            "/content",
            content.Uploads().receive,
            views.Uploaded,
            (Parameter("part", "1: one of several CARs of the same roots"),),
            method="POST",
            takes=content.MEDIA_TYPE,
            signed=True,
        ),
        Entry(
            "/content/missing",
            storage.missing,
            views.Missing,
            method="POST",
            takes=storage.CIDS_MEDIA_TYPE,
            signed=True,
        ),
        Entry("/storage", storage.index, views.PinPage, PAGED, signed=True),
        Entry("/storage/{cid}", storage.show, views.ContentView),
        Entry(
            "/storage/{cid}/pin",
            storage.Pinning().pin,
            views.PinView,
            (Parameter("fetch", "0: pin what is here, do not ask the network"),),
            method="POST",
            signed=True,
        ),
        Entry(
            "/storage/{cid}/pin",
            storage.unpin,
            views.PinView,
            method="DELETE",
            signed=True,
        ),
        Entry("/names/{name}", names.show, views.NameView),
        Entry("/runs/{run}", runs.show, views.RunView),
        Entry("/runs/{run}/receipt", runs.receipt, Receipt),
        Entry("/runs/{run}/why", runs.why, views.Why),
        Entry("/receipts/{run}", runs.receipt, Receipt),
        Entry("/market/nodes", market.nodes, views.Page[views.NodeOffer], PAGED),
        Entry("/market/prices", market.prices, views.MarketPrices),
        Entry("/market/quote/{app}", market.quote, views.FunctionQuote, (_VERIFY,)),
        Entry("/market/quote/{app}/{function}", market.quote, views.FunctionQuote, (_VERIFY,)),
        Entry(
            "/epochs",
            epochs.index,
            views.Page[views.EpochView],
            (
                *PAGED,
                Parameter("node", "the address of one node"),
                Parameter("epoch", "one epoch's number", "integer"),
            ),
        ),
        Entry(
            "/blocks",
            blocks.recent,
            views.Page[views.BlockView],
            (*PAGED, Parameter("from", "the first height", "integer")),
        ),
        Entry("/proofs/{key}", proofs.show, ProofAnswer),
        Entry("/events", events.stream, views.Event, media_type="text/event-stream"),
    )


_VERIFY = Parameter("verify", "how the result is to be verified: none")
