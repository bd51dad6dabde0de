"""From paths to hosts: content of a domain gateway has an origin of its own for each root.

`{host}/ipfs/{cid}/path` leads to `{cid}.ipfs.{host}/path`, `/ipns/{name}` likewise
(https://specs.ipfs.tech/http-gateways/subdomain-gateway). What a proxy in front says about host and
scheme counts only where the operator named that proxy, and never decides what content is sent.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from lichen.cdn.formats import (
    moved_headers,
    split_content_path,
)
from lichen.cdn.serve import READ_METHODS
from lichen.cdn.uri import ready
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.content import CID
    from lichen.gateway.names import Hosts
    from lichen.wire import Ready, RequestHead

LABEL_BYTES_MAX: Final = 63
CACHE: Final = b"public, max-age=86400"
NO_STORE: Final = b"no-store"
VARIES: Final = b"vary: accept, sec-fetch-mode\r\n"
NAMESPACES: Final = (b"/ipfs/", b"/ipns/")
LOCALHOST: Final = "localhost"
_TRUSTLESS_QUERIES = ("raw", "car", "ipns-record")
_TRUSTLESS_TYPES = (b"vnd.ipld.raw", b"vnd.ipld.car", b"vnd.ipfs.ipns-record")
_HOST = re.compile(rb"[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")


class LabelTooLongError(UserError):
    """A CID whose text does not fit in a label of a host name, however it is written."""

    code = "label-too-long"


def label_of(cid: CID) -> str:
    """Return a CID as the label of a host: version 1, base32, or base36 where that is too long.

    Raises LabelTooLongError.
    """
    for label in (str(cid.as_v1()), cid.to_base36()):
        if len(label) <= LABEL_BYTES_MAX:
            return label
    raise too_long(str(cid))


def _checked(label: str) -> str:
    if len(label) > LABEL_BYTES_MAX:
        raise LabelTooLongError(
            f"name incompatible with DNS label length limit of {LABEL_BYTES_MAX}: {label[:200]}",
            hint="ask for the path /ipns/... at the gateway's address",
        )
    return label


def too_long(cid: str) -> LabelTooLongError:
    """Return the error for a CID that has no host."""
    return LabelTooLongError(
        f"CID incompatible with DNS label length limit of {LABEL_BYTES_MAX}: {cid[:200]}",
        hint="ask for /ipfs/{cid} at the gateway's address, or import the content with sha2-256",
    )


class Subdomains:
    """Leads requests for paths to the hosts of their content."""

    def __init__(
        self,
        hosts: Hosts,
        trusted_proxies: Sequence[str] = (),
        label_of_name: Callable[[str], str] = str,
    ) -> None:
        """`trusted_proxies` are addresses or networks; raise UserError for what is neither.

        `label_of_name` spells a name as a label and raises UserError for what is none.
        """
        self._hosts = hosts
        self._label_of_name = label_of_name
        self._proxies = [_network(text) for text in trusted_proxies]
        self.has_proxies = bool(self._proxies)

    def answer(self, head: RequestHead, base: str) -> Ready | None:
        """Redirect a path of content to the host of its root, where it was asked for at a domain.

        `base` is the domain of the gateway that the Host field names, empty for another host. A
        trusted proxy may name one, too. None for all other requests. Raises UserError for a
        malformed path, LabelTooLongError and LocationTooLongError.
        """
        path = head.path
        if not path.startswith(NAMESPACES) or path in NAMESPACES:
            return None
        if head.method not in READ_METHODS:
            return None
        host = self.host_of(head) if self.has_proxies else head.host
        if host is not head.host:
            name = self._hosts.read(host)
            base = name.value if name.kind == "gateway" else ""
        is_local = base == LOCALHOST
        if not base or (is_local and not is_page(head)) or _is_trustless(head):
            return None
        return self.moved(head, host, is_local=is_local)

    def moved(self, head: RequestHead, host: bytes, *, is_local: bool = False) -> Ready:
        """Redirect a path of content to the host of its root, or its name, below `host`."""
        _, space, text, *rest = head.path.split(b"/", 3)
        if space == b"ipfs":
            label = label_of(split_content_path(head.path)[0])
        else:
            label = _checked(self._label_of_name(text.decode("ascii", "replace")))
        below = b"/" + b"".join(rest) + (b"?" + head.query if head.query else b"")
        location = b"%b://%b.%b.%b%b" % (self.scheme_of(head), label.encode(), space, host, below)
        return _redirect(location, NO_STORE, VARIES) if is_local else _redirect(location, CACHE)

    def canonical(self, head: RequestHead, label: str, right: str) -> Ready:
        """Redirect a host `{label}.ipfs...` to the one spelling, so that content has one origin."""
        host = right.encode() + head.host[len(label) :]
        return _redirect(b"%b://%b%b" % (self.scheme_of(head), host, head.target), CACHE)

    def host_of(self, head: RequestHead) -> bytes:
        """Return the host that a client asked for, as a trusted proxy says, else the Host field."""
        forwarded = head.get(b"x-forwarded-host").lower()
        is_host = _HOST.fullmatch(forwarded) and self._is_trusted(head)
        return forwarded if is_host else head.host

    def scheme_of(self, head: RequestHead) -> bytes:
        """Return the scheme that a client used, as a trusted proxy says."""
        is_https = head.get(b"x-forwarded-proto").lower() == b"https"
        return b"https" if is_https and self._is_trusted(head) else b"http"

    def _is_trusted(self, head: RequestHead) -> bool:
        if head.client is None:  # a unix socket: whoever may open it is the operator's
            return self.has_proxies
        try:
            address = ipaddress.ip_address(head.client[0])
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def _redirect(location: bytes, cache: bytes, more: bytes = b"") -> Ready:
    return ready(301, moved_headers(location, cache) + more)


def _is_trustless(head: RequestHead) -> bool:
    """Tell whether a client verifies what it gets: it needs no origin, and may follow nothing."""
    query = head.query
    if b"format=" in query:
        return any(f"format={form}".encode() in query.split(b"&") for form in _TRUSTLESS_QUERIES)
    accept = head.get(b"accept")
    return any(kind in accept for kind in _TRUSTLESS_TYPES)


def is_page(head: RequestHead) -> bool:
    """Tell whether a browser opens a page: on one's own machine only that needs an origin."""
    if head.block.find(b"text/html") < 0:
        return False
    mode = head.get(b"sec-fetch-mode")
    return mode == b"navigate" if mode else b"text/html" in head.get(b"accept")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UserError(
            f"trusted_proxies has {text[:80]!r}, which is no address or network",
            hint="write addresses such as 127.0.0.1 or 10.0.0.0/8",
        ) from error
