"""Where a process may connect to when a stranger names the address.

A node's endpoint comes from the ledger, where anybody may write: one that leads to this machine,
its network or a cloud's metadata service would make whoever dials it a way in. So what is checked
is the resolved address, at each connection, and it is that address which is dialled.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]

ADDRESSES_MAX = 4  # of one name are tried
RESOLVERS_MAX = 8
# Threads of their own: a stranger's slow name server holds up other strangers' names alone.
_RESOLVERS = ThreadPoolExecutor(RESOLVERS_MAX, "resolve")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_BITS = 0xFFFFFFFF

log = structlog.get_logger()


class PrivateAddressError(PermissionError):
    """A name leads to nothing but addresses that strangers may not make a gateway dial."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the open internet, also behind IPv6's transitions."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & _IPV4_BITS)
        if inner is not None:
            return is_public(str(inner))
        if found.teredo is not None:
            return False
    return found.is_global and not found.is_multicast


def _look_up(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def resolve_public(host: str, port: int) -> list[str]:
    """Return the public addresses of a host, at least one; raise OSError for all others."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_RESOLVERS, _look_up, host, port)
    addresses = [address for address in found if is_public(address)]
    if not addresses:
        raise PrivateAddressError(errno.EACCES, f"{host} is no public address")
    return addresses[:ADDRESSES_MAX]


def public_dial(host: str, port: int) -> Dial:
    """Return how to dial a host of the open internet; dialling raises OSError for all others."""
    told = False

    async def dial(factory: Callable[[], asyncio.Protocol]) -> object:
        nonlocal told
        failure: OSError | None = None
        try:
            addresses = await resolve_public(host, port)
        except PrivateAddressError:
            if not told:
                log.warning("node at a private address", host=host, hint="see private_nodes")
            told = True
            raise
        for address in addresses:
            try:
                return await asyncio.get_running_loop().create_connection(factory, address, port)
            except OSError as error:
                failure = error
        raise failure or OSError(errno.EHOSTUNREACH, host)

    return dial
