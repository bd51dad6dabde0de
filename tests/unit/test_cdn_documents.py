"""JSON, CBOR, DAG-JSON and DAG-CBOR: each as it is, under the type that was asked for, or 406."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.cdn.formats import HEADERS_BYTES_MAX, LISTING_CACHE, NotAcceptableError
from lichen.cdn.forms.base import Conditions, Place
from lichen.cdn.forms.preview import VALUES_MAX, preview
from lichen.cdn.plan import plan
from lichen.cdn.wanted import read_wanted
from lichen.content import (
    CBOR,
    CID,
    DAG_CBOR,
    DAG_JSON,
    JSON,
    RAW,
    V1_2025,
    Link,
    MissingBlockError,
    PartOfBlockError,
    dag_cbor,
    dag_json,
    import_bytes,
    import_directory,
)
from lichen.errors import NotFoundError

DAG_TYPE = "application/vnd.ipld.dag-"


class Memory(dict):
    """Blocks in memory."""

    def get_block(self, cid):
        return self.get(cid)

    def add(self, codec, block):
        cid = CID.of(codec, block)
        self[cid] = block
        return cid

    def put(self, cid, block):
        self[cid] = block

    def file(self, data):
        return import_bytes(data, V1_2025, self.put).cid


class Answer:
    """A plan, carried out."""

    def __init__(self, found):
        self.status = found.status
        self.lines = found.headers.decode().splitlines()
        self.headers = dict(line.split(": ", 1) for line in self.lines)
        self.body = b"" if found.pieces is None else b"".join(found.pieces)
        self.length = found.length
        self.kind = self.headers.get("content-type")


def ask(blocks, cid, path="", query="", accept="", byte_range=b"", kind="content"):
    prefix = f"/ipfs/{cid}" if kind == "content" else ""
    wanted = read_wanted(query, {"accept": accept} if accept else {})
    conditions = Conditions(range=byte_range)
    return Answer(plan(blocks, Place(cid, path, kind, prefix), wanted, conditions))


def documents(blocks):
    """Return a document of each codec: its CID, bytes and short name."""
    value = {"hello": "world", "n": [1, 2]}
    made = {
        JSON: b'{ "hello": "plain" }\n',
        CBOR: b"\xa1\x61a\x01",
        DAG_JSON: dag_json.encode(value),
        DAG_CBOR: dag_cbor.encode(value),
    }
    return {codec: (blocks.add(codec, block), block) for codec, block in made.items()}


@pytest.mark.parametrize(
    ("codec", "query", "accept", "kind"),
    [
        (JSON, "", "", "application/json"),
        (JSON, "format=json", "", "application/json"),
        (JSON, "", "application/json", "application/json"),
        (JSON, "", "text/html,*/*;q=0.8", "application/json"),
        (CBOR, "", "", "application/cbor"),
        (CBOR, "format=cbor", "application/vnd.ipld.raw", "application/cbor"),
        (CBOR, "", "application/cbor", "application/cbor"),
        (DAG_JSON, "", "", DAG_TYPE + "json"),
        (DAG_JSON, "", "*/*", DAG_TYPE + "json"),
        (DAG_JSON, "format=json", "", "application/json"),
        (DAG_JSON, "format=dag-json", "application/vnd.ipld.raw", DAG_TYPE + "json"),
        (DAG_JSON, "", "application/json", "application/json"),
        (DAG_JSON, "", "application/json, */*", "application/json"),
        (DAG_JSON, "", DAG_TYPE + "json", DAG_TYPE + "json"),
        (DAG_JSON, "download=true", "text/html", DAG_TYPE + "json"),
        (DAG_CBOR, "", "", DAG_TYPE + "cbor"),
        (DAG_CBOR, "format=cbor", "", "application/cbor"),
        (DAG_CBOR, "", "application/cbor", "application/cbor"),
        (DAG_CBOR, "", "application/json, */*;q=0.1", DAG_TYPE + "cbor"),
        (DAG_CBOR, "format=dag-cbor", "", DAG_TYPE + "cbor"),
    ],
)
def test_a_document_is_sent_as_it_is_under_the_type_asked_for(codec, query, accept, kind):
    blocks = Memory()
    cid, block = documents(blocks)[codec]
    answer = ask(blocks, cid, query=query, accept=accept)
    assert (answer.status, answer.body, answer.length) == (200, block, len(block))
    assert answer.kind == kind
    form = kind.rpartition(".")[2].rpartition("/")[2]
    assert answer.headers["etag"] == f'"{cid}.{form}"'
    suffix = form.removeprefix("dag-")
    shown = "inline" if suffix == "json" and "download" not in query else "attachment"
    assert answer.headers["content-disposition"] == f'{shown}; filename="{cid}.{suffix}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-ipfs-path"] == f"/ipfs/{cid}"
    assert answer.headers["x-ipfs-roots"] == str(cid)
    assert "immutable" in answer.headers["cache-control"]
    assert ("vary" in answer.headers) == ("format" not in query)
    part = ask(blocks, cid, query=query, accept=accept, byte_range=b"bytes=1-2")
    assert (part.status, part.body) == (206, block[1:3])


@pytest.mark.parametrize(
    ("codec", "query", "accept"),
    [
        (JSON, "format=dag-json", ""),
        (JSON, "format=cbor", ""),
        (CBOR, "format=dag-cbor", ""),
        (CBOR, "", "application/json"),
        (DAG_JSON, "format=dag-cbor", ""),
        (DAG_JSON, "format=cbor", ""),
        (DAG_JSON, "", DAG_TYPE + "cbor"),
        (DAG_CBOR, "format=json", ""),
        (DAG_CBOR, "format=dag-json", ""),
        (DAG_CBOR, "", "application/json"),
        (DAG_CBOR, "format=tar", ""),
    ],
)
def test_another_codec_is_not_acceptable(codec, query, accept):
    blocks = Memory()
    cid, _ = documents(blocks)[codec]
    with pytest.raises(NotAcceptableError):
        ask(blocks, cid, query=query, accept=accept)


def test_a_unixfs_file_is_json_where_it_is():
    blocks = Memory()
    good, bad = blocks.file(b'{"a": [1, null]}'), blocks.file(b"{a: 1}")
    large = blocks.file(b'["' + b"x" * (1 << 20) + b'"]')
    for cid, kind in ((good, "application/json"), (large, "application/json")):
        answer = ask(blocks, cid, query="format=json", accept="application/vnd.ipld.raw")
        assert (answer.status, answer.kind) == (200, kind)
        assert answer.headers["etag"] == f'"{cid}.json"'
    assert ask(blocks, good, query="format=json", byte_range=b"bytes=0-0").body == b"{"
    folder = import_directory([Link(good, "t.json")], V1_2025, blocks.put).cid
    assert ask(blocks, folder, "/t.json", "format=json").body == b'{"a": [1, null]}'
    for cid in (
        bad,
        blocks.file(b""),
        blocks.file(b'"\xff"'),
        blocks.file(b"x" * (2 << 20)),
        folder,
    ):
        with pytest.raises(NotAcceptableError):
            ask(blocks, cid, query="format=json")
    for form in ("cbor", "dag-json", "dag-cbor"):
        with pytest.raises(NotAcceptableError):
            ask(blocks, good, query=f"format={form}")


def test_a_path_leads_through_links_and_not_into_blocks():
    blocks = Memory()
    last = blocks.add(DAG_JSON, b'{"hello":"here"}')
    first = blocks.add(DAG_CBOR, dag_cbor.encode({"foo": {"link": last, "n": 1}}))
    folder = import_directory([Link(first, "doc")], V1_2025, blocks.put).cid
    answer = ask(blocks, folder, "/doc/foo/link", "format=dag-json")
    assert answer.body == b'{"hello":"here"}'
    assert answer.headers["x-ipfs-roots"] == f"{folder},{first},{last}"
    assert ask(blocks, folder, "/doc/foo/link/").body == answer.body
    for path in ("/doc/foo", "/doc/foo/n"):
        for query in ("", "format=dag-cbor", "format=raw"):
            with pytest.raises(PartOfBlockError):
                ask(blocks, folder, path, query)
    for path in ("/doc/bar", "/doc/foo/link/bar", "/doc/foo/n/0"):
        for query in ("", "format=dag-json"):
            with pytest.raises(NotFoundError):
                ask(blocks, folder, path, query)
    with pytest.raises(MissingBlockError):
        ask(blocks, blocks.add(DAG_CBOR, dag_cbor.encode([CID.of(DAG_JSON, b"?")])), "/0")


@pytest.mark.parametrize("kind", ["content", "host"])
def test_a_browser_gets_a_page_with_links_to_follow(kind):
    blocks = Memory()
    value = {"a/b": CID.of(RAW, b"0"), "to <here>": CID.of(RAW, b"1"), "x": [True, b"\1", "</p>"]}
    cid = blocks.add(DAG_CBOR, dag_cbor.encode({"in": value}))
    answer = ask(blocks, cid, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8", kind=kind)
    page = answer.body.decode()
    assert answer.kind == "text/html; charset=utf-8"
    assert "DagIndex-" in answer.headers["etag"]
    assert answer.headers["cache-control"] == LISTING_CACHE.decode()
    assert "content-disposition" not in answer.headers
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert page.endswith("</html>\n")
    assert "<here>" not in page
    assert "&lt;/p&gt;" in page
    where = f"/ipfs/{cid}/in/" if kind == "content" else "/in/"
    links = [html.unescape(link) for link in re.findall(r"href='([^']*)'", page)]
    assert [link for link in links if not link.startswith("?")] == [where + "to%20%3Chere%3E"]
    assert str(value["a/b"]) in page


def test_a_block_that_cannot_be_read_has_a_page_that_says_so():
    for codec, block in ((DAG_CBOR, b"\xff"), (DAG_JSON, b"<script>")):
        page = b"".join(preview(CID.of(codec, block), block, "/", "/")).decode()
        assert "cannot be shown" in page
        assert "<script>" not in page


def test_header_fields_stay_short_whatever_is_asked():
    blocks = Memory()
    cid = blocks.add(DAG_CBOR, dag_cbor.encode({"x": 1}))
    for name in ("ж" * 100, "d", "€" * 20) * 3:
        cid = import_directory([Link(cid, name)], V1_2025, blocks.put).cid
    path = "/" + "/".join(["€" * 20, "d", "ж" * 100] * 3)
    for accept in (DAG_TYPE + "cbor", "application/cbor", "text/html", ""):
        answer = ask(blocks, cid, path, "filename=" + "ж" * 100 + ".cbor", accept)
        assert answer.status == 200
        assert sum(len(line) + 2 for line in answer.lines) <= HEADERS_BYTES_MAX + 100
    folder = import_directory([Link(blocks.file(b"x"), "y")], V1_2025, blocks.put).cid
    answer = ask(blocks, folder, "", "filename=" + "ж" * 100, "application/x-tar")
    assert answer.status == 200
    assert sum(len(line) + 2 for line in answer.lines) <= HEADERS_BYTES_MAX + 100


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=20), st.integers(0, VALUES_MAX + 500))
def test_a_page_is_bounded_and_escapes_all_it_shows(text, count):
    value = {text: [text] * count, "<b>": CID.of(RAW, b"")}
    block = dag_cbor.encode(value)
    page = b"".join(preview(CID.of(DAG_CBOR, block), block, text, f"/{text}")).decode()
    shown = page.partition("<pre>")[2]
    assert set(re.findall(r"</?(\w+)", shown)) <= {"a", "b", "i", "pre", "body", "html"}
    assert len(page) < 400 * VALUES_MAX
