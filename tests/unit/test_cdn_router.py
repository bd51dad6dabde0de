"""The router of content: what it answers at once, from a real store."""

import io
import json

import pytest

from lichen.cdn.serve import TO_ASGI, ContentRouter
from lichen.content import CID, DAG_PB, RAW, BlockStore, dag_pb, unixfs
from lichen.wire import Ready, SendFile
from lichen.wire.heads import usual_request
from tests.unit.test_gateway_front import fields, put_site

SITE = {"index.html": b"<p>home", "d/README": b"plain", "big": b"<svg>" + b" " * 100_000}


class World:
    def __init__(self, store):
        self.store = store
        self.router = ContentRouter(store)
        self.site = put_site(store, SITE)

    def ask(self, target, label=None, method="GET", **headers):
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = usual_request(
            f"{method} {target} HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode(), None, 100
        )
        assert head is not None
        return self.router.answer(head) if label is None else self.router.answer_host(head, label)


@pytest.fixture
def world(tmp_path):
    with BlockStore.open(tmp_path / "content", capacity_bytes=2**28) as store:
        yield World(store)


def test_an_index_page_has_its_folders_tag_and_is_known_by_it(world):
    page = world.ask(f"/ipfs/{world.site}/")
    assert (page.status, page.body) == (200, b"<p>home")
    assert fields(page)["etag"] == f'"{world.site}"'
    known = world.ask(f"/ipfs/{world.site}/", if_none_match=f'"{world.site}"')
    assert (known.status, known.body) == (304, b"")


def test_a_file_without_a_suffix_is_typed_by_how_it_begins(world):
    assert fields(world.ask(f"/ipfs/{world.site}/d/README"))["content-type"].startswith(
        "text/plain"
    )
    large = world.ask(f"/ipfs/{world.site}/big")
    assert isinstance(large, SendFile)
    assert b"content-type: image/svg+xml; charset=utf-8\r\n" in large.head_bytes
    assert b"content-security-policy: sandbox" in large.head_bytes  # an SVG runs scripts


def test_a_symlink_is_answered_at_once(world):
    message = unixfs.UnixFS(unixfs.Kind.SYMLINK, b"d/README")
    block = dag_pb.encode([], unixfs.encode(message))
    cid = CID.of(DAG_PB, block)
    world.store.put_block(cid, block)
    answer = world.ask(f"/ipfs/{cid}")
    assert (answer.status, answer.body) == (200, b"d/README")


@pytest.mark.parametrize("label", [None, "host"])
def test_pages_of_other_origins_may_ask_before_they_read(world, label):
    asked = world.ask("/ipfs/x", None if label is None else str(world.site), method="OPTIONS")
    assert asked.status == 204
    assert fields(asked)["access-control-allow-origin"] == "*"
    assert fields(asked)["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert "Range" in fields(asked)["access-control-allow-headers"]
    assert fields(asked)["allow"] == "GET, HEAD, OPTIONS"


def test_no_service_worker_rules_over_all_content_of_a_path_gateway(world):
    file = world.store.add_file(io.BytesIO(b"self.onfetch = 1"))[0]
    for spelled in ("Service_Worker", "service_worker"):
        asked = {spelled: "script"}
        for query in ("", "?filename=a.js"):
            refused = world.ask(f"/ipfs/{file}{query}", accept="application/json", **asked)
            assert refused.status == 400
            assert "service-worker" in json.loads(refused.body)["type"]
        assert world.ask(f"/ipfs/{world.site}/d/README", **asked).status == 200
        assert world.ask("/", str(file), **asked).status == 200


def test_what_is_not_here_is_412_for_who_takes_only_that_and_404_for_others(world):
    missing = CID.of(RAW, b"elsewhere")
    for path in (f"/ipfs/{missing}", f"/ipfs/{missing}?format=raw"):
        assert world.ask(path, cache_control="only-if-cached").status == 412
        assert world.ask(path, method="HEAD", cache_control="Only-If-Cached").status == 412
        assert world.ask(path).status == 404
    assert world.ask(f"/ipfs/{world.site}/", cache_control="only-if-cached").status == 200
    world.router = ContentRouter(world.store, can_fetch=True)
    assert world.ask(f"/ipfs/{missing}", cache_control="only-if-cached") is TO_ASGI


def test_a_refusal_may_be_read_by_pages_of_other_origins(world):
    for target in (f"/ipfs/{world.site}/none", "/ipfs/QmNoCID", f"/ipfs/{CID.of(RAW, b'z')}"):
        refused = world.ask(target)
        assert refused.status in {400, 404}
        assert fields(refused)["access-control-allow-origin"] == "*"
        assert fields(refused)["cache-control"] == "no-store"
    page = world.ask("/ipfs/<b>Qm", accept="text/html,*/*")
    assert fields(page)["content-type"] == "text/html; charset=utf-8"
    assert b"&lt;b&gt;Qm" in page.body
    assert b"<b>" not in page.body
    assert fields(page)["content-security-policy"].startswith("default-src 'none'")
    mistyped = world.ask("/ipfs/QmNoCID")
    assert mistyped.body.startswith(b'invalid path "/ipfs/QmNoCID"')
    assert fields(mistyped)["content-type"] == "text/plain; charset=utf-8"


def test_what_a_client_takes_decides_who_answers(world):
    path = f"/ipfs/{world.site}/d/README"
    for accept in ("*/*", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"):
        assert world.ask(path, accept=accept).body == b"plain"
    raw = world.ask(f"/ipfs/{world.site}", accept="application/vnd.ipld.raw")
    assert fields(raw)["content-type"] == "application/vnd.ipld.raw"
    for accept in ("application/x-tar", "application/vnd.ipld.car", "application/json", "a/b;q=x,"):
        assert world.ask(path, accept=accept) is TO_ASGI or accept == "a/b;q=x,"


def test_a_head_request_has_the_fields_of_a_get_request(world):
    for path in ("/", "/d/README", "/big"):
        got = world.ask(f"/ipfs/{world.site}{path}")
        head = world.ask(f"/ipfs/{world.site}{path}", method="HEAD")
        assert isinstance(head, Ready)
        block = got.head if isinstance(got, Ready) else got.head_bytes
        assert head.head == block
