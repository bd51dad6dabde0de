"""The open market: what nodes ask, and what a run would cost."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from lichen.gateway.api import functions
from lichen.gateway.api.errors import BadParameterError
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import (
    FunctionQuote,
    MarketPrices,
    NodeOffer,
    NodeQuote,
    Page,
    PriceRange,
)
from lichen.gateway.placement import Health, rank
from lichen.gateway.routes import FunctionRoute
from lichen.market.pricing import quote as price
from lichen.units import Amount

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.types import Node

NODES_QUOTED_MAX = 20
UNITS = ("request", "cpu_s", "memory_gib_s", "egress_gib", "storage_gib_month")
MODES_OFFERED = ("", "none")


async def nodes(context: ApiContext, request: Request) -> Page[NodeOffer]:
    """Return what the active nodes ask, by address."""
    active = context.replica.state.nodes(active_only=True)
    found = page(request, active, lambda node: node.address.hex())
    offers = (NodeOffer(n.address, n.prices, n.tiers, n.stake) for n in found.items)
    return Page(tuple(offers), found.cursor)


async def prices(context: ApiContext, _: Request) -> MarketPrices:
    """Return the range of the active nodes' prices, per unit."""
    active = context.replica.state.nodes(active_only=True)
    ranges = tuple(_range(unit, active) for unit in UNITS) if active else ()
    return MarketPrices(len(active), ranges)


async def quote(context: ApiContext, request: Request) -> FunctionQuote:
    """Return what a run of a function costs, node by node in the order of placement."""
    verify = request.query_params.get("verify", "")
    if verify not in MODES_OFFERED:
        raise BadParameterError(
            f"verify={verify[:40]} is not offered by this network yet", hint="use verify=none"
        )
    function = functions.find(context, request)
    route = FunctionRoute(function.owner, function.app, function.release, function.spec)
    found = {bytes(node.address): node for node in context.replica.state.nodes()}
    health = {key: context.health.get(key) or Health() for key in found}
    ranking = rank(route, found.values(), health, context.now_ms())
    quotes = []
    for key in ranking.nodes[:NODES_QUOTED_MAX]:
        amounts = price(found[key].prices, function.spec)
        latency_ms = round(health[key].latency_ms)
        quotes.append(NodeQuote(found[key].address, amounts.typical, amounts.ceiling, latency_ms))
    refused = ranking.explain() if ranking.refusals or not found else ""
    return FunctionQuote(function.id, "none", tuple(quotes), refused)


def _range(unit: str, nodes: list[Node]) -> PriceRange:
    asked = sorted(getattr(node.prices, unit) for node in nodes)
    median = Amount(statistics.median_low(asked))
    return PriceRange(unit, asked[0], median, asked[-1])
