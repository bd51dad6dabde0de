"""Documents and TARs over real sockets: from a node's store, and through a gateway that fetches."""

import io
import os
import re
import tarfile

import httpx
import pytest

from lichen.cdn.serve import PAGE_BYTES_MAX
from lichen.content import (
    CID,
    DAG_CBOR,
    DAG_JSON,
    DAG_PB,
    RAW,
    BlockStore,
    CarReader,
    Link,
    dag_cbor,
    dag_json,
    dag_pb,
    unixfs,
)
from tests.integration.test_cdn_delivery import put_file, put_folder, serving


@pytest.fixture
async def node(tmp_path):
    async with serving(tmp_path / "node") as server:
        yield server


@pytest.fixture
async def gateway(node, tmp_path):
    async with serving(tmp_path / "gateway", [node.url]) as server:
        yield server


def put(store, codec, value):
    block = dag_json.encode(value) if codec == DAG_JSON else dag_cbor.encode(value)
    cid = CID.of(codec, block)
    store.put_blocks([(cid, block)])
    return cid


def put_graph(store):
    """Store dag-json -> dag-cbor -> a UnixFS folder with a file; return all four."""
    data = os.urandom(100_000)
    file = put_file(store, data)
    folder = put_folder(store, {"file": file})
    inner = put(store, DAG_CBOR, {"folder": folder, "text": "here"})
    return put(store, DAG_JSON, {"next": [inner]}), inner, folder, data


async def test_a_document_is_served_by_its_codec_and_leads_on_by_its_links(node):
    root, inner, folder, data = put_graph(node.store)
    plain = await node.get(f"/ipfs/{root}")
    assert plain.headers["content-type"] == "application/vnd.ipld.dag-json"
    assert plain.content == dag_json.encode({"next": [inner]})
    head = await node.client.head(f"/ipfs/{root}/next/0", headers={"accept": "application/cbor"})
    assert head.headers["content-type"] == "application/cbor"
    assert int(head.headers["content-length"]) == len(
        dag_cbor.encode({"folder": folder, "text": "here"})
    )
    assert head.headers["content-location"] == f"/ipfs/{root}/next/0?format=cbor"
    page = await node.get(f"/ipfs/{root}/next/0", headers={"accept": "text/html, */*"})
    links = re.findall(r"href='(/[^']*)'", page.text)
    assert links == [f"/ipfs/{root}/next/0/folder"]
    assert (await node.get(links[0] + "/file")).content == data
    for path, headers, status in (
        ("/next", {}, 501),
        ("/next/0/text", {}, 501),
        ("/next/1", {}, 404),
        ("/next/0/folder/nope", {}, 404),
        ("/next/0", {"accept": "application/vnd.ipld.dag-json"}, 406),
        ("/next/0?format=tar", {}, 406),
    ):
        refused = await node.get(f"/ipfs/{root}{path}", headers=headers)
        assert refused.status_code == status
        assert refused.json()["hint"]
    again = await node.get(f"/ipfs/{root}", headers={"if-none-match": plain.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("size", [10, PAGE_BYTES_MAX + 1])
async def test_a_document_of_any_size_is_whole_in_ranges_and_a_page_for_browsers(node, size):
    cid = put(node.store, DAG_CBOR, b"x" * size)
    block = dag_cbor.encode(b"x" * size)
    for accept in ("*/*", "text/html", "*/*", "application/vnd.ipld.dag-cbor"):
        answer = await node.get(f"/ipfs/{cid}", headers={"accept": accept})
        assert (answer.content == block) == (accept != "text/html")
        assert "accept" in answer.headers["vary"]
    part = await node.get(f"/ipfs/{cid}", headers={"range": "bytes=3-6"})
    assert (part.status_code, part.content) == (206, block[3:7])
    head = await node.client.head(f"/ipfs/{cid}")
    assert head.headers["content-length"] == str(len(block))
    assert head.headers["etag"] == part.headers["etag"] == f'"{cid}.dag-cbor"'


async def test_a_tar_is_sent_also_where_the_plain_file_is_kept(node):
    file = put_file(node.store, b"hello")
    assert (await node.get(f"/ipfs/{file}")).content == b"hello"
    answer = await node.get(f"/ipfs/{file}", headers={"accept": "application/x-tar"})
    assert answer.headers["etag"] == f'W/"{file}.x-tar"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert [(member.name, tar.extractfile(member).read()) for member in tar] == [
            (str(file), b"hello")
        ]
    named = await node.get(f"/ipfs/{file}?format=tar&filename=r%C3%A9sum%C3%A9.tar")
    assert named.headers["content-disposition"] == (
        "attachment; filename=\"r_sum_.tar\"; filename*=UTF-8''r%C3%A9sum%C3%A9.tar"
    )
    again = await node.get(f"/ipfs/{file}?format=tar", headers={"if-none-match": f'"{file}.x-tar"'})
    assert again.status_code == 304


async def test_a_name_that_leaves_the_archive_is_refused_with_a_status(node):
    file = put_file(node.store, b"x")
    message = unixfs.encode(unixfs.UnixFS(unixfs.Kind.DIRECTORY))
    block = dag_pb.encode([Link(file, "../../etc/passwd", 1)], message)
    cid = CID.of(DAG_PB, block)
    node.store.put_blocks([(cid, block)])
    answer = await node.get(f"/ipfs/{cid}?format=tar")
    assert answer.status_code == 400
    assert "archive" in answer.json()["detail"]


async def test_a_tar_of_which_a_late_part_is_missing_breaks_off(node):
    here = put_file(node.store, b"x" * 2000)
    files = {f"{number:04}": here for number in range(400)}
    root = put_folder(node.store, files | {"9999": CID.of(RAW, b"missing")})
    with pytest.raises(httpx.RemoteProtocolError):
        await node.get(f"/ipfs/{root}?format=tar")


async def test_a_gateway_fetches_documents_and_archives_and_keeps_them(node, gateway):
    root, inner, _, data = put_graph(node.store)
    assert (await gateway.get(f"/ipfs/{root}/next/0/folder/file")).content == data
    folder = await gateway.get(f"/ipfs/{root}/next/0/folder?format=tar")
    with tarfile.open(fileobj=io.BytesIO(folder.content)) as tar:
        assert [tar.extractfile(member).read() for member in tar if member.isfile()] == [data]
    car = await gateway.get(f"/ipfs/{root}?format=car")
    assert [cid for cid, _ in CarReader(io.BytesIO(car.content))][:2] == [root, inner]
    before = len(node.asked)
    assert (await gateway.get(f"/ipfs/{root}?format=car")).content == car.content
    assert (await gateway.get(f"/ipfs/{root}/next/0?format=cbor")).status_code == 200
    assert len(node.asked) == before


def test_a_pinned_document_keeps_all_that_its_links_reach(tmp_path):
    with BlockStore.open(tmp_path / "store", capacity_bytes=2**30) as store:
        root, inner, folder, data = put_graph(store)
        block = store.get_block(inner)
        twin = put(store, DAG_JSON, {"raw": CID(RAW, inner.digest), "too": inner})
        store.pin(root)
        store.pin(twin)
        for gone in (None, root):  # at last by the twin alone, which names it as bytes first
            if gone is not None:
                store.unpin(gone)
            put_file(store, os.urandom(70_000))
            assert store.collect() > 0
            assert store.get_block(inner) == block
            file = dag_pb.decode(store.get_block(folder)).links[0].cid
            flat = store.flat_file(file)
            assert flat.pread(flat.size) == data
        store.unpin(twin)
        assert store.collect() > len(data)
        assert store.get_block(inner) is None
