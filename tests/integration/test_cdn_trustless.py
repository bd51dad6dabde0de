"""Raw blocks and CARs over real sockets, as the trustless gateway specification wants them."""

import contextlib
import hashlib
import io
import os

import httpx
import pytest

from lichen.cdn.delivery import Delivery
from lichen.cdn.forms.base import Place
from lichen.cdn.retrieval.fetch import Fetcher
from lichen.cdn.serve import ContentRouter
from lichen.content import (
    CID,
    DAG_CBOR,
    DAG_PB,
    RAW,
    BlockStore,
    CarReader,
    Link,
    dag_cbor,
    dag_pb,
    import_directory,
    import_symlink,
    read_file,
    unixfs,
)
from lichen.content.cid import IDENTITY
from lichen.content.profile import V1_2025
from lichen.content.unixfs import Kind, UnixFS
from lichen.wire import ListenerConfig, listening

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
HEADERS_BYTES_MAX = 2048
CHUNK = 1000
NAMES = [f"{number:0200}" for number in range(1500)]  # too many for one block


class World:
    """A store and its server."""

    def __init__(self, store, client):
        self.store = store
        self.client = client

    def put(self, codec, data, hash_code=None):
        cid = CID.of(codec, data) if hash_code is None else CID(codec, hash_code(data), 0x13)
        self.store.put_block(cid, data)
        return cid

    def node(self, links, message):
        return self.put(DAG_PB, dag_pb.encode(links, unixfs.encode(message)))

    def folder(self, entries):
        links = [Link(cid, name, 1) for name, cid in entries.items()]
        return self.node(links, UnixFS(Kind.DIRECTORY))

    def file(self, data, *, missing=()):
        """Put a file in chunks of 1,000 bytes; leave chunks out."""
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        cids = [CID.of(RAW, chunk) for chunk in chunks]
        named = zip(cids, chunks, strict=True)
        self.store.put_blocks(block for number, block in enumerate(named) if number not in missing)
        sizes = tuple(map(len, chunks))
        links = [Link(cid, "", size) for cid, size in zip(cids, sizes, strict=True)]
        return self.node(links, UnixFS(Kind.FILE, None, len(data), sizes)), cids

    def hamt(self, names, target):
        links = [Link(target, name, 1) for name in names]
        made = {}
        root = import_directory(links, V1_2025, made.__setitem__)
        self.store.put_blocks(made.items())
        assert len(made) > 1
        return root.cid, made

    async def car(self, path, query="", accept=None, status=200):
        headers = {} if accept is None else {"accept": accept}
        answer = await self.client.get(f"{path}?format=car{query}", headers=headers)
        assert answer.status_code == status, answer.content[:200]
        return answer

    async def cids(self, path, query="", accept=None):
        answer = await self.car(path, query, accept)
        return [cid for cid, _ in CarReader(io.BytesIO(answer.content))]


@contextlib.asynccontextmanager
async def serving(folder, peers=None):
    store = BlockStore.open(folder, capacity_bytes=2**30)
    fetcher = None if peers is None else Fetcher(store, lambda: peers)
    delivery = Delivery(store, fetcher)
    router = ContentRouter(store, can_fetch=peers is not None)
    try:
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        async with listening(config, router.answer, delivery.before(_nothing)) as listener:
            url = f"http://127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                yield World(store, client)
    finally:
        if fetcher is not None:
            await fetcher.close()
        delivery.close()
        store.close()


async def _nothing(scope, receive, send):
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
async def node(tmp_path):
    async with serving(tmp_path / "node") as world:
        yield world


def header_bytes(answer):
    return sum(len(name) + len(value) + 4 for name, value in answer.headers.raw)


