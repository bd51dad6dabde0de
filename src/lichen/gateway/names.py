"""From a Host header to what is meant: an app, content by hash, or the gateway itself. Pure."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from lichen.cdn.names.dnslink import dns_name
from lichen.content import CID
from lichen.errors import UserError
from lichen.gateway.subdomains import LabelTooLongError, label_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_APP = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_ADDRESS = re.compile(r"[0-9.]+|\[.*\]")  # has no hosts below it
APP_PREFIX = b"/app/"
HOST_BYTES_MAX = 260  # a DNS name with a port; longer ones are no key for a cache


class Name(msgspec.Struct, frozen=True):
    """What a host stands for; `value` is the app's name, the CID's text, or the name's label.

    A `domain` (which is the value) is none of the gateway's own, and may have a DNSLink. A
    `gateway` with a value is one of its domains, without one an address. `moved` is a CID in
    another spelling than its host has, which is `to`; a `long` one has no host.
    """

    kind: Literal["app", "ipfs", "ipns", "domain", "gateway", "moved", "long"]
    value: str = ""
    to: str = ""


GATEWAY = Name("gateway")
LOCALHOST = Name("gateway", "localhost")


class Hosts:
    """The domains a gateway answers for: `{app}.app.{host}`, `{cid}.ipfs.{host}`.

    `mapped` are hosts whose content the operator names; other domains may have a DNSLink.
    """

    def __init__(self, hosts: tuple[str, ...], mapped: Iterable[str] = ()) -> None:
        self._hosts = tuple("." + host.lower() for host in hosts)
        self._mapped = frozenset(host.lower() for host in mapped)
        self._kept = functools.lru_cache(maxsize=16_384)(self._read)

    def read(self, host: bytes) -> Name:
        """Return what a Host field stands for."""
        return self._kept(host) if len(host) <= HOST_BYTES_MAX else GATEWAY

    def is_own(self, host: bytes) -> bool:
        """Tell whether a host (lower-case, perhaps with a port) is one that the operator named."""
        name = self.read(host)
        if name is GATEWAY:
            return "." + bare(host) in self._hosts
        return name.kind != "domain" or name.value in self._mapped

    def _read(self, host: bytes) -> Name:
        name = bare(host)
        for base in self._hosts:
            if name.endswith(base):
                label, _, kind = name[: -len(base)].rpartition(".")
                if kind == "app" and _APP.fullmatch(label):
                    return Name("app", label)
                if kind == "ipfs" and label and "." not in label:
                    return _name_of_cid(label)
                if kind == "ipns" and label:  # a domain need not be inlined into one label
                    return Name("ipns", label)
        if "." + name in self._hosts and not _ADDRESS.fullmatch(name):
            return LOCALHOST if name == LOCALHOST.value else Name("gateway", name)
        domain = name if name in self._mapped else dns_name(name)
        return GATEWAY if domain is None else Name("domain", domain)


def bare(host: bytes) -> str:
    """Return a host without its port, in lower case."""
    name = host.decode("latin-1").lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]


def _name_of_cid(label: str) -> Name:
    try:
        host = label_of(CID.parse(label))
    except LabelTooLongError:
        return Name("long", label)
    except UserError:
        return Name("ipfs", label)  # refused where it is answered
    return Name("ipfs", label) if host == label else Name("moved", label, host)


def split_app_path(target: bytes) -> tuple[str, bytes] | None:
    """Split `/app/{app}/rest` into the app and `/rest`; None when it is no such path."""
    if not target.startswith(APP_PREFIX):
        return None
    rest = target[len(APP_PREFIX) :]
    cut = len(rest)
    for mark in (b"/", b"?"):
        found = rest.find(mark)
        if 0 <= found < cut:
            cut = found
    app = rest[:cut].decode("latin-1")
    below = rest[cut:]
    if not _APP.fullmatch(app):
        return None
    return app, below if below.startswith(b"/") else b"/" + below
