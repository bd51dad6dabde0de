"""Where this gateway and its network stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lichen
from lichen.gateway.api.views import Network, Status
from lichen.identity import Digest

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext


async def status(context: ApiContext, _: Request) -> Status:
    """Return where the gateway's view of the ledger stands."""
    replica = context.replica
    return Status(
        network=Digest(replica.network),
        name=replica.genesis.name,
        version=lichen.__version__,
        gateway=context.gateway,
        height=replica.height,
        time_ms=replica.time_ms,
        state_root=Digest(replica.state_root),
        nodes_active=len(replica.state.nodes(active_only=True)),
    )


async def network(context: ApiContext, _: Request) -> Network:
    """Return the genesis, and the network id that is its hash."""
    return Network(Digest(context.replica.network), context.replica.genesis)