@pytest.mark.parametrize(
    ("query", "headers", "negotiated"),
    [("?format=raw", {}, False), ("", {"accept": RAW_TYPE}, True),
     ("?format=raw&x=y", {}, False), ("?x=y", {"accept": f"{RAW_TYPE}, */*;q=0.1"}, True),
     ("?format=raw", {"accept": CAR_TYPE}, False), ("?format=raw", {"accept": RAW_TYPE}, None)],
)  # fmt: skip
async def test_a_raw_block_has_all_its_header_fields_however_it_is_asked_for(
    node, query, headers, negotiated
):
    cid = node.put(RAW, b"hello world")
    answer = await node.client.get(f"/ipfs/{cid}{query}", headers=headers)
    head = await node.client.head(f"/ipfs/{cid}{query}", headers=headers)
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    assert answer.content == b"hello world"
    for found in (answer.headers, head.headers):
        assert found["content-type"] == RAW_TYPE
        assert found["content-length"] == "11"
        assert found["content-disposition"] == f'attachment; filename="{cid}.bin"'
        assert found["x-content-type-options"] == "nosniff"
        assert found["x-ipfs-path"] == f"/ipfs/{cid}"
        assert found["x-ipfs-roots"] == str(cid)
        assert found["etag"] == f'"{cid}.raw"'
        assert {"public", "immutable"} <= set(found["cache-control"].split(", "))
        if negotiated is not None:
            location = f"/ipfs/{cid}?format=raw" if negotiated else None
            assert found.get("content-location") == location
            assert found.get("vary") == ("accept" if negotiated else None)
    assert header_bytes(answer) < HEADERS_BYTES_MAX


