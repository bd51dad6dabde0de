# ruff: noqa: ASYNC110 (counters have no event to wait for; the waits are bounded)
# ruff: noqa: SIM117 (the node stands outside, the gateway inside)
"""Gateway and node on loopback with one connection between them that carries all requests."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest
import websockets

from lichen.wire import (
    ContentEntry,
    FlatFile,
    Forward,
    MuxDialler,
    Pool,
    Ready,
    content_answer,
    forward_head,
    muxlink,
)
from lichen.wire.client import request
from lichen.wire.upstream import dialler
from tests.integration.wire_world import (
    WAIT_S,
    client,
    event_loop_policy,  # noqa: F401 (a fixture)
    ok,
    read_request,
    replies,
    upstream,
    wire,
)

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
FILE_BYTES = 3_000_000


class Dialled:
    """A mux dialler that counts the connections it makes."""

    def __init__(self, port: int, *, alone: bool = False) -> None:
        self.count = 0
        self.transports: list[asyncio.Transport] = []
        address = f"127.0.0.1:{port}"
        self._plain = dialler(address)
        self.mux = MuxDialler(address, plain=self._dial, alone=alone)
        self.pool = Pool(address, dial=self.mux.dial)

    async def _dial(self, factory):
        self.count += 1
        made = await self._plain(factory)
        self.transports.append(made[0])
        return made

    def route(self, head):
        return Forward(forward_head(head), self.pool)


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": "echo " + message["text"]})
        await send({"type": "websocket.close"})
        return
    digest = hashlib.sha256()
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = digest.hexdigest().encode()
    fields = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def small(head):
    return Ready.of(200, body=head.path) if head.path != b"/asgi" else None


async def until(true) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.005)


async def ask(port: int, target: bytes) -> tuple[int, bytes]:
    async with client(port) as peer:
        status, _, body = await peer.ask(GET % target)
        return status, body


async def test_all_requests_travel_on_one_connection():
    async with wire(small, mux=True) as node:
        dialled = Dialled(node.port)
        async with wire(dialled.route) as gateway:
            targets = [b"%d" % number for number in range(40)]
            answers = await asyncio.gather(*(ask(gateway.port, target) for target in targets))
            assert answers == [(200, b"/" + target) for target in targets]
            assert dialled.count == 1
            assert node.counters.requests == 41  # and the upgrade
            assert node.counters.connections > 2


async def test_a_caller_who_is_alone_gets_a_plain_connection_many_share_one():
    async with wire(small, mux=True) as node:
        dialled = Dialled(node.port, alone=True)
        async with wire(dialled.route) as gateway, client(gateway.port) as peer:
            assert (await peer.ask(GET % b"x"))[0] == 200
            assert (dialled.count, node.counters.statuses[1]) == (1, 0)
            targets = [b"%d" % number for number in range(20)]
            answers = await asyncio.gather(*(ask(gateway.port, target) for target in targets))
            assert answers == [(200, b"/" + target) for target in targets]
            assert (dialled.count, node.counters.statuses[1]) == (2, 1)
            open_now = node.counters.connections
            for _ in range(5):
                assert (await peer.ask(GET % b"x"))[0] == 200
                assert dialled.pool.idle[-1].transport is dialled.transports[0]
            assert node.counters.connections == open_now


async def test_many_who_come_first_together_share_all_but_one():
    async with wire(small, mux=True) as node:
        dialled = Dialled(node.port, alone=True)
        async with wire(dialled.route) as gateway:
            targets = [b"%d" % number for number in range(20)]
            answers = await asyncio.gather(*(ask(gateway.port, target) for target in targets))
            assert answers == [(200, b"/" + target) for target in targets]
            assert dialled.count == 2


async def test_an_idle_stream_is_used_again():
    async with wire(small, mux=True) as node:
        dialled = Dialled(node.port)
        async with wire(dialled.route) as gateway, client(gateway.port) as peer:
            for _ in range(5):
                assert (await peer.ask(GET % b"x"))[0] == 200
            assert node.counters.connections == 2  # the link and one stream
            assert dialled.pool.total == 1


async def test_a_node_that_does_not_offer_it_is_spoken_to_plainly():
    async with wire(small) as node:
        dialled = Dialled(node.port)
        async with wire(dialled.route) as gateway:
            assert await ask(gateway.port, b"x") == (200, b"/x")
            assert await ask(gateway.port, b"y") == (200, b"/y")
            assert dialled.count == 2  # the offer, and one kept alive


async def test_no_listener_switches_unasked():
    async with wire(small) as node, client(node.port) as peer:
        await peer.send(muxlink._ASK % b"a")
        assert (await peer.head())[0] == 200


async def test_bodies_and_the_asgi_app_work_over_streams():
    body = os.urandom(2_000_000)
    want = hashlib.sha256(body).hexdigest().encode()
    async with wire(small, app, mux=True) as node:
        pool = Dialled(node.port).pool
        for _ in range(2):
            headers = [(b"host", b"a")]
            answer = await request(pool, b"POST", b"/asgi", headers=headers, body=body)
            assert (answer.status, answer.body) == (200, want)


async def test_websockets_pass_through_a_stream():
    async with wire(small, app, mux=True) as node:
        async with wire(Dialled(node.port).route) as gateway:
            async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/asgi") as peer:
                await peer.send("hello")
                assert await peer.recv() == "echo hello"


async def test_files_are_sent_whole_without_a_socket_of_their_own(tmp_path):
    data = os.urandom(FILE_BYTES)
    (tmp_path / "file").write_bytes(data)
    number = os.open(tmp_path / "file", os.O_RDONLY)
    entry = ContentEntry(b'"f"', b"", file=FlatFile(number), size=FILE_BYTES)
    try:
        async with wire(lambda head: content_answer(entry, head), mux=True) as node:
            async with wire(Dialled(node.port).route) as gateway:
                status, body = await ask(gateway.port, b"file")
                assert (status, body) == (200, data)
                async with client(gateway.port) as peer:
                    await peer.send(
                        b"GET /f HTTP/1.1\r\nHost: a\r\nRange: bytes=70000-170000\r\n\r\n"
                    )
                    status, _, body = await peer.response()
                    assert (status, body) == (206, data[70_000:170_001])
    finally:
        os.close(number)


async def test_a_slow_reader_stops_nobody_else(tmp_path):
    data = bytes(8 * FILE_BYTES)
    (tmp_path / "file").write_bytes(data)
    number = os.open(tmp_path / "file", os.O_RDONLY)
    entry = ContentEntry(b'"f"', b"", file=FlatFile(number), size=len(data))

    def route(head):
        return content_answer(entry, head) if head.path == b"/file" else small(head)

    try:
        async with wire(route, mux=True) as node:
            async with wire(Dialled(node.port).route) as gateway:
                async with client(gateway.port) as slow:
                    await slow.send(GET % b"file")
                    await slow.head()
                    for _ in range(20):
                        assert await ask(gateway.port, b"quick") == (200, b"/quick")
                    assert node.counters.bytes_out < len(data)
                    async with asyncio.timeout(WAIT_S):
                        assert await slow.reader.readexactly(len(data)) == data
    finally:
        os.close(number)


async def test_a_broken_connection_fails_over_like_any_other():
    async with wire(small, mux=True) as node:
        first = Dialled(node.port)
        assert (await request(first.pool, b"GET", b"/1", headers=[(b"host", b"a")])).status == 200
        first.transports[0].abort()
        await until(lambda: not first.pool.total)
        assert (await request(first.pool, b"GET", b"/2", headers=[(b"host", b"a")])).status == 200
        assert first.count == 2


async def test_a_request_in_flight_hears_of_the_broken_connection():
    async def hang(reader, _writer):
        await read_request(reader)
        await reader.read()

    async with upstream(hang) as tenant:
        inner = Pool(tenant.address)
        async with wire(lambda head: Forward(forward_head(head), inner), mux=True) as node:
            dialled = Dialled(node.port)
            async with wire(dialled.route) as gateway, client(gateway.port) as peer:
                await peer.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
                await until(lambda: tenant.open == 1)
                dialled.transports[0].abort()
                assert (await peer.response())[0] == 502
                await until(lambda: not tenant.open)  # the node let go of the tenant too


async def test_a_client_that_leaves_ends_only_its_stream():
    async def slow(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
        await reader.read()

    async with upstream(slow) as tenant:
        inner = Pool(tenant.address)

        def route(head):
            return Forward(forward_head(head), inner) if head.path == b"/slow" else small(head)

        async with wire(route, mux=True) as node:
            dialled = Dialled(node.port)
            async with wire(dialled.route) as gateway:
                async with client(gateway.port) as peer:
                    await peer.send(GET % b"slow")
                    await peer.head()
                await until(lambda: not tenant.open)
                assert await ask(gateway.port, b"x") == (200, b"/x")
                assert dialled.count == 1


async def test_streams_count_against_the_bound_on_connections():
    async with wire(small, mux=True, connections_max=2) as node:
        dialled = Dialled(node.port)
        async with wire(dialled.route) as gateway, client(gateway.port) as peer:
            assert (await peer.ask(GET % b"x"))[0] == 200
            taken = dialled.pool.take()
            assert taken is not None
            assert (await ask(gateway.port, b"y"))[0] == 503
            assert node.counters.refused == 1
            dialled.pool.give_back(taken)
            assert (await ask(gateway.port, b"z"))[0] == 200


async def test_idle_streams_are_swept_like_idle_connections():
    async with wire(small, mux=True, idle_s=0.2) as node:
        dialled = Dialled(node.port)
        assert (await request(dialled.pool, b"GET", b"/", headers=[(b"host", b"a")])).status == 200
        await until(lambda: not dialled.pool.total)
        assert node.connections == 1  # the link stays
        assert (await request(dialled.pool, b"GET", b"/", headers=[(b"host", b"a")])).status == 200
        assert dialled.count == 1


async def test_stopping_lets_streams_end_what_they_do():
    asked, answer = asyncio.Event(), asyncio.Event()

    async def step(reader, writer):
        await read_request(reader)
        asked.set()
        await answer.wait()
        writer.write(ok())
        await writer.drain()

    async with upstream(step) as tenant:
        inner = Pool(tenant.address)
        routed = wire(lambda head: Forward(forward_head(head), inner), mux=True, stop_s=8.0)
        node = await routed.__aenter__()
        dialled = Dialled(node.port)
        async with wire(dialled.route) as gateway, client(gateway.port) as peer:
            await peer.send(GET % b"x")
            await asked.wait()
            stopping = asyncio.ensure_future(routed.__aexit__(None, None, None))
            await asyncio.sleep(0)
            answer.set()
            assert (await peer.response())[0] == 200
            async with asyncio.timeout(WAIT_S):
                await stopping
            await until(lambda: not dialled.pool.total)


async def test_a_peer_that_falls_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(muxlink, "PING_S", 0.02)
    monkeypatch.setattr(muxlink, "SILENT_S", 0.1)

    async def dead(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
            b"Upgrade: lichen-mux/1\r\n\r\n"
        )
        await reader.read()

    async with upstream(dead) as node:
        port = int(node.address.rpartition(":")[2])
        async with wire(Dialled(port).route) as gateway:
            assert (await ask(gateway.port, b"x"))[0] == 502


async def test_pings_keep_a_quiet_connection(monkeypatch):
    monkeypatch.setattr(muxlink, "PING_S", 0.02)
    monkeypatch.setattr(muxlink, "SILENT_S", 0.2)
    asked = asyncio.Event()

    async def slow(reader, writer):
        await read_request(reader)
        asked.set()
        await asyncio.sleep(0.6)  # three times as long as silence is borne
        writer.write(ok())
        await reader.read()

    async with upstream(slow) as tenant:
        inner = Pool(tenant.address)
        async with wire(lambda head: Forward(forward_head(head), inner), mux=True) as node:
            async with wire(Dialled(node.port).route) as gateway:
                assert await ask(gateway.port, b"x") == (200, b"fine")


async def test_a_connection_without_streams_is_closed_in_time(monkeypatch):
    monkeypatch.setattr(muxlink, "PING_S", 0.02)
    monkeypatch.setattr(muxlink, "UNUSED_S", 0.1)
    async with wire(small, mux=True) as node:
        dialled = Dialled(node.port)
        assert (await request(dialled.pool, b"GET", b"/", headers=[(b"host", b"a")])).status == 200
        dialled.pool.close()
        await until(lambda: not node.connections)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
        b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
        b"\0\0\0\0 what is this\r\n\r\n",
    ],
)
async def test_whatever_else_answers_the_offer_is_spoken_to_plainly(answer):
    async with upstream(replies(answer), replies(ok(b"plain"))) as node:
        port = int(node.address.rpartition(":")[2])
        async with wire(Dialled(port).route) as gateway:
            assert await ask(gateway.port, b"x") == (200, b"plain")


async def test_frames_that_break_the_rules_end_the_connection():
    async with wire(small, mux=True) as node, client(node.port) as peer:
        await peer.send(muxlink._ASK % b"a")
        assert (await peer.head())[0] == 101
        await peer.send(b"\xff" * 64)
        await peer.ended()
        await until(lambda: not node.connections)
        assert node.counters.malformed == 1
