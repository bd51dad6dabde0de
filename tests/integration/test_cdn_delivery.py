"""Content over real sockets: a store behind the router and the ASGI side, and a peer to fetch from."""

import asyncio
import contextlib
import html
import io
import json
import os
import re

import httpx
import pytest

from lichen.cdn import delivery as deliveries
from lichen.cdn.delivery import Delivery
from lichen.cdn.formats import LISTING_ENTRIES
from lichen.cdn.pump import Pump
from lichen.cdn.retrieval.fetch import Fetcher
from lichen.cdn.serve import ContentRouter
from lichen.content import CID, DAG_CBOR, RAW, BlockStore, CarReader, Link, import_directory
from lichen.content.importer import FileBuilder, leaf_block, leaf_digest
from lichen.content.profile import V0_2015, V1_2025
from lichen.encoding import canonical
from lichen.wire import ListenerConfig, listening

CAPACITY = 2**30


class Server:
    """A store, served as a node serves it; `peers` makes it ask them, as a gateway does."""

    def __init__(self, folder, peers=None):
        self.store = BlockStore.open(folder, capacity_bytes=CAPACITY)
        self.fetcher = None if peers is None else Fetcher(self.store, lambda: peers)
        self.delivery = Delivery(self.store, self.fetcher)
        self.router = ContentRouter(self.store, can_fetch=peers is not None)
        self.asked = []

    def route(self, head):
        self.asked.append(head.target.decode())
        return self.router.answer(head) if head.path.startswith(b"/ipfs/") else None


@contextlib.asynccontextmanager
async def serving(folder, peers=None):
    server = Server(folder, peers)
    try:
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        app = server.delivery.before(_nothing)
        async with listening(config, server.route, app) as listener:
            url = f"http://127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                server.url, server.client, server.get = url, client, client.get
                yield server
    finally:
        if server.fetcher is not None:
            await server.fetcher.close()
        server.delivery.close()
        server.store.close()


async def _nothing(scope, receive, send):
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
async def node(tmp_path):
    async with serving(tmp_path / "node") as server:
        yield server


@pytest.fixture
async def gateway(node, tmp_path):
    async with serving(tmp_path / "gateway", [node.url]) as server:
        yield server


def put_in_blocks(store, data, profile=V1_2025, chunk=None):
    """Store a file's blocks in two additions, so that it is not laid out flat."""
    chunk = chunk or profile.chunk_bytes
    blocks = []
    builder = FileBuilder(profile, lambda cid, block: blocks.append((cid, block)))
    for start in range(0, len(data), chunk):
        part = data[start : start + chunk]
        cid = builder.leaf(leaf_digest(part, profile), len(part))
        blocks.append((cid, leaf_block(part, profile)))
    root = builder.finish().cid
    for block in reversed(blocks):  # the root first: nothing tells that the file is whole now
        store.put_blocks([block])
    assert store.flat_file(root) is None
    return root


def put_folder(store, files):
    blocks = []
    links = [Link(cid, name, 1) for name, cid in files.items()]
    root = import_directory(links, V1_2025, lambda cid, block: blocks.append((cid, block)))
    store.put_blocks(blocks)
    return root.cid


def put_file(store, data):
    return store.add_file(io.BytesIO(data))[0]


def header_bytes(response):
    return sum(len(name) + len(value) + 4 for name, value in response.headers.raw)


