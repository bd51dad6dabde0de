"""What a gateway needs for names, composed: the records, the resolver, and the keys it keeps."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

import structlog

from lichen.cdn.names.dnslink import DnsLinks
from lichen.cdn.names.keeper import NameKeeper
from lichen.cdn.names.resolver import Names
from lichen.cdn.names.store import NameStore
from lichen.cdn.names.teller import NameTeller
from lichen.content.ipns import Name
from lichen.content.libp2p_key import public_key
from lichen.errors import LimitError, MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.cdn.retrieval.routers import Routers
    from lichen.gateway.config import GatewayConfig
    from lichen.identity import PrivateKey

KEEP_S: Final = 60.0
KEPT_NAMES_MAX: Final = 64

log = structlog.get_logger()


class NameService:
    """Everything about names of one gateway; `kept` are the keys whose names it keeps fresh."""

    def __init__(
        self,
        home: str,
        config: GatewayConfig,
        kept: Sequence[PrivateKey] = (),
        routers: Routers | None = None,
    ) -> None:
        """Open the records in `home`; raise UserError for a wrong setting, LimitError, disk errors.

        `routers` are asked for records, and told those of the `kept` keys.
        """
        if len(kept) > KEPT_NAMES_MAX:
            raise LimitError(f"over {KEPT_NAMES_MAX} names", hint="keep them at several gateways")
        domains = _domains(config)
        own = frozenset(Name.of(public_key(key)) for key in kept)
        self.store = NameStore(os.path.join(home, "names"), own=own)
        fetch = routers.find_record if routers else None
        self.names = Names(self.store, static=config.dnslinks, domains=domains, fetch=fetch)
        self._keeper = NameKeeper(self.store, kept, time.time_ns)
        self._teller = None
        if routers:
            self._teller = NameTeller(self.store, own, routers.publish_record, time.monotonic)

    async def keep(self) -> None:
        """Sign what ends soon again; to be called every KEEP_S."""
        await asyncio.to_thread(self._keeper.tick)

    async def tell(self) -> None:
        """Give the routers what is new; to be called every KEEP_S."""
        if self._teller is not None:
            await self._teller.tick()

    async def close(self) -> None:
        """End what is under way and close the records."""
        await self.names.close()
        self.store.close()


def _domains(config: GatewayConfig) -> DnsLinks | None:
    if not config.dnslink:
        return None
    try:
        return DnsLinks(config.dns_servers)
    except MachineError as error:  # a gateway of content by hash works without
        log.warning("no domain's DNSLink is looked up", why=error.what, hint=error.hint)
        return None
