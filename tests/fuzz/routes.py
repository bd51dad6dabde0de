"""Routing and the front door: strangers' records, addresses, DNS texts, and any request there is."""

from __future__ import annotations

import functools
import re

from lichen.cdn.names.dnslink import choose, dns_name, inline, outline
from lichen.cdn.retrieval.routers import read_document, read_record
from lichen.cdn.routing.multiaddr import parse_http, parse_origin, protocol_names, split_multiaddr
from lichen.cdn.routing.records import RECORDS_MAX, read_filters, write_records
from lichen.errors import LichenError, PeerError
from lichen.wire import Asgi, Ready
from lichen.wire.answers import Work
from lichen.wire.heads import parse_request, parse_response
from tests.fuzz.kit import BrokenPromiseError, refusals, require, scratch, target
from tests.unit.test_gateway_front import World

HEAD_BYTES_MAX = 2048
TEXT = re.compile(r"[\x21-\x7e]*")


@target(
    "multiaddr",
    b"/dns/a.example/tcp/443/tls/http",
    b"/ip6/::1/tcp/80/http",
    b"/ip4/1.2.3.4/tcp/1/https/p2p/x",
    bytes_max=600,
)
def multiaddr(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    names = protocol_names(text)
    with refusals():
        require({name for name, _ in split_multiaddr(text)} <= names)
        address = parse_http(text)
        require(parse_http(address.multiaddr) == address)
        require(TEXT.fullmatch(address.url), address.url)
        require(not set("@/?#\\") & set(address.host + address.name))
        if not address.name:
            require(parse_origin(address.url) == address)


@target("origin", b"https://a.example:8443", b"http://[::1]:80/", b"http://a@b/", bytes_max=600)
def origin(data: bytes) -> None:
    with refusals():
        address = parse_origin(data.decode("utf-8", "replace"))
        require(parse_origin(address.url) == address)
        require(parse_http(address.multiaddr) == address)
        require(0 < address.port < 1 << 16)


RECORD = (
    b'{"Schema":"peer","ID":"12D3KooW","Addrs":["/dns/a.b/tcp/443/tls/http"],"Protocols":["x"]}'
)


@target(
    "routing-answer",
    RECORD,
    b'{"Providers":[%b]}' % RECORD,
    b'{"Peers":[1,null]}',
    b'{"a":' + b"[" * 900,
)
def routing_answer(data: bytes) -> None:
    record = read_record(data)
    records = [] if record is None else [record]
    try:
        found = read_document(data)
    except PeerError:
        found = []
    require(len(found) <= RECORDS_MAX)
    records += found
    with refusals():
        filters = read_filters(data[:200].decode("latin-1"))
        require(len(filters.apply(records)) <= len(records))
    body = write_records(records, "Providers", as_lines=False)
    require(len(read_document(body)) == len(records[:RECORDS_MAX]))


@target(
    "dnslink",
    b"dnslink=/ipfs/x",
    b"dnslink=/ipns/b\ndnslink=/ipfs/a\nspf",
    b"en.wiki-x.org",
    bytes_max=600,
)
def dnslink(data: bytes) -> None:
    path = choose(data.split(b"\n"))
    if path is not None:
        require(path.startswith(("/ipfs/", "/ipns/")))
        require("\0" not in path)
    host = dns_name(data.decode("latin-1"))
    if host is not None:
        require(outline(inline(host)) == host)
        require(dns_name(host) == host)
        require("." not in inline(host))


@functools.cache
def _world() -> World:
    return World(scratch())


CID = b"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
REQUESTS = [
    b"GET / HTTP/1.1\r\nhost: shop.app.localhost\r\n\r\n",
    b"GET /app/shop/old HTTP/1.1\r\nhost: localhost:8080\r\nrange: bytes=0-1\r\n\r\n",
    b"GET /ipfs/%b/a?format=car HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\n\r\n" % CID,
    b"GET /ipfs/?uri=ipfs://%b/a%%0d%%0ab HTTP/1.1\r\nhost: localhost\r\n\r\n" % CID,
    b"GET /a HTTP/1.1\r\nhost: %b.ipfs.localhost\r\nx-forwarded-host: evil\r\n\r\n" % CID,
    b"GET /ipns/en.wiki.org/a HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nhost: en-wiki-org.ipns.localhost\r\nservice-worker: script\r\n\r\n",
    b"POST /api/v1/content HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET http://localhost/ipfs/%b HTTP/1.1\r\nhost: x\r\n\r\n" % CID,
]


@target("front", *REQUESTS, bytes_max=700)
def front(data: bytes) -> None:
    """Whatever is asked, the router decides on something, and says nothing that it must not."""
    try:
        head = parse_request(data)
    except LichenError:
        return
    if head.method == b"CONNECT":
        return
    world = _world()
    with refusals(503):
        answer = world.front.route(head)
        require(answer is None or isinstance(answer, Ready | Asgi | Work))
        if isinstance(answer, Ready):
            _check_ready(answer)
    with refusals(503):
        world.front.place(head.host, head.path)


def _check_ready(answer: Ready) -> None:
    try:
        sent = parse_response(answer.head, b"GET")
    except LichenError as error:
        raise BrokenPromiseError(answer.head) from error
    require(len(answer.head) <= HEAD_BYTES_MAX, f"{len(answer.head)} bytes of head")
    if sent.status not in {204, 304}:
        require(sent.length == len(answer.body))
    location = sent.get(b"location").decode("latin-1")
    require(TEXT.fullmatch(location), location)
    require(not location.startswith(("//evil", "/\\")), location)
