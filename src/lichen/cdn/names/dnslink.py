"""DNSLink: what a domain's TXT records say its content is (https://dnslink.dev).

`_dnslink.{host}` is asked first, then the host itself. Nothing is remembered here, see `names`.
Only names of the public DNS are asked for: no addresses, no single labels, no private domains.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
import msgspec

from lichen.content.ipns import check_value
from lichen.errors import MachineError, NotFoundError, PeerUnavailableError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_BYTES_MAX: Final = 244  # `_dnslink.` and a host have to fit into 253
LOOKUP_S_MAX: Final = 4.0  # with repetitions, for one name
SERVER_S_MAX: Final = 1.5  # before the next server is asked
TTL_S_MIN: Final = 10  # answers are not asked for more often, whatever they say
TTL_S_MAX: Final = 3600
RECORDS_MAX: Final = 64
DNS_PORT: Final = 53
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PRIVATE: Final = frozenset(
    {"alt", "arpa", "home", "internal", "invalid", "lan", "local", "localhost", "onion", "test"}
)
_PREFIX: Final = b"dnslink="


class NoDnsLinkError(NotFoundError):
    """The domain does not exist, or says nothing about content."""

    code = "no-dnslink"


class Link(msgspec.Struct, frozen=True):
    """What a domain stands for: a content path, and how long that may be believed."""

    path: str
    ttl_s: int


class DnsLinks:
    """Asks name servers: the given ones (`address` or `address:port`), or the machine's own."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        """Raise UserError for what is no server, MachineError when the machine has none."""
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.exception.DNSException as error:
            raise MachineError(
                f"this machine has no name servers: {error}",
                hint="set dns_servers, or dnslink = false, in the gateway's config.toml",
            ) from error
        if servers:
            self._resolver.nameservers = [_server(text) for text in servers]
        self._resolver.lifetime = LOOKUP_S_MAX
        self._resolver.timeout = SERVER_S_MAX

    async def lookup(self, host: str) -> Link:
        """Return what a host (see `dns_name`) stands for.

        Raises NoDnsLinkError when it says nothing, PeerUnavailableError when no server answers.
        """
        for name in (f"_dnslink.{host}", host):
            found = await self._ask(name)
            if found is not None:
                return found
        raise NoDnsLinkError(
            f"{host} has no DNSLink",
            hint=f'set a TXT record of _dnslink.{host}: "dnslink=/ipfs/CID"',
        )

    async def _ask(self, name: str) -> Link | None:
        try:
            answer = await self._resolver.resolve(f"{name}.", "TXT", search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.YXDOMAIN):
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise PeerUnavailableError(
                f"the name servers did not say what {name} is", hint="try again shortly"
            ) from error
        texts = [b"".join(record.strings) for record in list(answer)[:RECORDS_MAX]]
        ttl_s = min(max(answer.chaining_result.minimum_ttl, TTL_S_MIN), TTL_S_MAX)
        path = choose(texts)
        return None if path is None else Link(path, ttl_s)


def choose(texts: Sequence[bytes]) -> str | None:
    """Return the content path among TXT records; of several the first in the alphabet. Pure."""
    found = []
    for text in texts:
        if text.startswith(_PREFIX):
            try:
                path = text[len(_PREFIX) :].decode().strip()
                check_value(path)
            except (UnicodeDecodeError, UserError):  # meant for somebody else, or a mistake
                continue
            found.append(path)
    return min(found, default=None)


def dns_name(text: str) -> str | None:
    """Return the one spelling of a name of the public DNS; None for anything else. Pure."""
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > HOST_BYTES_MAX or len(labels) < 2 or labels[-1] in _PRIVATE:
        return None
    if labels[-1].isdecimal() or not all(map(_LABEL.fullmatch, labels)):
        return None
    return host


def inline(host: str) -> str:
    """Spell a DNS name as one label: `en.wiki-x.org` is `en-wiki--x-org`. Pure."""
    return host.replace("-", "--").replace(".", "-")


def outline(label: str) -> str:
    """Read back what `inline` spelt; a label with dots is a name as it is. Pure."""
    if "." in label:
        return label
    return label.replace("--", "\0").replace("-", ".").replace("\0", "-")


def _server(text: str) -> dns.nameserver.Nameserver:
    try:
        host, port = text, DNS_PORT
        if not _is_address(text):
            host, _, digits = text.rpartition(":")
            port = int(digits)
        if not 0 < port < 1 << 16:
            raise ValueError("no such port")  # noqa: TRY301 - told below
        return dns.nameserver.Do53Nameserver(str(ipaddress.ip_address(host.strip("[]"))), port)
    except ValueError as error:
        raise UserError(
            f"{text!r} is no name server", hint="write an address, or address:port"
        ) from error


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