@pytest.mark.parametrize("profile", [V1_2025, V0_2015])
async def test_a_file_stored_in_blocks_is_streamed_whole_and_in_ranges(node, profile):
    data = os.urandom(3 * 2**20 + 17)
    cid = put_in_blocks(node.store, data, profile)
    whole = await node.get(f"/ipfs/{cid}")
    assert whole.status_code == 200
    assert whole.content == data
    assert whole.headers["content-length"] == str(len(data))
    etag = whole.headers["etag"]
    for asked, part in {
        "bytes=0-0": data[:1],
        "bytes=1048570-1048590": data[1048570:1048591],
        "bytes=-5": data[-5:],
        "bytes=3000000-": data[3000000:],
    }.items():
        answer = await node.get(f"/ipfs/{cid}", headers={"range": asked})
        assert answer.status_code == 206
        assert answer.content == part
        assert answer.headers["content-range"].endswith(f"/{len(data)}")
    beyond = await node.get(f"/ipfs/{cid}", headers={"range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    other = await node.get(f"/ipfs/{cid}", headers={"range": "bytes=0-0", "if-range": '"x"'})
    assert other.status_code == 200
    same = await node.get(f"/ipfs/{cid}", headers={"if-none-match": etag})
    assert (same.status_code, same.content) == (304, b"")
    head = await node.client.head(f"/ipfs/{cid}")
    assert head.headers["content-length"] == str(len(data))
    assert head.content == b""


async def test_flat_and_streamed_files_have_the_same_headers(node):
    data = os.urandom(300_000)
    cid = put_in_blocks(node.store, data, chunk=100_000)
    streamed = await node.get(f"/ipfs/{cid}")
    flat = await node.get(f"/ipfs/{put_file(node.store, data)}")
    for name in ("content-type", "cache-control", "accept-ranges", "access-control-allow-origin"):
        assert streamed.headers[name] == flat.headers[name]
    assert header_bytes(streamed) < 2048


async def test_a_raw_block_is_sent_with_ranges_and_a_name(node):
    cid = put_file(node.store, b"hello world")
    for answer in (
        await node.get(f"/ipfs/{cid}?format=raw"),
        await node.get(f"/ipfs/{cid}", headers={"accept": "application/vnd.ipld.raw"}),
        await node.get(f"/ipfs/{cid}?format=raw&dag-scope=block"),
    ):
        assert answer.content == b"hello world"
        assert answer.headers["content-type"] == "application/vnd.ipld.raw"
        assert answer.headers["x-ipfs-roots"] == str(cid)
    folder = put_folder(node.store, {"a.txt": cid})
    below = await node.get(f"/ipfs/{folder}/a.txt?format=raw", headers={"range": "bytes=6-"})
    assert (below.status_code, below.content) == (206, b"world")


async def test_a_car_holds_the_way_and_the_whole_dag_in_order(node):
    data = os.urandom(300_000)
    file = put_in_blocks(node.store, data, chunk=100_000)
    inner = put_folder(node.store, {"big": file, "again": file})
    root = put_folder(node.store, {"inner": inner})
    answer = await node.get(f"/ipfs/{root}/inner?format=car")
    car = CarReader(io.BytesIO(answer.content))
    blocks = list(car)
    assert car.roots == (inner,)
    assert [cid for cid, _ in blocks[:3]] == [root, inner, file]
    assert len({cid for cid, _ in blocks}) == len(blocks) == 6
    assert answer.headers["accept-ranges"] == "none"
    assert answer.headers["x-content-type-options"] == "nosniff"
    accept = {"accept": "application/vnd.ipld.car; version=1; order=dfs; dups=n"}
    same = await node.get(f"/ipfs/{root}/inner", headers=accept)
    assert same.content == answer.content
    again = {**accept, "if-none-match": answer.headers["etag"]}
    assert (await node.get(f"/ipfs/{root}/inner", headers=again)).status_code == 304
    assert (await node.client.head(f"/ipfs/{root}/inner?format=car")).content == b""


@pytest.mark.parametrize(("scope", "count"), [("block", 1), ("entity", 1), ("all", 2)])
async def test_the_scope_of_a_car_says_how_much_of_a_folder(node, scope, count):
    root = put_folder(node.store, {"a": put_file(node.store, b"a")})
    answer = await node.get(f"/ipfs/{root}?format=car&dag-scope={scope}")
    assert len(list(CarReader(io.BytesIO(answer.content)))) == count


async def test_any_codec_can_be_had_as_car(node):
    block = canonical({"a": 1})
    cid = CID.of(DAG_CBOR, block)
    node.store.put_block(cid, block)
    answer = await node.get(f"/ipfs/{cid}?format=car")
    assert list(CarReader(io.BytesIO(answer.content))) == [(cid, block)]


async def test_a_car_of_what_is_not_whole_breaks_off_visibly(node):
    missing = CID.of(RAW, b"nobody has this")
    root = put_folder(node.store, {"a": put_in_blocks(node.store, bytes(2**21)), "b": missing})
    with pytest.raises(httpx.RemoteProtocolError):
        await node.get(f"/ipfs/{root}?format=car")


async def test_a_folder_without_an_index_is_listed_escaped(node):
    file = put_file(node.store, b"x")
    names = ["<b>bold", "a\"b'c", "q?x#y", "\u00fc &lt;", "javascript:alert(1)"]
    root = put_folder(node.store, dict.fromkeys(names, file))
    moved = await node.get(f"/ipfs/{root}")
    assert (moved.status_code, moved.headers["location"]) == (301, f"/ipfs/{root}/")
    page = await node.get(f"/ipfs/{root}/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<b>bold" not in page.text
    assert "&lt;b&gt;bold" in page.text
    assert f'href="/ipfs/{root}/javascript%3Aalert%281%29"' in page.text
    found = re.findall(r'<td><a href="([^"]*)">([^<]*)</a>', page.text)
    assert sorted(html.unescape(name) for _, name in found) == sorted(names)
    for link, _ in found:
        assert (await node.get(html.unescape(link))).text == "x"
    same = await node.get(f"/ipfs/{root}/", headers={"if-none-match": page.headers["etag"]})
    assert same.status_code == 304


async def test_a_large_folder_is_listed_in_pages_reading_nothing_below_it(node):
    leaf = CID.of(RAW, b"not stored anywhere")
    names = [f"file-{number:05}" for number in range(2 * LISTING_ENTRIES + 5)]
    root = put_folder(node.store, dict.fromkeys(names, leaf))
    seen, start = [], 0
    while start is not None:
        answer = await node.get(
            f"/ipfs/{root}/?from={start}", headers={"accept": "application/json"}
        )
        page = json.loads(answer.content)
        assert len(page["entries"]) <= LISTING_ENTRIES
        seen += [entry["name"] for entry in page["entries"]]
        start = page["next"]
    assert sorted(seen) == names
    first = await node.get(f"/ipfs/{root}/")
    assert f"?from={LISTING_ENTRIES}" in first.text
    assert (await node.get(f"/ipfs/{root}/?from=-1")).status_code == 400


async def test_a_folder_with_an_index_is_shown_at_its_slash(node):
    page = put_file(node.store, b"<p>home")
    root = put_folder(
        node.store, {"index.html": page, "sub": put_folder(node.store, {"index.html": page})}
    )
    for path in ("", "/sub"):
        moved = await node.get(f"/ipfs/{root}{path}")
        assert (moved.status_code, moved.headers["location"]) == (301, f"/ipfs/{root}{path}/")
        assert (await node.get(f"/ipfs/{root}{path}/")).text == "<p>home"


async def test_forms_that_are_not_offered_are_refused_in_words(node):
    cid = put_file(node.store, b"x")
    for query, headers, status in (
        ("?format=zip", {}, 406),
        ("", {"accept": "application/vnd.ipld.dag-json"}, 406),
        ("", {"accept": "application/vnd.ipld.car; version=2"}, 406),
        ("?format=car&dag-scope=none", {}, 400),
    ):
        answer = await node.get(f"/ipfs/{cid}{query}", headers=headers)
        assert answer.status_code == status
        assert answer.json()["hint"]
    assert (await node.client.post(f"/ipfs/{cid}")).status_code == 405
    assert (await node.get("/elsewhere")).status_code == 418
    assert (await node.get("/ipfs/nonsense")).status_code == 400
    assert (await node.get("/ipfs/nonsense?format=car")).status_code == 400


async def test_the_form_asked_for_is_sent_also_when_another_one_is_kept(node):
    cid = put_file(node.store, b"hello")
    assert (await node.get(f"/ipfs/{cid}")).content == b"hello"
    car = await node.get(f"/ipfs/{cid}", headers={"accept": "application/vnd.ipld.car"})
    assert list(CarReader(io.BytesIO(car.content))) == [(cid, b"hello")]


async def test_a_gateway_fetches_what_it_lacks_and_keeps_it(node, gateway):
    data = os.urandom(2_500_000)
    file = put_file(node.store, data)
    root = put_folder(node.store, {"big": file})
    first = await gateway.get(f"/ipfs/{root}/big")
    assert first.status_code == 200
    assert first.content == data
    asked = len(node.asked)
    assert gateway.store.flat_file(file) is not None
    assert (await gateway.get(f"/ipfs/{root}/big")).content == data
    assert len(node.asked) == asked


async def test_a_gateway_fetches_only_what_a_range_needs(node, gateway):
    data = os.urandom(6 * 2**20)
    cid = put_file(node.store, data)
    part = await gateway.get(f"/ipfs/{cid}", headers={"range": "bytes=3145728-3145737"})
    assert part.content == data[3145728:3145738]
    assert len(node.asked) <= 4


async def test_what_nobody_has_is_a_quick_404_and_not_asked_for_again(node, gateway):
    missing = CID.of(RAW, os.urandom(40))
    for _ in range(3):
        answer = await asyncio.wait_for(gateway.get(f"/ipfs/{missing}"), 2)
        assert answer.status_code == 404
    assert len(node.asked) == 1
    alone = await gateway.get(f"/ipfs/{missing}", headers={"cache-control": "only-if-cached"})
    assert alone.status_code == 412
    assert (await node.get(f"/ipfs/{missing}?format=raw")).status_code == 404


async def test_a_local_hit_never_asks_the_network(node, gateway):
    cid = put_in_blocks(gateway.store, os.urandom(300_000), chunk=100_000)
    root = put_folder(gateway.store, {"a": cid})
    for path in (f"{cid}", f"{root}/", f"{root}?format=car", f"{root}/a"):
        assert (await gateway.get(f"/ipfs/{path}")).status_code == 200
    assert (await gateway.get(f"/ipfs/{root}/missing")).status_code == 404
    assert node.asked == []


async def test_a_gateway_lists_a_folder_that_a_node_has(node, gateway):
    root = put_folder(node.store, {"a": put_file(node.store, b"a")})
    page = await gateway.get(f"/ipfs/{root}/")
    assert f'href="/ipfs/{root}/a"' in page.text
    assert len(node.asked) == 1


async def lying_peer(answer):
    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + bytes(9_000_000),
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_a_lying_peer_does_no_harm_when_another_one_is_honest(node, tmp_path, answer):
    cid = put_file(node.store, b"true")
    liar = await lying_peer(answer)
    peers = [f"http://127.0.0.1:{liar.sockets[0].getsockname()[1]}", node.url]
    async with serving(tmp_path / "asker", peers) as asker:
        assert (await asker.get(f"/ipfs/{cid}")).content == b"true"
    liar.close()


async def test_an_empty_file_is_fetched_like_any_other(node, gateway):
    cid = put_file(node.store, b"")
    answer = await gateway.get(f"/ipfs/{cid}")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_equal_fetches_under_way_are_shared(node, gateway):
    cid = put_file(node.store, b"shared")
    blocks = await asyncio.gather(*(gateway.fetcher.fetch_block(cid) for _ in range(20)))
    assert set(blocks) == {b"shared"}
    assert len(node.asked) == 1


async def test_a_fetcher_brings_a_whole_file_and_refuses_a_larger_one(node, gateway):
    cid = put_file(node.store, bytes(200_000))
    assert await gateway.fetcher.fetch_file(cid, 200_000) == bytes(200_000)
    large = put_file(node.store, os.urandom(200_000))
    with pytest.raises(deliveries.LichenError, match="larger"):
        await gateway.fetcher.fetch_file(large, 100_000)


async def test_more_reads_than_the_bound_are_turned_away(node):
    cid = put_in_blocks(node.store, os.urandom(300_000), chunk=100_000)
    node.delivery._pump.close()
    node.delivery._pump = Pump(threads=1, streams_max=0)
    assert (await node.get(f"/ipfs/{cid}")).status_code == 503


async def test_a_reader_that_leaves_frees_its_place(node):
    cid = put_in_blocks(node.store, os.urandom(40 * 2**20))
    async with node.client.stream("GET", f"/ipfs/{cid}") as response:
        await anext(response.aiter_bytes())
        assert node.delivery._pump.streams == 1
    async with asyncio.timeout(5):
        while node.delivery._pump.streams:  # noqa: ASYNC110 - nobody tells when it is free
            await asyncio.sleep(0.01)


async def test_a_reader_that_stalls_makes_room_when_all_streams_are_taken(node, monkeypatch):
    monkeypatch.setattr("lichen.cdn.pump.STALLED_S", 0.2)
    monkeypatch.setattr(node.delivery, "_pump", Pump(streams_max=2))
    data = os.urandom(9_000_000)  # more than all buffers take
    cid = put_in_blocks(node.store, data, chunk=1 << 20)
    port = int(node.url.rpartition(":")[2])
    async with contextlib.AsyncExitStack() as stack:
        lazy = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            stack.callback(writer.transport.abort)
            writer.write(
                b"GET /ipfs/%b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % str(cid).encode()
            )
            await reader.readuntil(b"\r\n")
            lazy.append(reader)
        answer = await node.get(f"/ipfs/{cid}")
        for _ in range(100):  # until the others have stalled for long enough
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
            answer = await node.get(f"/ipfs/{cid}")
        assert answer.content == data
        assert await _bytes_left(lazy[0]) < len(data)
        assert await _bytes_left(lazy[1]) > len(data)


async def _bytes_left(reader):
    """Read an answer, head included, as far as it comes; it is on a connection that is kept."""
    size = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(2):
            while part := await reader.read(1 << 20):
                size += len(part)
    return size
