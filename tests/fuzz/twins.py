"""The two ways to answer for content, event loop and threads, say the same of the same request."""

from __future__ import annotations

import functools
from urllib.parse import quote

from lichen.cdn.forms.base import Conditions, Place
from lichen.cdn.plan import plan
from lichen.cdn.serve import ContentRouter
from lichen.cdn.wanted import read_wanted
from lichen.content import BlockStore, MissingBlockError
from lichen.content.cid import CID, IDENTITY
from lichen.errors import LichenError
from lichen.wire import Ready
from lichen.wire.answers import Work
from lichen.wire.heads import parse_request, parse_response
from tests.fuzz.graphs import BEGIN, NAMES, Graph
from tests.fuzz.kit import Counted, Dice, require, scratch, target

CAPACITY_BYTES = 1 << 27
QUERIES = ("", "", "", "format=raw")
FIELDS = (b"", b"", b"range: bytes=%d-%d\r\n", b"if-none-match: *\r\n", b"accept: text/html\r\n")
COMPARED = (b"etag", b"content-type", b"content-range", b"location", b"cache-control")


@functools.cache
def _store() -> BlockStore:
    return BlockStore.open(scratch(), capacity_bytes=CAPACITY_BYTES)


def _fill(store: BlockStore, graph: Graph) -> None:
    if store.usage_bytes > CAPACITY_BYTES // 2:
        store.collect()
    blocks = graph.blocks.blocks
    known = [cid for cid in graph.cids if cid.hash_code != IDENTITY and cid.multihash in blocks]
    store.put_blocks((cid, blocks[cid.multihash]) for cid in known)


@target("twins", *BEGIN, *(bytes((0, 2, 1, 0, 3, number)) * 12 for number in range(8)))
def twins(data: bytes) -> None:
    dice = Dice(data)
    graph = Graph(dice, Counted({}))
    store = _store()
    _fill(store, graph)
    path = "".join("/" + dice.choose(NAMES) for _ in range(dice.below(4))).replace("..", "")
    path += dice.choose(("", "/"))
    query, field = dice.choose(QUERIES), dice.choose(FIELDS)
    if b"%d" in field:
        field %= (dice.below(20), dice.below(40))
    target_of = f"/ipfs/{graph.root}{quote(path)}" + (f"?{query}" if query else "")
    block = b"GET %b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (target_of.encode(), field)
    one = _by_router(store, block)
    if one is not None:
        other = _by_plan(store, graph.root, path, query, block)
        require(one == other, (one, other))


def _by_router(store: BlockStore, block: bytes):
    """Return what the event loop says; None where it leaves that to threads."""
    try:
        answer = ContentRouter(store).answer(parse_request(block))
    except LichenError as error:
        return error.status
    if isinstance(answer, Work) or not isinstance(answer, Ready):
        return None
    head = parse_response(answer.head, b"GET")
    if head.status >= 400 and head.status != 416:
        return head.status
    body = b"" if head.status in {304, 301} else answer.body
    return head.status, [head.get(name) for name in COMPARED], body


def _by_plan(store: BlockStore, root: CID, path: str, query: str, block: bytes):
    head = parse_request(block)
    fields = {name.decode(): value.decode("latin-1") for name, value in head.headers}
    conditions = Conditions(head.get(b"if-none-match"), b"", head.get(b"range"))
    try:
        wanted = read_wanted(query, fields)
        found = plan(store, Place(root, path, prefix=f"/ipfs/{root}"), wanted, conditions)
        body = b"".join(found.pieces or ())
    except MissingBlockError as error:
        return error.status
    except LichenError as error:
        return error.status
    lines = b"HTTP/1.1 %d \r\n%bcontent-length: %d\r\n\r\n" % (
        found.status,
        found.headers,
        len(body),
    )
    sent = parse_response(lines, b"GET")
    return found.status, [sent.get(name) for name in COMPARED], body
