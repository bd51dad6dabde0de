"""A listener as its clients' HTTP proxy: for its own hosts, and never for others."""

from __future__ import annotations

import asyncio
import json

import pytest

from lichen.wire import ListenerConfig, Ready, listening
from tests.integration.wire_world import client


def says_host(head):
    return Ready.of(200, (), b"%b %b" % (head.host, head.target))


async def says_scope(scope, receive, send):
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    body = b"%b %b" % (b",".join(hosts), scope["raw_path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def proxy(router=says_host, app=None, is_own=lambda host: host.startswith(b"own")):
    config = ListenerConfig(addresses=("127.0.0.1:0",), is_own=is_own)
    return listening(config, router, app)


async def test_the_absolute_form_asks_for_an_own_host_and_wins_over_the_host_field():
    async with proxy() as listener, client(listener.port) as peer:
        asked = b"GET http://own.example:80/a?b HTTP/1.1\r\nHost: other\r\n\r\n"
        assert (await peer.ask(asked))[::2] == (200, b"own.example:80 /a?b")
        assert (await peer.ask(b"GET http://own HTTP/1.1\r\nHost: own\r\n\r\n"))[2] == b"own /"


async def test_the_asgi_side_sees_the_same_host_and_path():
    async with proxy(lambda _: None, says_scope) as listener, client(listener.port) as peer:
        answer = await peer.ask(b"GET http://own/a%20b?c HTTP/1.1\r\nHost: other\r\n\r\n")
        assert answer[::2] == (200, b"own /a%20b")


async def test_requests_come_through_a_tunnel_one_after_another():
    async with proxy() as listener, client(listener.port) as peer:
        await peer.send(b"CONNECT own:80 HTTP/1.1\r\nHost: own:80\r\n\r\n")
        assert await peer.head() == (200, {})
        for path in (b"/1", b"/2"):
            asked = b"GET %b HTTP/1.1\r\nHost: own\r\n\r\n" % path
            assert (await peer.ask(asked))[2] == b"own " + path
        again = b"CONNECT own:80 HTTP/1.0\r\n\r\nGET /3 HTTP/1.1\r\nHost: own\r\n\r\n"
        await peer.send(again)
        assert await peer.head() == (200, {})
        assert (await peer.response())[2] == b"own /3"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: own\r\n\r\n", 421),
        (b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: own\r\n\r\n", 421),
        (b"CONNECT [::1]:80 HTTP/1.1\r\nHost: own\r\n\r\n", 421),
        (b"CONNECT own:80 HTTP/1.1\r\nHost: own\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"CONNECT own HTTP/1.1\r\nHost: own\r\n\r\n", 400),
    ],
)
async def test_it_is_no_open_proxy(request_bytes, status):
    opened = asyncio.Event()
    elsewhere = await asyncio.start_server(lambda _r, _w: opened.set(), "127.0.0.1", 0)
    port = b"%d" % elsewhere.sockets[0].getsockname()[1]
    async with elsewhere, proxy() as listener, client(listener.port) as peer:
        aimed = request_bytes.replace(b"elsewhere:80", b"127.0.0.1:" + port)
        answer = await peer.ask(aimed.replace(b"elsewhere", b"127.0.0.1:" + port))
        assert answer[0] == status
        assert json.loads(answer[2])["hint"]
        assert await peer.ended() == b""
        assert not opened.is_set()


async def test_a_listener_without_own_hosts_offers_no_tunnels():
    async with proxy(is_own=None) as listener, client(listener.port) as peer:
        assert (await peer.ask(b"CONNECT own:80 HTTP/1.1\r\nHost: own\r\n\r\n"))[0] == 501
