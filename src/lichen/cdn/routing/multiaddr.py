"""Addresses of HTTP servers as libp2p writes them, to and from URLs. Pure.

https://github.com/multiformats/multiaddr: `/dns/example.com/tcp/443/tls/http` is
`https://example.com`. Addresses come from strangers' records: they are bounded and read strictly.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

from lichen.errors import UserError

TEXT_MAX = 512
PARTS_MAX = 32
PORT_MAX = 65_535
HOSTS = frozenset({"dns", "dns4", "dns6", "ip4", "ip6"})
# Which protocols have a value (https://github.com/multiformats/multiaddr/blob/master/protocols.csv).
_WITH_VALUE = HOSTS | {
    "certhash", "dccp", "dnsaddr", "garlic32", "garlic64", "http-path", "ip6zone", "ipcidr", "ipfs",
    "memory", "onion", "onion3", "p2p", "sctp", "sni", "tcp", "udp", "unix",
}  # fmt: skip
_WITHOUT_VALUE = frozenset(
    {
        "http", "https", "noise", "p2p-circuit", "p2p-stardust", "p2p-webrtc-direct",
        "p2p-webrtc-star", "p2p-websocket-star", "plaintextv2", "quic", "quic-v1", "shs", "tls",
        "udt", "utp", "webrtc", "webrtc-direct", "webtransport", "ws", "wss",
    }
)  # fmt: skip
_DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*",
    re.ASCII | re.IGNORECASE,
)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class HttpAddress(msgspec.Struct, frozen=True):
    """Where an HTTP server listens. `host` is a DNS name, or an IP address without brackets.

    `name` is what the server is called (in its certificate, and in the Host field) where that is
    not its host.
    """

    host: str
    port: int
    is_tls: bool
    name: str = ""

    @property
    def authority(self) -> str:
        """What the Host field of a request says."""
        host = self.name or self.host
        host = f"[{host}]" if ":" in host else host
        is_default = self.port == _DEFAULT_PORTS["https" if self.is_tls else "http"]
        return host if is_default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The origin, as URLs write it."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}"

    @property
    def multiaddr(self) -> str:
        """The address as records write it."""
        try:
            kind = f"ip{ipaddress.ip_address(self.host).version}"
        except ValueError:
            kind = "dns"
        tls = "/tls" if self.is_tls else ""
        sni = f"/sni/{self.name}" if self.is_tls and self.name else ""
        return f"/{kind}/{self.host}/tcp/{self.port}{tls}{sni}/http"


def parse_origin(url: str) -> HttpAddress:
    """Read the URL of a server's root; raise UserError for one with anything behind its port."""
    hint = "write it as https://host or http://host:port"
    if len(url) > TEXT_MAX or not url.isascii() or not url.isprintable():
        raise UserError(f"a URL has at most {TEXT_MAX} letters, all of them ASCII", hint=hint)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UserError(f"{url!r} is not the URL of a server: {error}", hint=hint) from error
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme not in _DEFAULT_PORTS or any(rest) or not _is_host(host):
        raise UserError(f"{url!r} is not the URL of a server", hint=hint)
    port = port or _DEFAULT_PORTS[parts.scheme]
    return HttpAddress(_spelt(host), port, parts.scheme == "https")


def split_multiaddr(text: str) -> list[tuple[str, str]]:
    """Split an address into protocols, each with its value or an empty string.

    Raises UserError for one that is malformed or names a protocol that is not known here: whether
    what follows that is a value, nobody can tell.
    """
    parts = text[1:].rstrip("/").split("/")
    if len(text) > TEXT_MAX or not text.startswith("/") or len(parts) > PARTS_MAX:
        raise UserError(f"{text[:80]!r} is not a multiaddr", hint="it looks like /dns/a.b/tcp/443")
    found: list[tuple[str, str]] = []
    while parts:
        name = parts.pop(0)
        if name in _WITH_VALUE and parts and parts[0]:
            found.append((name, parts.pop(0)))
        elif name in _WITHOUT_VALUE:
            found.append((name, ""))
        else:
            raise UserError(f"{text[:80]!r} has an unknown protocol or no value for one")
    return found


def protocol_names(text: str) -> frozenset[str]:
    """Return the protocols of an address, for filters; nothing for one that cannot be read.

    `tls` with `http` is what others call `https`: either spelling counts as both.
    """
    try:
        names = {name for name, _ in split_multiaddr(text)}
    except UserError:
        return frozenset()
    if "https" in names:
        names |= {"tls", "http"}
    elif {"tls", "http"} <= names:
        names.add("https")
    return frozenset(names)


def parse_http(text: str) -> HttpAddress:
    """Read the address of an HTTP server; raise UserError for what is none, or none over TCP."""
    parts = split_multiaddr(text)
    kind, host = parts.pop(0)
    if parts and parts[-1][0] in ("p2p", "ipfs"):
        parts.pop()
    port = parts.pop(0)[1] if parts and parts[0][0] == "tcp" else ""
    shape = tuple(name for name, _ in parts)
    is_tls = shape != ("http",)
    port = port or ("443" if is_tls else "80")
    is_port = _PORT.fullmatch(port) is not None and int(port) <= PORT_MAX
    if shape not in _SHAPES or not _is_host_of(kind, host) or not is_port:
        raise UserError(f"{text[:80]!r} is not the address of an HTTP server")
    host = _spelt(host)
    name = dict(parts).get("sni", "").lower()
    if name and not _DNS_NAME.fullmatch(name):
        raise UserError(f"{text[:80]!r} names its server wrongly")
    return HttpAddress(host, int(port), is_tls, "" if name == host else name)


_SHAPES = frozenset(
    {
        ("http",),
        ("https",),
        ("tls", "http"),
        ("tls", "https"),
        ("tls", "sni", "http"),
        ("sni", "https"),
    }
)


def _is_host_of(kind: str, host: str) -> bool:
    if kind in ("dns", "dns4", "dns6"):
        return _DNS_NAME.fullmatch(host) is not None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return kind == f"ip{address.version}" and "%" not in host


def _spelt(host: str) -> str:
    """Return the one spelling of a host, so that what is known of it is kept together."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _is_host(host: str) -> bool:
    return any(_is_host_of(kind, host) for kind in ("dns", "ip4", "ip6"))
