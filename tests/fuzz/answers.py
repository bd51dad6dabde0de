"""Whole answers: any request for any DAG is planned within bounds, and says what is true."""

from __future__ import annotations

import functools
import io
import tarfile
from html.parser import HTMLParser

from lichen.cdn.forms.base import Conditions, Place
from lichen.cdn.plan import plan
from lichen.cdn.wanted import Form, read_wanted
from lichen.content import CID, CarReader, dag_pb, unixfs
from lichen.content.cid import DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.unixfs import Kind, UnixFS
from lichen.encoding import from_json
from lichen.errors import LichenError
from lichen.wire.heads import parse_response
from tests.fuzz.graphs import BEGIN, NAMES, READS_MAX, Graph
from tests.fuzz.kit import BrokenPromiseError, Counted, Dice, refusals, require, target

LEAF = CID.of(RAW, b"leaf")
HEAD_BYTES_MAX = 2048
BODY_BYTES_MAX = 1 << 17
QUERIES = (
    "", "format=raw", "format=car", "format=tar", "format=json", "format=cbor", "format=dag-json",
    "format=dag-cbor", "format=car&dag-scope=entity", "format=car&dag-scope=block",
    "format=car&entity-bytes=0:9", "format=car&entity-bytes=-3:*", "from=1",
    "format=car&dag-scope=entity&entity-bytes=2:-1&car-dups=y", "filename=a%22b.txt&download=true",
)  # fmt: skip
ACCEPTS = (
    "", "text/html", "application/json", "application/vnd.ipld.raw", "application/vnd.ipld.car",
    "application/vnd.ipld.car; dups=y", "application/x-tar", "application/vnd.ipld.dag-json",
    "application/vnd.ipld.dag-cbor, */*;q=0.1", "application/cbor",
)  # fmt: skip


@target(
    "wanted", *(query.encode() for query in QUERIES), *(b"\n" + item.encode() for item in ACCEPTS)
)
def wanted(data: bytes) -> None:
    query, _, rest = data.decode("latin-1").partition("\n")
    accept, _, cache = rest.partition("\n")
    with refusals():
        found = read_wanted(query, {"accept": accept, "cache-control": cache})
        require(found == read_wanted(query, {"accept": accept, "cache-control": cache}))
        require(0 <= found.start <= 1_000_000)
        require(found.explicit or "format=" not in query or found.form is not Form.PLAIN or query)


def check_head(status: int, headers: bytes, length: int | None) -> None:
    """A whole head as it leaves: well-formed, and under 2 KiB."""
    head = b"HTTP/1.1 %d \r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n%b" % (status, headers)
    head += b"content-length: %d\r\n\r\n" % (length or 0)
    try:
        parse_response(head, b"GET")
    except LichenError as error:
        raise BrokenPromiseError(head) from error
    require(len(head) <= HEAD_BYTES_MAX, f"{len(head)} bytes of head")


def _site(dice: Dice, graph: Graph) -> CID:
    """A folder above the graph, with rules."""
    blocks = graph.blocks
    rules = blocks.put(
        RAW, dice.choose((b"/* /a 200\n", b"/a/* /:splat 301\n", b"/b https://x.org/"))
    )
    fields = blocks.put(RAW, dice.choose((b"/*\n X-A: b\n", b"/a\n ! etag\n Link: c\n", b"")))
    links = [Link(fields, "_headers"), Link(rules, "_redirects"), Link(graph.root, "a")]
    return blocks.put(DAG_PB, dag_pb.encode(links, unixfs.encode(UnixFS(Kind.DIRECTORY))))


def _request(dice: Dice, graph: Graph):
    kind = dice.choose(("content", "content", "host", "site"))
    root = graph.root if dice.byte() < 128 else _site(dice, graph)
    path = "".join("/" + dice.choose(NAMES) for _ in range(dice.below(4))).replace("..", "")
    path += dice.choose(("", "", "/"))
    prefix = {"content": f"/ipfs/{root}", "host": "", "site": dice.choose(("", "/app/x"))}[kind]
    asked = dice.choose(QUERIES), {"accept": dice.choose(ACCEPTS)}
    numbers = (dice.below(30), dice.below(60))
    ranges = dice.choose(("", "", "bytes=%d-%d", "bytes=-%d", "bytes=%d-", "bytes=%d-%d,0-1"))
    conditions = Conditions(
        dice.choose((b"", b"", b"*", b'W/"x", "%b"' % str(root).encode())),
        b"",
        (ranges % numbers[: ranges.count("%d")]).encode(),
    )
    return Place(root, path, kind, prefix), asked, conditions


@target("answer", *BEGIN, *(bytes((0, 2, 1, 0, 3, number)) * 12 for number in range(12)))
def answer(data: bytes) -> None:
    dice = Dice(data)
    blocks = Counted({}, READS_MAX)
    graph = Graph(dice, blocks)
    place, asked, conditions = _request(dice, graph)
    with refusals(501):
        found = plan(blocks, place, read_wanted(*asked), conditions)
        check_head(found.status, found.headers, found.length)
        body, is_whole = _body(found.pieces)
        if found.pieces is not None and found.length is not None and is_whole:
            require(len(body) == found.length, "another length than was said")
        if found.status == 200 and is_whole:
            _check_body(found.headers, body, graph)


def _body(pieces) -> tuple[bytes, bool]:
    out = bytearray()
    for piece in pieces or ():
        out += piece
        if len(out) > BODY_BYTES_MAX:
            return bytes(out), False
    return bytes(out), True


def _check_body(headers: bytes, body: bytes, graph: Graph) -> None:
    if b"content-type: application/vnd.ipld.car" in headers:
        for cid, block in CarReader(io.BytesIO(body)):
            require(graph.blocks.blocks.get(cid.multihash) == block, "a block nobody stored")
    elif b"content-type: application/x-tar" in headers:
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for entry in archive:
                parts = entry.name.split("/")
                require(not entry.name.startswith("/"), entry.name)
                require(".." not in parts, entry.name)


class _Tags(HTMLParser):
    """The tags of a page, and whether any of them does more than show and link."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            require(not name.startswith("on"), name)
            if name in {"href", "src", "action", "formaction"}:
                scheme = (value or "").partition(":")[0]
                require(
                    scheme == "https" or not scheme.isalnum() or ":" not in (value or ""), value
                )


@functools.cache
def _plain_tags() -> frozenset[str]:
    return frozenset(_tags_of(["name"]))


def _listing(names: list[str], accept: str) -> bytes:
    blocks = Counted({})
    links = [Link(LEAF, name, 4) for name in names]
    cid = blocks.put(DAG_PB, dag_pb.encode(links, unixfs.encode(UnixFS(Kind.DIRECTORY))))
    place = Place(cid, "/", prefix=f"/ipfs/{cid}")
    found = plan(blocks, place, read_wanted("", {"accept": accept}), Conditions())
    check_head(found.status, found.headers, found.length)
    return _body(found.pieces)[0]


def _tags_of(names: list[str]) -> set[str]:
    page = _Tags()
    page.feed(_listing(names, "text/html").decode())
    page.close()
    return page.tags


@target("listing", b"\4<a>\n\5\"on'=", b"\x0ajavascript:", "\x07ä\u202e<!--".encode())
def listing(data: bytes) -> None:
    dice = Dice(data)
    names = [dice.text().replace("index.html", "x") for _ in range(1 + dice.below(6))]
    require(_tags_of(names) <= _plain_tags() | {"a"}, "a name became a tag")
    found = from_json(_listing(names, "application/json"), dict)
    if "entries" in found:
        require([entry["name"] for entry in found["entries"]] == names)