@pytest.mark.parametrize("query", ["?format=raw", "?format=raw&filename=a.bin"])
async def test_a_raw_block_has_ranges_and_a_validator(node, query):
    cid = node.put(RAW, b"hello world")
    path = f"/ipfs/{cid}{query}"
    part = await node.client.get(path, headers={"range": "bytes=6-8"})
    assert (part.status_code, part.content) == (206, b"wor")
    assert part.headers["content-range"] == "bytes 6-8/11"
    many = await node.client.get(path, headers={"range": "bytes=6-8,0-1"})
    assert (many.status_code, many.content) in {(200, b"hello world"), (206, b"wor")}
    beyond = await node.client.get(path, headers={"range": "bytes=11-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */11")
    for tag in (part.headers["etag"], f"W/{part.headers['etag']}", '"x", ' + part.headers["etag"]):
        same = await node.client.get(path, headers={"if-none-match": tag})
        assert (same.status_code, same.content) == (304, b"")
    other = await node.client.get(path, headers={"if-none-match": f'"{cid}"'})
    assert other.status_code == 200


async def test_what_to_save_a_block_or_car_as_may_be_asked_for(node):
    cid = node.put(RAW, b"x")
    for form in ("raw", "car"):
        named = await node.client.get(f"/ipfs/{cid}?format={form}&filename=foobar.{form}")
        assert named.headers["content-disposition"] == f'attachment; filename="foobar.{form}"'
        hostile = await node.client.get(f'/ipfs/{cid}?format={form}&filename=a%22%0D%0Ax: y/../"')
        assert hostile.headers["content-disposition"].startswith('attachment; filename="a_')
        assert "x" not in hostile.headers
        shown = await node.client.get(f"/ipfs/{cid}?format={form}&download=false")
        assert shown.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("form", ["raw", "car"])
async def test_header_fields_stay_small_whatever_is_asked(node, form):
    deep = node.put(RAW, b"x")
    for _ in range(10):
        deep = node.folder({"\u00fc" * 60: deep})
    path = f"/ipfs/{deep}" + f"/{'%C3%BC' * 60}" * 10
    accept = {"accept": f"application/vnd.ipld.{form}"}
    answer = await node.client.get(path, params={"filename": "\u00fc" * 120}, headers=accept)
    assert answer.status_code == 200
    assert header_bytes(answer) < HEADERS_BYTES_MAX
    for name in ("etag", "content-type", "content-disposition", "vary"):
        assert name in answer.headers
    identity = CID(RAW, os.urandom(128), IDENTITY)
    answer = await node.client.get(f"/ipfs/{identity}", headers=accept)
    assert answer.status_code == 200
    assert header_bytes(answer) < HEADERS_BYTES_MAX


async def test_blocks_of_any_codec_and_known_hash_can_be_had_and_identity_cids_too(node):
    blocks = {
        node.put(DAG_CBOR, dag_cbor.encode({"a": 1})): dag_cbor.encode({"a": 1}),
        node.put(0x0129, b'{"a":1}'): b'{"a":1}',
        node.put(0x78, b"git"): b"git",
        node.put(RAW, b"long", lambda data: hashlib.sha512(data).digest()): b"long",
        CID.parse("bafkqaaa"): b"",
        CID(RAW, b"inline", IDENTITY): b"inline",
        CID(0x78, b"inline", IDENTITY): b"inline",
    }
    for cid, data in blocks.items():
        for query, accept in (("?format=raw", "*/*"), ("", RAW_TYPE), ("?format=raw&a=b", "*/*")):
            answer = await node.client.get(f"/ipfs/{cid}{query}", headers={"accept": accept})
            assert (answer.status_code, answer.content) == (200, data)
        head = await node.client.head(f"/ipfs/{cid}?format=raw")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
        answer = await node.car(f"/ipfs/{cid}")
        car = CarReader(io.BytesIO(answer.content))
        expected = [] if cid.hash_code == IDENTITY else [(cid, data)]
        assert (car.roots, list(car)) == ((cid,), expected)


async def test_a_block_is_had_at_the_end_of_a_path(node):
    file = node.put(RAW, b"file")
    hamt, _ = node.hamt(NAMES, file)
    root = node.folder({"h": hamt, "link": import_symlink("h", V1_2025, _put(node)).cid})
    path = f"/ipfs/{root}/h/{NAMES[471]}"
    answer = await node.client.get(f"{path}?format=raw")
    assert (answer.status_code, answer.content) == (200, b"file")
    assert answer.headers["x-ipfs-path"] == path
    assert answer.headers["x-ipfs-roots"] == f"{root},{hamt},{file}"
    symlink = await node.client.get(f"/ipfs/{root}/link?format=raw")
    assert unixfs.decode(dag_pb.decode(symlink.content).data).data == b"h"


def _put(node):
    return node.store.put_block


@pytest.mark.parametrize("form", ["raw", "car"])
async def test_what_is_malformed_is_400_and_what_is_not_here_404_at_once(node, form):
    cid = node.put(RAW, b"x")
    folder = node.folder({"gone": CID.of(RAW, b"gone"), "here": cid})
    for path, status in {
        "/ipfs/nonsense": 400,
        "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52z": 400,  # cut off
        "/ipfs/Qmnonsense": 400,
        f"/ipfs/{cid}/%2e%2e": 400,
        f"/ipfs/{CID.of(RAW, b'nobody has this')}": 404,
        f"/ipfs/{CID(RAW, b'x' * 20, 0x11)}": 404,  # SHA-1
        f"/ipfs/{folder}/none": 404,
        f"/ipfs/{folder}/here/below": 404,
        f"/ipfs/{folder}/gone": 404,
        f"/ipfs/{CID.of(DAG_PB, b'nobody')}/a/b": 404,
    }.items():
        for method in ("GET", "HEAD"):
            answer = await node.client.request(method, f"{path}?format={form}")
            assert answer.status_code == status, (method, path)
            accept = {"accept": f"application/vnd.ipld.{form}"}
            answer = await node.client.request(method, path, headers=accept)
            assert answer.status_code == status, (method, path)


async def test_a_car_has_all_its_header_fields_and_tells_what_it_is(node):
    file = node.put(RAW, b"x")
    root = node.folder({"a b": file})
    for query, accept, dups in (
        ("?format=car", "*/*", "n"), ("", CAR_TYPE, "n"), ("", f"{CAR_TYPE}; dups=y", "y"),
        ("?format=car", f"{CAR_TYPE};version=1;order=unk;dups=y", "y"),
        ("?format=car&car-dups=n&car-order=dfs&car-version=1", f"{CAR_TYPE};dups=y;order=x", "n"),
    ):  # fmt: skip
        headers = {"accept": accept}
        for method in ("GET", "HEAD"):
            answer = await node.client.request(method, f"/ipfs/{root}/a b{query}", headers=headers)
            found = answer.headers
            assert answer.status_code == 200
            assert found["content-type"] == f"{CAR_TYPE}; version=1; order=dfs; dups={dups}"
            assert found["content-disposition"] == f'attachment; filename="{file}.car"'
            assert found["x-content-type-options"] == "nosniff"
            assert found["accept-ranges"] == "none"
            assert found["x-ipfs-roots"] == f"{root},{file}"
            assert found["vary"] == "accept"
            assert header_bytes(answer) < HEADERS_BYTES_MAX
        same = await node.client.get(found["content-location"])
        assert same.headers["etag"] == found["etag"]
    ranged = await node.client.get(f"/ipfs/{root}?format=car", headers={"range": "bytes=0-1"})
    assert ranged.status_code == 200


async def test_entity_tags_of_cars_tell_apart_whatever_differs_and_are_recognised(node):
    file, _ = node.file(os.urandom(3500))
    inner = node.folder({"f": file})
    one, other = node.folder({"a": inner}), node.folder({"a": inner, "b": file})
    tags = set()
    for path in (f"/ipfs/{one}/a/f", f"/ipfs/{other}/a/f", f"/ipfs/{file}"):
        for query in ("", "&dag-scope=entity", "&dag-scope=block", "&entity-bytes=0:9",
                      "&entity-bytes=0:*", "&entity-bytes=0:8", "&car-dups=y"):  # fmt: skip
            answer = await node.car(path, query)
            tags.add(answer.headers["etag"])
            again = {"if-none-match": answer.headers["etag"]}
            same = await node.client.get(f"{path}?format=car{query}", headers=again)
            assert (same.status_code, same.content) == (304, b"")
    assert len(tags) == 3 * 7


async def test_a_car_has_the_way_then_what_its_scope_says(node):
    data = os.urandom(4500)
    file, leaves = node.file(data)
    other = node.put(RAW, b"other")
    inner = node.folder({"f": file, "o": other})
    root = node.folder({"inner": inner})
    path = f"/ipfs/{root}/inner"
    assert await node.cids(f"{path}/f") == [root, inner, file, *leaves]
    assert await node.cids(f"{path}/f", "&dag-scope=all") == [root, inner, file, *leaves]
    assert await node.cids(f"{path}/f", "&dag-scope=entity") == [root, inner, file, *leaves]
    assert await node.cids(f"{path}/f", "&dag-scope=block") == [root, inner, file]
    assert await node.cids(path) == [root, inner, file, *leaves, other]
    assert await node.cids(path, "&dag-scope=entity") == [root, inner]
    assert await node.cids(path, "&dag-scope=entity&entity-bytes=0:*") == [root, inner]
    assert await node.cids(path + "/", "&dag-scope=block") == [root, inner]
    assert await node.cids(f"{path}/o", "&entity-bytes=1:*") == [root, inner, other]


async def test_scopes_of_what_is_no_file_or_folder_are_its_block(node):
    leaf = node.put(RAW, b"leaf")
    symlink = import_symlink("leaf", V1_2025, _put(node)).cid
    document = node.put(DAG_CBOR, dag_cbor.encode({"deep": [{"leaf": leaf}], "n": 1}))
    bare = node.put(DAG_PB, dag_pb.encode([Link(leaf, "x", 1)], None))
    root = node.folder({"s": symlink, "d": document, "b": bare})
    for name, cid in {"s": symlink, "d": document, "b": bare}.items():
        for query in ("&dag-scope=entity", "&dag-scope=block", "&entity-bytes=5:*"):
            assert await node.cids(f"/ipfs/{root}/{name}", query) == [root, cid]
    assert await node.cids(f"/ipfs/{root}/d") == [root, document, leaf]
    assert await node.cids(f"/ipfs/{root}/b") == [root, bare, leaf]
    assert await node.cids(f"/ipfs/{document}/deep/0/leaf") == [document, leaf]
    await node.car(f"/ipfs/{document}/deep/0", status=501)
    await node.car(f"/ipfs/{document}/n", status=501)
    await node.car(f"/ipfs/{document}/none", status=404)


async def test_a_hamt_has_on_the_way_what_the_path_takes_and_as_entity_all_shards(node):
    file = node.put(RAW, b"file")
    hamt, shards = node.hamt(NAMES, file)
    way = await node.cids(f"/ipfs/{hamt}/{NAMES[471]}")
    assert way[0] == hamt
    assert way[-1] == file
    assert 2 < len(way) <= 4
    assert set(way[:-1]) <= set(shards)
    listed = await node.cids(f"/ipfs/{hamt}", "&dag-scope=entity")
    assert len(listed) == len(set(listed))
    assert set(listed) == set(shards)
    assert await node.cids(f"/ipfs/{hamt}", "&dag-scope=block") == [hamt]


RANGES = {
    "0:*": range(5), "0:0": [0], "999:1000": [0, 1], "1000:1999": [1], "2500:*": [2, 3, 4],
    "-1:*": [4], "-9999:*": range(5), "-9999:-501": range(4), "1500:-2000": [1, 2],
    "4000:99999": [4], "3000:-2000": [],
}  # fmt: skip


async def test_a_range_of_a_file_has_just_its_blocks_although_the_others_are_missing(node):
    for text, chunks in RANGES.items():
        missing = set(range(5)) - set(chunks)
        file, leaves = node.file(os.urandom(4500), missing=missing)
        query = f"&dag-scope=entity&entity-bytes={text}"
        assert await node.cids(f"/ipfs/{file}", query) == [file, *(leaves[at] for at in chunks)]
        if missing:
            await node.car(f"/ipfs/{file}", "&dag-scope=entity", status=404)


async def test_a_range_outside_of_the_file_is_said_before_the_first_byte(node):
    file, _ = node.file(os.urandom(1500))
    block = node.put(RAW, b"0123456789")
    for path, text in ((file, "1500:*"), (file, "-9999:-1501"), (block, "10:20")):
        for method in ("GET", "HEAD"):
            url = f"/ipfs/{path}?format=car&entity-bytes={text}"
            answer = await node.client.request(method, url)
            assert answer.status_code == 400
    empty = node.put(RAW, b"")
    assert await node.cids(f"/ipfs/{empty}", "&entity-bytes=0:*") == [empty]


async def test_blocks_come_as_often_as_they_are_linked_to_when_asked_for(node):
    one, two = node.put(RAW, b"one"), node.put(RAW, b"two")
    inline = CID(RAW, b"inline", IDENTITY)
    inner = node.folder({"one": one, "inline": inline})
    root = node.folder({"a": inner, "b": one, "c": two, "d": inner})
    path = f"/ipfs/{root}"
    assert await node.cids(path) == [root, inner, one, two]
    lines = [("accept", "text/html;q=0.1"), ("accept", f"{CAR_TYPE};dups=y")]
    many = await node.client.get(path, headers=lines)
    assert many.headers["content-type"].endswith("dups=y")
    assert await node.cids(path, "&car-dups=n") == [root, inner, one, two]
    assert await node.cids(path, "&car-dups=y") == [root, inner, one, one, two, inner, one]
    zeros, leaves = node.file(bytes(2500))
    assert await node.cids(f"/ipfs/{zeros}", "&car-dups=y") == [zeros, *leaves]
    assert await node.cids(f"/ipfs/{zeros}", "&entity-bytes=0:*&car-dups=y") == [zeros, *leaves]
    assert await node.cids(f"/ipfs/{zeros}", "&entity-bytes=0:*") == [zeros, leaves[0], leaves[2]]


async def test_a_car_breaks_off_visibly_where_a_block_is_missing_after_the_first_bytes(node):
    data = os.urandom(600 * CHUNK)
    file, _ = node.file(data, missing=[599])
    with pytest.raises(httpx.RemoteProtocolError):
        await node.car(f"/ipfs/{file}")
    head = await node.client.head(f"/ipfs/{file}?format=car")
    assert head.status_code == 200
    early, _ = node.file(os.urandom(3 * CHUNK), missing=[1])
    await node.car(f"/ipfs/{early}", status=404)


async def test_a_node_says_at_once_that_nothing_may_be_fetched_and_a_gateway_fetches(
    node, tmp_path
):
    data = os.urandom(4500)
    file, leaves = node.file(data)
    root = node.folder({"f": file})
    url = str(node.client.base_url)
    async with serving(tmp_path / "gateway", [url]) as gateway:
        cached = {"cache-control": "only-if-cached"}
        for form in ("raw", "car"):
            url = f"/ipfs/{root}?format={form}"
            answer = await gateway.client.get(url, headers=cached)
            assert answer.status_code == 412
        for path in (f"{root}?format=raw", f"{root}/f?format=raw"):
            answer = await gateway.client.get(f"/ipfs/{path}")
            assert answer.status_code == 200
        found = await gateway.cids(f"/ipfs/{root}/f", "&entity-bytes=1000:1999")
        assert found == [root, file, leaves[1]]
        assert gateway.store.get_block(leaves[2]) is None
        assert await gateway.cids(f"/ipfs/{root}") == [root, file, *leaves]
        assert b"".join(read_file(gateway.store, file)) == data
        absent = CID.of(RAW, b"nobody has this")
        assert (await gateway.client.get(f"/ipfs/{absent}?format=raw")).status_code == 404
        assert (await gateway.client.get(f"/ipfs/{absent}?format=car")).status_code == 404


async def test_apps_keep_their_queries_and_accept_fields_to_themselves(tmp_path):
    async with serving(tmp_path / "node") as node:
        file, _ = node.file(b"file" * 1000)
        root = node.folder({"f": file})
        delivery = Delivery(node.store)

        async def app(scope, receive, send):
            await delivery.serve(Place(root, "/f", "site"), scope, receive, send)

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            for query, accept in (("format=car", "*/*"), ("from=x", RAW_TYPE), ("", CAR_TYPE)):
                answer = await client.get(f"/f?{query}", headers={"accept": accept})
                assert (answer.status_code, answer.content) == (200, b"file" * 1000)
        delivery.close()
