"""Connections to the servers that content and routes come from: one bounded pool for each.

HTTP/1.1, over TLS for https; redirects are never followed. A server whose address a stranger wrote
(into the registry, into a router's answer) is dialled at public addresses only.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import ipaddress
import ssl
from typing import TYPE_CHECKING

import structlog

import lichen
from lichen.wire.client import Response, StreamedResponse, request, stream
from lichen.wire.dialling import PrivateAddressError, is_public, resolve_public
from lichen.wire.limits import PoolLimits
from lichen.wire.upstream import Pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from lichen.cdn.routing.multiaddr import HttpAddress
    from lichen.wire.upstream import Dial

ORIGINS_MAX = 256
PUT_ANSWER_BYTES_MAX = 64 * 1024
LIMITS = PoolLimits(connections_max=32, idle_max=32, waiting_max=256, connect_s=2.0, idle_s=30.0)
_AGENT = (b"user-agent", b"lichen/%b" % lichen.__version__.encode())

log = structlog.get_logger()


class Origins:
    """Pools by address; the least used is closed when there are too many."""

    def __init__(self) -> None:
        self._pools: collections.OrderedDict[tuple[HttpAddress, bool], Pool] = (
            collections.OrderedDict()
        )

    def close(self) -> None:
        """Close what is idle; what is lent ends when it is given back."""
        while self._pools:
            self._pools.popitem()[1].close()

    async def get(
        self,
        address: HttpAddress,
        target: str,
        headers: list[tuple[bytes, bytes]],
        *,
        is_trusted: bool,
        timeout_s: float,
        body_bytes_max: int,
    ) -> Response:
        """Return a whole response; raise UpstreamError and its like, see `lichen.wire.client`.

        `is_trusted` tells that the operator named the address: it may be a private one.
        """
        return await request(
            self._pool(address, is_trusted),
            b"GET",
            target.encode(),
            headers=[(b"host", address.authority.encode()), _AGENT, *headers],
            timeout_s=timeout_s,
            body_bytes_max=body_bytes_max,
        )

    async def put(
        self,
        address: HttpAddress,
        target: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        timeout_s: float,
    ) -> int:
        """Put bytes at an address that the operator named; return the status, raise like `get`."""
        response = await request(
            self._pool(address, True),
            b"PUT",
            target.encode(),
            headers=[(b"host", address.authority.encode()), _AGENT, *headers],
            body=body,
            timeout_s=timeout_s,
            body_bytes_max=PUT_ANSWER_BYTES_MAX,
        )
        return response.status

    def stream(
        self,
        address: HttpAddress,
        target: str,
        headers: list[tuple[bytes, bytes]],
        *,
        is_trusted: bool,
        timeout_s: float,
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """Send a request; the block gets the response when its head is here."""
        return stream(
            self._pool(address, is_trusted),
            b"GET",
            target.encode(),
            headers=[(b"host", address.authority.encode()), _AGENT, *headers],
            timeout_s=timeout_s,
            idle_s=timeout_s,
        )

    def _pool(self, address: HttpAddress, is_trusted: bool) -> Pool:
        key = (address, is_trusted)
        pool = self._pools.get(key)
        if pool is None:
            pool = Pool(address.url, limits=LIMITS, dial=_dial(address, is_trusted=is_trusted))
            self._pools[key] = pool
            if len(self._pools) > ORIGINS_MAX:
                self._pools.popitem(last=False)[1].close()
        else:
            self._pools.move_to_end(key)
        return pool


def _dial(address: HttpAddress, *, is_trusted: bool) -> Dial:
    told = False

    async def dial(factory: Callable[[], asyncio.Protocol]) -> object:
        nonlocal told
        try:
            hosts = [address.host]
            if not is_trusted:
                hosts = await resolve_public(address.host, address.port)
        except PrivateAddressError:
            if not told:
                log.warning("peer at a private address", peer=address.url, hint="see private_nodes")
            told = True
            raise
        failure: OSError | None = None
        for host in hosts:
            try:
                return await _connect(factory, host, address)
            except OSError as error:
                failure = error
        raise failure or OSError(f"{address.host} has no address")

    return dial


async def _connect(
    factory: Callable[[], asyncio.Protocol], host: str, address: HttpAddress
) -> object:
    loop = asyncio.get_running_loop()
    if not address.is_tls:
        return await loop.create_connection(factory, host, address.port)
    return await loop.create_connection(
        factory,
        host,
        address.port,
        ssl=_tls(),
        server_hostname=address.name or address.host,
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the one context of this process: certificates are checked against the system's."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@functools.lru_cache(maxsize=4096)
def is_private(host: str) -> bool:
    """Tell whether a host is an address that strangers may not name.

    A DNS name is not judged: what it leads to is, when it is dialled.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not is_public(host)
