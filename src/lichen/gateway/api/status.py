"""Where this gateway and its network stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lichen
from lichen.gateway.api.views import Network, Status
from lichen.identity import Digest
from lichen.ledger.types import network_id

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext


async def status(context: ApiContext, _: Request) -> Status:
    """Where the gateway's view of the ledger stands."""
    head = context.head
    return Status(
        network=Digest(network_id(context.genesis)),
        name=context.genesis.name,
        version=lichen.__version__,
        gateway=context.gateway,
        height=head.height,
        time_ms=head.time_ms,
        state_root=Digest(head.state_root),
        nodes_active=len(context.ledger.nodes(active_only=True)),
    )


async def network(context: ApiContext, _: Request) -> Network:
    """Return the genesis, and the network id that is its hash."""
    return Network(Digest(network_id(context.genesis)), context.genesis)
