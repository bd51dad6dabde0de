# ruff: noqa: ASYNC110 (counters have no event to wait for; the waits are bounded)
# ruff: noqa: SIM117 (the upstream stands outside, the listener inside)
"""The listener over loopback: order, limits, timeouts, files, ASGI and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time

import pytest
import websockets

from lichen.errors import NotFoundError
from lichen.wire import (
    Asgi,
    ContentEntry,
    FlatFile,
    ListenerConfig,
    Ready,
    SendFile,
    content_answer,
    listening,
)
from lichen.wire.errors import PortTakenError
from tests.integration.wire_world import (
    WAIT_S,
    client,
    event_loop_policy,  # noqa: F401 (a fixture)
    wire,
)

HELLO = Ready.of(200, [(b"content-type", b"text/plain")], b"hello")
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"


def hello(head):
    if head.path == b"/asgi":
        return None
    if head.path == b"/small-asgi":
        return Asgi(10)
    if head.path == b"/broken":
        raise ZeroDivisionError
    if head.path == b"/missing":
        raise NotFoundError("no such thing", hint="look elsewhere")
    return HELLO


async def echo_app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": "echo " + message["text"]})
        await send({"type": "websocket.close"})
        return
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode() + b" " + body})


async def test_these_tests_run_on_uvloop():
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"


async def test_pipelined_requests_are_answered_in_order_across_all_paths():
    async with wire(hello, echo_app) as listener, client(listener.port) as peer:
        await peer.send(
            GET % b"x"
            + b"POST /asgi HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            + b"POST /asgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
            + GET % b"y"
            + GET % b"asgi"
            + GET % b"z"
        )
        bodies = [(await peer.response())[2] for _ in range(6)]
    assert bodies == [b"hello", b"POST abc", b"POST de", b"hello", b"GET ", b"hello"]


async def test_requests_cut_at_every_byte_are_answered_alike():
    requests = (
        GET % b"x"
        + b"POST /asgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        + GET % b"y"
    )
    async with wire(hello, echo_app) as listener:
        for cut in range(1, len(requests), 3):
            async with client(listener.port) as peer:
                await peer.send(requests[:cut])
                await asyncio.sleep(0)
                await peer.send(requests[cut:])
                bodies = [(await peer.response())[2] for _ in range(3)]
            assert bodies == [b"hello", b"POST abc", b"hello"]


async def test_a_router_that_fails_still_answers():
    async with wire(hello) as listener, client(listener.port) as peer:
        status, fields, body = await peer.ask(GET % b"missing")
        assert (status, json.loads(body)["type"]) == (404, "urn:lichen:problem:not-found")
        assert fields[b"content-type"] == b"application/problem+json"
        assert (await peer.ask(GET % b"broken"))[0] == 500
        assert (await peer.ask(GET % b"x"))[2] == b"hello"
        assert (await peer.ask(GET % b"asgi"))[0] == 404  # no app: a problem too


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "malformed-request",
        ),
        (b"nonsense\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000, 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431, "head-too-large"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501, "not-implemented"),
        (b"POST /asgi HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n", 413, "body-too-large"),
        (
            b"POST /small-asgi HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n",
            413,
            "body-too-large",
        ),
        (
            b"POST /asgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "malformed-request",
        ),
        (
            b"POST /asgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n"
            + b"x" * 2000,
            413,
            "body-too-large",
        ),
    ],
)
async def test_a_bad_request_gets_a_problem_and_a_closed_connection(request_bytes, status, code):
    async with (
        wire(hello, echo_app, body_bytes_max=1000) as listener,
        client(listener.port) as peer,
    ):
        await peer.send(request_bytes)
        got, fields, body = await peer.response()
        assert (got, json.loads(body)["type"]) == (status, f"urn:lichen:problem:{code}")
        assert fields[b"connection"] == b"close"
        assert await peer.ended() == b""


async def test_a_body_nobody_wanted_is_skipped_and_the_connection_goes_on():
    async with wire(hello) as listener, client(listener.port) as peer:
        await peer.send(
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 60_000
        )
        assert (await peer.response())[2] == b"hello"
        await peer.send(b"x" * 40_000 + GET % b"y")
        assert (await peer.response())[2] == b"hello"


async def test_a_long_body_nobody_wanted_ends_the_connection():
    async with wire(hello) as listener, client(listener.port) as peer:
        await peer.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        _, fields, body = await peer.response()
        assert (fields[b"connection"], body) == (b"close", b"hello")


async def test_http_1_0_and_close_end_the_connection():
    async with wire(hello) as listener:
        for head in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ):
            async with client(listener.port) as peer:
                _, fields, _ = await peer.ask(head)
                assert fields[b"connection"] == b"close"
                assert await peer.ended() == b""


async def test_a_head_request_gets_no_body():
    async with wire(hello) as listener, client(listener.port) as peer:
        await peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET % b"x")
        assert (await peer.response(bodiless=True))[1][b"content-length"] == b"5"
        assert (await peer.response())[2] == b"hello"


async def test_a_slow_head_is_timed_out_even_when_bytes_keep_dripping():
    async with wire(hello, header_s=0.5, idle_s=30.0) as listener, client(listener.port) as peer:

        async def drip():
            for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 500:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.02)

        task = asyncio.ensure_future(drip())
        assert (await peer.response())[0] == 408
        task.cancel()
        assert listener.counters.timeouts == 1


async def test_an_idle_connection_is_closed():
    async with wire(hello, idle_s=0.3) as listener, client(listener.port) as peer:
        await peer.ask(GET % b"x")
        assert await peer.ended() == b""


async def test_a_stalled_body_is_timed_out_and_the_app_is_told():
    gone = asyncio.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with wire(hello, app, body_idle_s=0.3) as listener, client(listener.port) as peer:
        await peer.send(b"POST /asgi HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await peer.response())[0] == 408
        await asyncio.wait_for(gone.wait(), WAIT_S)


async def test_a_client_that_does_not_read_is_cut_off():
    big = Ready.of(200, [], b"x" * 30_000_000)
    async with wire(lambda head: big, send_idle_s=0.5) as listener, client(listener.port) as peer:
        peer.writer.transport.pause_reading()
        await peer.send(GET % b"x")
        async with asyncio.timeout(WAIT_S):
            while listener.connections:
                await asyncio.sleep(0.05)


async def test_connections_over_the_limit_are_told_so():
    async with wire(hello, connections_max=2) as listener:
        async with client(listener.port) as first, client(listener.port) as second:
            await first.ask(GET % b"x")
            await second.ask(GET % b"x")
            async with client(listener.port) as third:
                assert (await third.response())[0] == 503
            assert (await first.ask(GET % b"x"))[0] == 200
        assert listener.counters.refused == 1


async def test_who_only_waits_makes_room_for_newcomers_and_who_is_served_does_not():
    async with wire(hello, echo_app, connections_max=4, room_s=0.3) as listener:
        async with contextlib.AsyncExitStack() as stack:
            silent, slow, busy, idle = [
                await stack.enter_async_context(client(listener.port)) for _ in range(4)
            ]
            await slow.send(b"GET /x HT")
            await busy.send(b"POST /asgi HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
            await idle.ask(GET % b"x")
            waited = listener.now + 0.8
            async with asyncio.timeout(WAIT_S):
                while listener.now < waited:
                    await asyncio.sleep(0.05)
            for _ in range(3):
                newcomer = await stack.enter_async_context(client(listener.port))
                assert (await newcomer.ask(GET % b"x"))[0] == 200
            for left in (silent, slow, idle):
                assert await left.ended() == b""
            await busy.send(b"cde")
            assert (await busy.response())[0] == 200
            assert listener.counters.made_room == 3
            assert listener.counters.refused == 0


async def test_far_over_the_limit_connections_are_closed_without_a_word():
    async with wire(hello, connections_max=1, refusals_max=2) as listener:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client(listener.port)) for _ in range(6)]
            said = [await c.ended() for c in clients[1:]]
        assert [part[:12] for part in said] == [b"HTTP/1.1 503"] * 2 + [b""] * 3


async def test_a_flood_of_pipelined_requests_is_answered_in_turns():
    count = 10_000  # more bytes than may be held
    async with wire(hello) as listener:
        async with client(listener.port) as flood, client(listener.port) as other:
            await flood.ask(GET % b"x")
            sending = asyncio.create_task(flood.send(GET % b"x" * count))
            assert (await other.ask(GET % b"x"))[0] == 200
            for _ in range(count):
                assert (await flood.response())[0] == 200
            await sending
            assert (await flood.ask(GET % b"x"))[0] == 200


async def test_a_client_that_floods_first_and_reads_later_gets_every_answer():
    count, answer = 8000, Ready.of(200, [], bytes(4000))
    async with wire(lambda head: answer) as listener, client(listener.port) as flood:
        flood.writer.write(GET % b"x" * count)
        async with asyncio.timeout(WAIT_S):
            while listener.counters.requests < 1000:  # its answers fill all buffers
                await asyncio.sleep(0.01)
        for _ in range(count):
            assert len((await flood.response())[2]) == 4000
        assert (await flood.ask(GET % b"x"))[0] == 200


async def test_empty_lines_before_a_request_cost_next_to_nothing():
    async with wire(hello) as listener, client(listener.port) as c:
        started = time.process_time()
        assert (await c.ask(b"\r\n" * 500_000 + GET % b"x"))[0] == 200
        assert time.process_time() - started < 1.0


async def test_websockets_reach_the_asgi_app():
    async with wire(hello, echo_app) as listener:
        async with websockets.connect(f"ws://127.0.0.1:{listener.port}/asgi") as peer:
            await peer.send("you")
            assert await peer.recv() == "echo you"


async def test_an_upgrade_nobody_knows_is_an_ordinary_request():
    async with wire(hello, echo_app) as listener, client(listener.port) as peer:
        status, _, body = await peer.ask(
            b"POST /asgi HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
        )
        assert (status, body) == (200, b"POST hi")
        assert (await peer.ask(GET % b"x"))[2] == b"hello"


async def test_expect_100_continue_is_answered_before_the_body_for_asgi():
    async with wire(hello, echo_app) as listener, client(listener.port) as peer:
        await peer.send(
            b"POST /asgi HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await peer.head())[0] == 100
        assert (await peer.ask(b"hi"))[2] == b"POST hi"


# Content and files.


@pytest.fixture
def flat(tmp_path):
    path = tmp_path / "flat"
    path.write_bytes(os.urandom(6_000_000))
    return path


def entries(path, uses):
    fd = os.open(path, os.O_RDONLY)
    file = FlatFile(fd, acquire=lambda: uses.append(1), release=lambda: uses.append(-1))
    data = path.read_bytes()
    return (
        data,
        ContentEntry(b'"e"', b"content-type: a/b\r\n", file=file, size=len(data)),
        ContentEntry(b'"e"', b"content-type: a/b\r\n", data),
    )


@pytest.mark.parametrize(
    ("fields", "status", "part"),
    [
        (b"", 200, slice(None)),
        (b"Range: bytes=0-0\r\n", 206, slice(0, 1)),
        (b"Range: bytes=5-1000004\r\n", 206, slice(5, 1_000_005)),
        (b"Range: bytes=5999999-\r\n", 206, slice(5_999_999, None)),
        (b"Range: bytes=5999999-9999999999\r\n", 206, slice(5_999_999, None)),
        (b"Range: bytes=-7\r\n", 206, slice(-7, None)),
        (b"Range: bytes=-99999999\r\n", 206, slice(None)),
        (b"Range: bytes=6000000-\r\n", 416, None),
        (b"Range: bytes=-0\r\n", 416, None),
        (b"Range: bytes=9-8\r\n", 200, slice(None)),
        (b"Range: bytes=0-1,3-4\r\n", 206, slice(0, 2)),
        (b"Range: lines=0-1\r\n", 200, slice(None)),
        (b'Range: bytes=0-1\r\nIf-Range: "e"\r\n', 206, slice(0, 2)),
        (b'Range: bytes=0-1\r\nIf-Range: "other"\r\n', 200, slice(None)),
        (b'If-None-Match: "e"\r\n', 304, None),
        (b'If-None-Match: "x", W/"e"\r\n', 304, None),
        (b"If-None-Match: *\r\n", 304, None),
        (b'If-None-Match: "x"\r\n', 200, slice(None)),
        (b'If-None-Match: "e"\r\nRange: bytes=0-1\r\n', 304, None),
    ],
)
async def test_content_is_answered_as_rfc_9110_says_from_memory_and_file(
    flat, fields, status, part
):
    uses = []
    data, filed, in_memory = entries(flat, uses)
    answers = {b"/file": filed, b"/memory": in_memory}
    async with wire(lambda head: content_answer(answers[head.path], head)) as listener:
        for path in answers:
            async with client(listener.port) as peer:
                request = b"%b " + path + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"
                await peer.send(request % b"GET" + request % b"HEAD")
                got, headers, body = await peer.response()
                assert got == status
                if part is not None:
                    assert body == data[part]
                    assert headers[b"content-length"] == b"%d" % len(data[part])
                if status == 206:
                    start = part.indices(len(data))[0]
                    assert headers[b"content-range"] == b"bytes %d-%d/%d" % (
                        start,
                        start + len(body) - 1,
                        len(data),
                    )
                got, _, _ = await peer.response(bodiless=True)
                assert got == (304 if status == 304 else 200)
    assert sum(uses) == 0


async def test_other_methods_on_content_are_not_allowed(flat):
    _, _, entry = entries(flat, [])
    async with (
        wire(lambda head: content_answer(entry, head)) as listener,
        client(listener.port) as peer,
    ):
        status, fields, _ = await peer.ask(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, fields[b"allow"]) == (405, b"GET, HEAD")


async def test_files_ready_bytes_and_requests_mix_on_one_connection(flat):
    uses = []
    data, entry, _ = entries(flat, uses)

    def router(head):
        return content_answer(entry, head) if head.path == b"/file" else HELLO

    async with wire(router) as listener, client(listener.port) as peer:
        await peer.send((GET % b"x" + GET % b"file" + GET % b"y") * 3)
        for _ in range(3):
            assert (await peer.response())[2] == b"hello"
            assert (await peer.response())[2] == data
            assert (await peer.response())[2] == b"hello"
    assert sum(uses) == 0


async def test_a_client_that_leaves_mid_file_lets_the_file_go(flat):
    released = asyncio.Event()
    fd = os.open(flat, os.O_RDONLY)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 6000000\r\n\r\n"
    async with wire(lambda _: SendFile(head, fd, 0, 6_000_000, released.set)) as listener:
        async with client(listener.port) as peer:
            peer.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
            )
            await peer.send(GET % b"x")
            await peer.reader.readexactly(1000)
        await asyncio.wait_for(released.wait(), WAIT_S)


async def test_a_file_is_sent_whole_when_no_descriptor_is_left_for_a_second_way(flat):
    uses = []
    data, entry, _ = entries(flat, uses)
    async with wire(lambda head: content_answer(entry, head)) as listener:
        listener.files_max = 0
        async with client(listener.port) as peer:
            before = len(os.listdir("/proc/self/fd"))
            assert (await peer.ask(GET % b"x"))[2] == data
            await peer.send(b"GET /x HTTP/1.1\r\nHost: a\r\nRange: bytes=7-99999\r\n\r\n")
            status, _, body = await peer.response()
            assert (status, body) == (206, data[7:100_000])
            assert len(os.listdir("/proc/self/fd")) <= before
    assert sum(uses) == 0


async def test_a_client_that_stops_reading_a_file_is_cut_off(tmp_path):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 100_000_000)
    released = asyncio.Event()
    fd = os.open(path, os.O_RDONLY)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n"
    router = lambda _: SendFile(head, fd, 0, 100_000_000, released.set)  # noqa: E731
    async with wire(router, send_idle_s=0.5) as listener, client(listener.port) as peer:
        await peer.send(GET % b"x")
        peer.writer.transport.pause_reading()
        await asyncio.wait_for(released.wait(), WAIT_S)


async def test_a_file_shorter_than_promised_is_never_a_whole_response(flat):
    fd = os.open(flat, os.O_RDONLY)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n"
    async with (
        wire(lambda _: SendFile(head, fd, 0, 9_000_000)) as listener,
        client(listener.port) as peer,
    ):
        await peer.send(GET % b"x")
        with pytest.raises(asyncio.IncompleteReadError):
            await peer.response()


# Life cycle.


async def test_a_taken_port_is_told_with_a_hint():
    async with wire(hello) as listener:
        config = ListenerConfig(addresses=(f"127.0.0.1:{listener.port}",))
        with pytest.raises(PortTakenError) as refusal:
            async with listening(config, hello):
                pass
        assert str(listener.port) in refusal.value.what
        assert refusal.value.hint


async def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    config = ListenerConfig(addresses=(f"unix:{path}", "127.0.0.1:0"))
    async with listening(config, hello):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(GET % b"x")
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), WAIT_S)).startswith(
            b"HTTP/1.1 200"
        )
        with pytest.raises(PortTakenError):
            async with listening(ListenerConfig(addresses=(f"unix:{path}",)), hello):
                pass
        writer.close()
    assert not path.exists()


async def test_stopping_lets_the_answer_in_flight_end():
    begun, go = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    async with wire(hello, app, stop_s=5.0) as listener, client(listener.port) as peer:
        await peer.send(GET % b"asgi")
        await begun.wait()
        stopping = asyncio.ensure_future(listener.stop())
        asyncio.get_running_loop().call_later(0.2, go.set)
        assert (await peer.response())[2] == b"late"
        await asyncio.wait_for(stopping, WAIT_S)


async def test_counters_tell_what_happened():
    async with wire(hello) as listener, client(listener.port) as peer:
        await peer.ask(GET % b"x")
        await peer.ask(GET % b"missing")
        counts = listener.counters.snapshot()
    assert (counts["requests"], counts["responses_2xx"], counts["responses_4xx"]) == (2, 1, 1)
    assert counts["connections"] == 1
    assert counts["bytes_in"] == len(GET % b"x") + len(GET % b"missing")
    assert counts["bytes_out"] > 100


async def test_a_method_that_nobody_knows_gets_a_problem_where_an_app_would_answer():
    async with wire(lambda head: None) as listener, client(listener.port) as c:
        status, fields, body = await c.ask(b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (status, fields[b"content-type"]) == (501, b"application/problem+json")
        assert b"BREW is not known" in body
