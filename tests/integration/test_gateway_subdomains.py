"""Hosts of content over real sockets: redirects, listings at hosts, and the gateway as a proxy."""

import contextlib

import httpx
import pytest

from lichen.cdn.delivery import Delivery
from lichen.gateway.contents import before
from lichen.wire import ListenerConfig, listening
from tests.integration.test_gateway_contents import no_api
from tests.integration.wire_world import client
from tests.unit.test_gateway_front import World, put_site

SITE = {"index.html": b"<p>home", "ipfs/file.txt": b"text", "docs/a.txt": b"a"}
WIDE = {"_redirects": b"/broken\n", "f": b"file"}


@pytest.fixture
async def gateway(tmp_path):
    world = World(tmp_path / "gateway")
    delivery = Delivery(world.store)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(world.store.close)
        stack.callback(world.runs.close)
        stack.callback(world.records.close)
        stack.push_async_callback(world.names.close)
        stack.callback(delivery.close)
        config = ListenerConfig(addresses=("127.0.0.1:0",), is_own=world.front.is_own)
        app = before(world.front, delivery, no_api)
        listener = await stack.enter_async_context(listening(config, world.front.route, app))
        world.port = listener.port
        url = f"http://127.0.0.1:{listener.port}"
        plain = httpx.AsyncClient(base_url=url, trust_env=False)
        proxied = httpx.AsyncClient(proxy=url, trust_env=False)
        world.client = await stack.enter_async_context(plain)
        world.proxied = await stack.enter_async_context(proxied)
        world.root = put_site(world.store, SITE)
        yield world


async def test_a_browser_is_led_from_a_path_to_the_roots_own_host(gateway):
    fields = {"host": f"localhost:{gateway.port}", "accept": "text/html,*/*"}
    moved = await gateway.client.get(f"/ipfs/{gateway.root}/docs/a.txt?x", headers=fields)
    assert moved.status_code == 301
    there = f"http://{gateway.root}.ipfs.localhost:{gateway.port}/docs/a.txt?x"
    assert moved.headers["location"] == there
    found = await gateway.proxied.get(there)
    assert (found.status_code, found.text) == (200, "a")
    fields["accept"] = "*/*"
    assert (
        await gateway.client.get(f"/ipfs/{gateway.root}/docs/a.txt", headers=fields)
    ).text == "a"


async def test_a_host_of_content_has_its_own_folders_and_not_the_gateways(gateway):
    host = {"host": f"{gateway.root}.ipfs.localhost:{gateway.port}"}
    assert (await gateway.client.get("/ipfs/file.txt", headers=host)).text == "text"
    assert (await gateway.client.get(f"/ipfs/{gateway.root}/", headers=host)).status_code == 404
    page = (await gateway.client.get("/docs/", headers=host)).text
    assert f'<a href="//localhost:{gateway.port}/ipfs/{gateway.root}/docs">docs</a>' in page
    assert '<a href="/docs/a.txt">a.txt</a>' in page


async def test_a_host_in_another_spelling_is_led_to_the_one_and_a_long_one_is_refused(gateway):
    other = gateway.root.to_base36()
    host = {"host": f"{other}.ipfs.localhost:{gateway.port}"}
    moved = await gateway.client.get("/docs/", headers=host)
    there = f"http://{gateway.root}.ipfs.localhost:{gateway.port}/docs/"
    assert (moved.status_code, moved.headers["location"]) == (301, there)
    long = {"host": "bafkrgq" + "a" * 100 + ".ipfs.localhost"}
    assert (await gateway.client.get("/", headers=long)).status_code == 400


async def test_a_broken_rules_file_is_said_at_the_host_that_has_it(gateway):
    root = put_site(gateway.store, WIDE)
    host = {"host": f"{root}.ipfs.localhost"}
    assert (await gateway.client.get("/f", headers=host)).text == "file"
    broken = await gateway.client.get("/none", headers=host)
    assert broken.status_code == 500
    assert "could not parse _redirects: line 1" in broken.json()["detail"]


async def test_the_gateway_is_a_proxy_for_its_own_hosts_only(gateway):
    base = f"http://{gateway.root}.ipfs.localhost"
    assert (await gateway.proxied.get(base)).text == "<p>home"
    assert "Index of" in (await gateway.proxied.get(f"{base}/docs/")).text
    assert (await gateway.proxied.get("http://mapped.example/")).status_code != 421
    for url in ("http://elsewhere.example/", "http://127.0.0.2/", "http://169.254.169.254/"):
        refused = await gateway.proxied.get(url)
        assert (refused.status_code, refused.json()["type"]) == (
            421,
            "urn:lichen:problem:foreign-host",
        )


async def test_tunnels_lead_to_the_gateway_itself_and_nowhere_else(gateway):
    host = f"{gateway.root}.ipfs.localhost:80".encode()
    async with client(gateway.port) as peer:
        await peer.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
        assert (await peer.head())[0] == 200
        asked = b"GET /docs/a.txt HTTP/1.1\r\nHost: %b\r\n\r\n" % host
        assert (await peer.ask(asked))[::2] == (200, b"a")
    for elsewhere in (b"elsewhere.example:443", b"127.0.0.2:80", b"127.0.0.1:22", b"[::1]:22"):
        async with client(gateway.port) as peer:
            answer = await peer.ask(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % elsewhere)
            assert answer[0] == 421
