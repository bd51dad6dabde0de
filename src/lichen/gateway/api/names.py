"""Mutable names: what they stand for now. Records come and go by `/routing/v1/ipns/{name}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.gateway.api import parameters
from lichen.gateway.api.views import NameView

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext


async def show(context: ApiContext, request: Request) -> NameView:
    """Resolve an IPNS name, or a domain by its DNSLink."""
    name = parameters.text(request, "name")
    found = await context.resolve_name(name)
    return NameView(name, f"/ipfs/{found.root}{found.below}", found.ttl_s)
