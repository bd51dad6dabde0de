"""Where requests for content are led: hosts of roots, addresses handed over, media types."""

from __future__ import annotations

import re

from lichen.cdn.media import SNIFFED_BYTES, UNKNOWN, media_type
from lichen.cdn.sites.redirects import with_query
from lichen.cdn.uri import route_uri
from lichen.content import CID
from lichen.gateway.names import Hosts
from lichen.gateway.subdomains import Subdomains
from lichen.wire.heads import parse_request
from tests.fuzz.kit import refusals, require, target

KNOWN = b"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
HOSTS = Hosts(("example.org", "localhost"))
SUBDOMAINS = Subdomains(HOSTS, ["10.0.0.1"], lambda text: str(CID.parse(text)))
_THERE = re.compile(
    rb"\r\nlocation: https?://[a-z0-9-]{1,63}\.ip[fn]s\.(?:example\.org|localhost)"
    rb"(?::[0-9]{0,5})?/[\x21-\x7e]*\r\n"
)
_PATH = re.compile(rb"\r\nlocation: /ip[fn]s/[^/\s\\][\x21-\x7e]*\r\n")


@target(
    "subdomain",
    b"GET /ipfs/%b/a?b HTTP/1.1\r\nHost: example.org:80\r\n\r\n" % KNOWN,
    b"GET /ipfs/%b HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: example.org\r\n\r\n" % KNOWN,
    b"GET http://localhost/ipns/a.b/c HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n",
)
def subdomain(data: bytes) -> None:
    with refusals():
        head = parse_request(data, ("10.0.0.1", 1))
        name = HOSTS.read(head.host)
        moved = SUBDOMAINS.answer(head, name.value if name.kind == "gateway" else "")
        require(moved is None or _THERE.search(moved.head) is not None, moved and moved.head)


@target("uri", b"ipfs%3A%2F%2F" + KNOWN + b"%2Fa%3Fb", b"ipns://example.org/a", b"ipfs://%0d%0a/")
def uri(data: bytes) -> None:
    with refusals():
        head = parse_request(b"GET /ipfs/?uri=%b HTTP/1.1\r\nHost: x\r\n\r\n" % data)
        moved = route_uri(head)
        require(moved is None or _PATH.search(moved.head) is not None, moved and moved.head)


@target(
    "media-type", b"<svg>", b"<!-- --><html>", b"\x89PNG\r\n\x1a\n", b"\xc3\xbc" * SNIFFED_BYTES
)
def media_types(data: bytes) -> None:
    shared = media_type("", data)
    require(b"html" not in shared and b"javascript" not in shared, shared)
    require(media_type(data.decode("latin-1")) is not None)
    require(media_type("") == UNKNOWN)


@target("query", b"/a?b=c#d\nb=e", b"https://x/?%62=1\nb")
def query(data: bytes) -> None:
    location, _, asked = data.decode("latin-1").partition("\n")
    found = with_query(location, asked)
    require(found.startswith(location.partition("#")[0].partition("?")[0]))
    require(asked in found)
