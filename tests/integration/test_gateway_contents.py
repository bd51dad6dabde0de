"""The gateway's content over real sockets: router and ASGI side together, a node behind them."""

import asyncio
import contextlib
import io
import os

import httpx
import pytest

from lichen.cdn.delivery import Delivery
from lichen.cdn.retrieval.fetch import Fetcher
from lichen.cdn.serve import ContentRouter
from lichen.content import BlockStore
from lichen.gateway.contents import before
from lichen.wire import ListenerConfig, listening
from tests.integration.test_cdn_delivery import put_folder, put_in_blocks
from tests.unit.test_gateway_front import World, function, put_site

SITE = {
    "index.html": b"<p>home",
    "docs/a.txt": b"text",
    "404.html": b"<p>lost",
    "_redirects": b"/old /docs/a.txt 302\n/app/* /index.html 200\n/gone /404.html 410\n",
    "_headers": b"/docs/*\n  X-Site: yes\n",
}


async def no_api(scope, receive, send):
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
async def node(tmp_path):
    with BlockStore.open(tmp_path / "node", capacity_bytes=2**28) as store:
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        async with listening(config, ContentRouter(store).answer) as listener:
            yield store, f"http://127.0.0.1:{listener.port}"


@pytest.fixture
async def gateway(node, tmp_path):
    world = World(tmp_path / "gateway")
    fetcher = Fetcher(world.store, lambda: [node[1]])
    delivery = Delivery(world.store, fetcher)
    app = before(world.front, delivery, no_api)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(world.store.close)
        stack.callback(world.records.close)
        stack.push_async_callback(world.names.close)
        stack.callback(world.runs.close)
        stack.callback(delivery.close)
        stack.push_async_callback(fetcher.close)
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        listener = await stack.enter_async_context(listening(config, world.front.route, app))
        url = f"http://127.0.0.1:{listener.port}"
        client = httpx.AsyncClient(base_url=url, trust_env=False)
        world.client = await stack.enter_async_context(client)
        yield world


async def get(world, host, path, **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.client.get(path, headers={"host": host, **fields})


async def test_a_content_host_has_the_rules_of_its_site_and_lists_folders(gateway):
    root = put_site(gateway.store, SITE)
    host = f"{root}.ipfs.localhost:8080"
    moved = await get(gateway, host, "/old")
    assert (moved.status_code, moved.headers["location"]) == (302, "/docs/a.txt")
    assert (await get(gateway, host, "/app/x")).text == "<p>home"
    assert (await get(gateway, host, "/none")).status_code == 404
    assert (await get(gateway, host, "/none")).text == "<p>lost"
    assert (await get(gateway, host, "/gone")).status_code == 410
    assert (await get(gateway, host, "/docs/a.txt")).headers["x-site"] == "yes"
    listing = await get(gateway, host, "/docs/")
    assert '<a href="/docs/a.txt">a.txt</a>' in listing.text
    assert (await get(gateway, host, "/docs")).headers["location"] == "/docs/"


async def test_a_content_host_of_one_file_shows_it_at_its_root(gateway):
    cid = gateway.store.add_file(io.BytesIO(b"alone"))[0]
    assert (await get(gateway, f"{cid}.ipfs.localhost", "/")).text == "alone"


async def test_a_site_that_only_a_node_has_is_fetched_and_served(gateway, node):
    root = put_site(node[0], SITE)
    gateway.publish(root)
    for path, text in {"/": "<p>home", "/docs/a.txt": "text", "/none": "<p>lost"}.items():
        assert (await get(gateway, "shop.app.localhost", path)).text == text
    moved = await get(gateway, "localhost", "/app/shop/old")
    assert moved.headers["location"] == "/app/shop/docs/a.txt"


async def test_a_function_behind_a_site_that_had_to_be_fetched_answers_when_repeated(gateway, node):
    root = put_site(node[0], SITE)
    gateway.publish(root, function())
    first = await get(gateway, "shop.app.localhost", "/api/x")
    assert (first.status_code, first.json()["hint"]) == (503, "repeat the request")
    assert gateway.apps.site(root, b"/api/x") is None  # so the next one goes to the function


async def test_a_site_file_stored_in_blocks_is_streamed_with_ranges(gateway):
    data = os.urandom(300_000)
    cid = put_in_blocks(gateway.store, data, chunk=100_000)
    gateway.publish(put_folder(gateway.store, {"movie.mp4": cid}))
    whole = await get(gateway, "shop.app.localhost", "/movie.mp4")
    assert whole.content == data
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["cache-control"] == "public, max-age=0, must-revalidate"
    part = await get(gateway, "shop.app.localhost", "/movie.mp4", range="bytes=99999-100000")
    assert (part.status_code, part.content) == (206, data[99_999:100_001])


async def test_what_is_no_content_is_left_to_the_api(gateway):
    assert (await get(gateway, "localhost", "/api/v1/apps")).status_code == 418


async def test_names_and_nonsense_are_problem_documents(gateway):
    for host, path, status in (
        ("localhost", "/ipns/example.org", 404),
        ("docs.ipns.localhost", "/", 400),
        ("nonsense.ipfs.localhost", "/", 400),
        ("nobody.app.localhost", "/", 404),
    ):
        answer = await asyncio.wait_for(get(gateway, host, path), 5)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
