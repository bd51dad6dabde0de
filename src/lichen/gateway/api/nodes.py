"""The registered nodes, and how this gateway finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.gateway.api import parameters
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import NodeView, Page
from lichen.ledger.errors import UnknownNodeError

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.types import Node


async def index(context: ApiContext, request: Request) -> Page[NodeView]:
    """Return all registered nodes, by address."""
    nodes = page(request, context.replica.state.nodes(), lambda node: node.address.hex())
    return Page(tuple(view(context, node) for node in nodes.items), nodes.cursor)


async def show(context: ApiContext, request: Request) -> NodeView:
    """Return one registered node."""
    address = parameters.address(request)
    node = context.replica.state.node(address)
    if node is None:
        raise UnknownNodeError(
            f"no node is registered as {address}", hint="lichen market nodes shows them"
        )
    return view(context, node)


def view(context: ApiContext, node: Node) -> NodeView:
    """Join the registry's record with what this gateway saw of the node."""
    health = context.health.get(bytes(node.address))
    if health is None:
        return NodeView(node, reachable=True, in_flight=0, latency_ms=0, failures=0)
    return NodeView(
        node,
        reachable=health.rest_until_ms <= context.now_ms(),
        in_flight=health.in_flight,
        latency_ms=round(health.latency_ms),
        failures=health.failures,
    )
