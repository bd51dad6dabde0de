# ruff: noqa: ASYNC110 (counters have no event to wait for; the waits are bounded)
# ruff: noqa: SIM117 (the upstream stands outside, the listener inside)
"""Forwarding over loopback, with upstreams that misbehave on purpose."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os

import pytest

from lichen.wire import (
    Fault,
    Forward,
    HeadRewrite,
    Outcome,
    Pool,
    PoolLimits,
    Ready,
    ResponseHead,
    Retry,
    forward_head,
)
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

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED_POST = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;e=1\r\nbo\r\n2\r\ndy\r\n0\r\nT: 1\r\n\r\n"
CLOSES = b"\0closes\0"


class Watch(Forward):
    """Records what the hooks see."""

    def __init__(self, head, *upstreams):
        super().__init__(forward_head(head), upstreams[0])
        self.upstreams = upstreams
        self.faults: list[Fault] = []
        self.sent = b""
        self.got = b""
        self.outcomes: list[Outcome] = []
        self.done = asyncio.Event()

    def on_upstream_error(self, fault):
        self.faults.append(fault)
        return self.upstreams[fault.attempts] if fault.attempts < len(self.upstreams) else None

    def on_response_head(self, head):
        head.remove(b"x-private")
        return b"lichen-run: 7\r\n"

    def on_request_body(self, payload):
        self.sent += payload

    def on_response_body(self, payload):
        self.got += payload

    def on_done(self, outcome):
        self.outcomes.append(outcome)
        self.done.set()


def watching(seen, *upstreams):
    def router(head):
        seen.append(Watch(head, *upstreams))
        return seen[-1]

    return router


def plain(pool):
    rewrite = HeadRewrite()
    return lambda head: Forward(rewrite(head), pool)


async def finished(seen) -> Outcome:
    await asyncio.wait_for(seen[-1].done.wait(), WAIT_S)
    assert len(seen[-1].outcomes) == 1
    return seen[-1].outcomes[0]


async def closing(reader, writer):
    await reader.readuntil(b"\r\n\r\n")


async def silent(reader, writer):
    await reader.read()


# Whole exchanges.

RESPONSES = {
    "length": (ok(b"payload"), b"payload"),
    "empty": (ok(b""), b""),
    "hop-by-hop": (ok(b"payload", b"Connection: keep-alive, x-hop", b"Keep-Alive: timeout=5", b"X-Hop: 1"), b"payload"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\npay\r\n4\r\nload\r\n0\r\nT: 1\r\n\r\n", b"payload"),
    "empty chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\npayload" + CLOSES, b"payload"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\npayload" + CLOSES, b"payload"),
    "connection close": (ok(b"payload", b"Connection: close") + CLOSES, b"payload"),
    "early hints": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\n\r\n" + ok(b"payload"), b"payload"),
    "private": (ok(b"payload", b"X-Private: secret"), b"payload"),
    "odd case": (b"HTTP/1.1 200 OK\r\ncontent-LENGTH:7\r\n\r\npayload", b"payload"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
}  # fmt: skip


def cut(response, place):
    """Send a response in two segments."""

    async def step(reader, writer):
        while True:
            await read_request(reader)
            data = response.removesuffix(CLOSES)
            writer.write(data[:place])
            await writer.drain()
            if place < len(data):
                await asyncio.sleep(0.002)
                writer.write(data[place:])
                await writer.drain()
            if response.endswith(CLOSES):
                return

    return step


@pytest.mark.parametrize(("response", "payload"), RESPONSES.values(), ids=RESPONSES)
async def test_a_response_arrives_alike_wherever_it_was_cut(response, payload):
    places = (*range(1, len(response.removesuffix(CLOSES)) + 1, 5), 10**6)
    seen: list[Watch] = []
    pools: list[Pool] = []

    def router(head):
        return watching(seen, pools[-1])(head)

    async with wire(router) as listener:
        for place in places:
            async with upstream(cut(response, place)) as script, client(listener.port) as peer:
                pools.append(Pool(script.address))
                for _ in range(2):
                    status, fields, body = await peer.ask(GET)
                    assert body == payload
                    assert status in {200, 204, 304}
                    assert fields[b"lichen-run"] == b"7"
                    assert (
                        not {b"x-private", b"x-hop", b"keep-alive", b"connection"} & fields.keys()
                    )
                    assert await finished(seen) == Outcome("complete", status, 0, len(payload))
                    assert seen[-1].got == payload
                pools[-1].close()


async def test_unobserved_bytes_pass_unchanged():
    async with upstream(replies(ok(b"one", b"X-A: 1"), ok(b"two"))) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            await peer.send(GET + GET)
            expected = ok(b"one", b"X-A: 1") + ok(b"two")
            assert (
                await asyncio.wait_for(peer.reader.readexactly(len(expected)), WAIT_S) == expected
            )
        assert script.connections == 1


@pytest.mark.parametrize("request_bytes", [POST, CHUNKED_POST])
async def test_a_body_passes_however_it_is_cut(request_bytes):
    got = []

    async def record(reader, writer):
        while True:
            got.append(await read_request(reader))
            writer.write(ok())

    async with upstream(record) as script:
        seen: list[Watch] = []
        async with wire(watching(seen, Pool(script.address))) as listener:
            for place in range(1, len(request_bytes), 3):
                async with client(listener.port) as peer:
                    await peer.send(request_bytes[:place])
                    await asyncio.sleep(0.001)
                    await peer.send(request_bytes[place:] + GET)
                    assert (await peer.response())[2] == b"fine"
                    assert (await peer.response())[2] == b"fine"
                assert seen[-2].sent == b"body"
                head, body = got[-2]
                if b"chunked" in head:
                    assert b"".join(body.split(b"\r\n")[1:-3:2]) == b"body"
                    assert body.endswith(b"\r\n0\r\n\r\n")
                else:
                    assert body == b"body"


async def test_large_bodies_stream_both_ways_and_are_seen_whole():
    data = os.urandom(12_000_000)

    async def echo(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        left = len(data)
        while left:
            piece = await reader.read(65536)
            left -= len(piece)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with upstream(echo) as script:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(script.address))) as listener,
            client(listener.port) as peer,
        ):
            sending = asyncio.ensure_future(
                peer.send(
                    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data
                )
            )
            assert (await peer.response())[2] == data
            await sending
            outcome = await finished(seen)
    assert outcome == Outcome("complete", 200, len(data), len(data))
    assert hashlib.sha256(seen[0].sent).digest() == hashlib.sha256(data).digest()


async def test_a_client_that_reads_slowly_slows_the_upstream_down():
    sent = 0

    async def flood(reader, writer):
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(2000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with upstream(flood) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            peer.writer.transport.pause_reading()
            await peer.send(GET)
            last = -1
            async with asyncio.timeout(WAIT_S):
                while sent != last or not sent:
                    last = sent
                    await asyncio.sleep(0.2)
            assert sent < 60_000_000  # what the kernel's and our buffers take, not the whole


async def test_an_upstream_that_reads_slowly_slows_the_client_down():
    hold = asyncio.Event()

    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        await hold.wait()

    async with upstream(slow) as script:
        async with (
            wire(plain(Pool(script.address)), body_bytes_max=10**9) as listener,
            client(listener.port) as peer,
        ):
            peer.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n")
            with pytest.raises(TimeoutError):  # noqa: PT012 (it raises wherever it waits)
                async with asyncio.timeout(1.0):
                    for _ in range(2000):
                        await peer.send(b"x" * 100_000)
            assert listener.counters.bytes_in < 60_000_000
            hold.set()


async def test_100_continue_is_said_when_the_upstream_is_there():
    async with upstream(replies(ok())) as script:
        ready = asyncio.Event()

        async def choose():
            await ready.wait()
            return Pool(script.address)

        router = lambda head: Forward(forward_head(head), choose())  # noqa: E731
        async with wire(router) as listener, client(listener.port) as peer:
            await peer.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            )
            ready.set()
            assert (await peer.head())[0] == 100
            assert (await peer.ask(b"body"))[0] == 200


async def test_head_requests_have_no_body_whatever_the_length_says():
    async with upstream(replies(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", ok())) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            await peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
            assert (await peer.response(bodiless=True))[1][b"content-length"] == b"7"
            assert (await peer.response())[2] == b"fine"


async def test_an_http_1_0_client_gets_a_chunked_response_without_chunks():
    async with upstream(replies(RESPONSES["chunked"][0])) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            await peer.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await peer.ended()).endswith(b"connection: close\r\n\r\npayload")


async def test_an_early_answer_leaves_both_sides_in_order():
    """The upstream answers before it has read the body: the rest is skipped, the connection goes on."""

    async def early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(b"enough"))
        await reader.read()

    async with upstream(early) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nbody")
            assert (await peer.response())[2] == b"enough"
            await peer.send(b"rest" + GET)
            assert (await peer.response())[2] == b"enough"
        assert script.connections == 2


# Fail-over.


async def test_a_stale_connection_is_replaced_without_the_client_noticing():
    async with upstream(replies(ok(b"one"), linger=False), replies(ok(b"two"))) as script:
        seen: list[Watch] = []
        pool = Pool(script.address)
        async with wire(watching(seen, pool)) as listener, client(listener.port) as peer:
            assert (await peer.ask(GET))[2] == b"one"
            # The upstream closes after its answer; whether that was noticed yet or not, this works.
            assert (await peer.ask(GET))[2] == b"two"
            assert seen[-1].faults == []


async def test_an_upstream_that_dies_before_answering_is_failed_over_when_that_is_safe():
    async with upstream(closing) as dead, upstream(replies(ok(b"alive"))) as alive:
        seen: list[Watch] = []
        router = watching(seen, Pool(dead.address), Pool(alive.address))
        async with wire(router) as listener, client(listener.port) as peer:
            assert (await peer.ask(GET))[2] == b"alive"
            assert seen[-1].faults == [Fault("closed", repeatable=True, attempts=1)]
            assert (await finished(seen)).kind == "complete"


async def test_a_put_is_repeated_with_its_whole_body():
    got = []

    async def record(reader, writer):
        got.append((await read_request(reader))[1])
        writer.write(ok(b"alive"))
        await reader.read()

    async with upstream(closing) as dead, upstream(record) as alive:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(dead.address), Pool(alive.address))) as listener,
            client(listener.port) as peer,
        ):
            assert (await peer.ask(POST.replace(b"POST", b"PUT")))[2] == b"alive"
            assert (await finished(seen)).request_bytes == 4
    assert got == [b"body"]
    assert seen[0].sent == b"body"


async def test_a_post_that_was_sent_is_never_repeated():
    async with upstream(closing) as dead, upstream(replies(ok())) as alive:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(dead.address), Pool(alive.address))) as listener,
            client(listener.port) as peer,
        ):
            status, _, body = await peer.ask(POST)
            assert (status, json.loads(body)["type"]) == (502, "urn:lichen:problem:upstream-failed")
            assert not seen[-1].faults[0].repeatable
            assert (await finished(seen)).kind == "replaced"
        assert alive.connections == 0


async def test_a_post_that_was_not_sent_goes_elsewhere():
    async with upstream(replies(ok(b"alive"))) as alive:
        seen: list[Watch] = []
        nowhere = Pool("127.0.0.1:1")
        async with (
            wire(watching(seen, nowhere, Pool(alive.address))) as listener,
            client(listener.port) as peer,
        ):
            assert (await peer.ask(POST))[2] == b"alive"
            assert seen[-1].faults == [Fault("unreachable", repeatable=True, attempts=1)]


@pytest.mark.parametrize("found", ["answer", "pool"])
async def test_what_a_failed_post_is_answered_may_be_found_out_later(found):
    async with upstream(closing) as dead, upstream(replies(ok())) as alive:

        class Explaining(Forward):
            async def on_upstream_error(self, fault):
                await asyncio.sleep(0)
                return Ready.of(500, [], b"why") if found == "answer" else Pool(alive.address)

        pool = Pool(dead.address)
        async with wire(lambda head: Explaining(forward_head(head), pool)) as listener:
            async with client(listener.port) as peer:
                expected = (500, b"why") if found == "answer" else (502, b"")
                status, _, body = await peer.ask(POST)
                assert (status, body if found == "answer" else b"") == expected
        assert alive.connections == 0


async def test_a_body_too_long_to_keep_is_not_repeated():
    async def reads_then_dies(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(150_000)

    async with upstream(reads_then_dies) as dead, upstream(replies(ok())) as alive:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(dead.address), Pool(alive.address))) as listener,
            client(listener.port) as peer,
        ):
            await peer.send(
                b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 150_000
            )
            assert (await peer.response())[0] == 502
        assert alive.connections == 0


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", b"x" * 70_000,
     b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"],
)  # fmt: skip
async def test_garbage_from_an_upstream_is_a_502(garbage):
    async with upstream(replies(garbage)) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            status, _, body = await peer.ask(GET)
            assert (status, json.loads(body)["type"]) == (502, "urn:lichen:problem:upstream-failed")
            assert (await peer.ask(GET))[0] == 502


@pytest.mark.parametrize(
    "broken",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\npart", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npartX\r\n"],
)  # fmt: skip
async def test_a_response_that_breaks_off_never_looks_whole(broken):
    async with upstream(replies(broken, linger=False)) as script:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(script.address))) as listener,
            client(listener.port) as peer,
        ):
            await peer.send(GET)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await peer.response()
            assert (await finished(seen)).kind == "upstream-broke"


async def test_bytes_after_a_response_end_the_upstream_connection():
    async with upstream(replies(ok(b"one") + ok(b"smuggled")), replies(ok(b"two"))) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            assert (await peer.ask(GET))[2] == b"one"
            assert (await peer.ask(GET))[2] == b"two"
        assert script.connections == 2


async def test_no_upstream_is_a_503_with_a_hint():
    async with wire(plain(Pool("127.0.0.1:1"))) as listener, client(listener.port) as peer:
        status, _, body = await peer.ask(GET)
        assert (status, json.loads(body)["type"]) == (
            503,
            "urn:lichen:problem:upstream-unavailable",
        )
        assert json.loads(body)["hint"]


async def test_a_full_pool_makes_requests_wait_in_a_bounded_line():
    limits = PoolLimits(connections_max=1, waiting_max=1)
    go = asyncio.Event()
    begun = asyncio.Event()

    async def gated(reader, writer):
        while True:
            await read_request(reader)
            begun.set()
            await go.wait()
            writer.write(ok())

    async with upstream(gated) as script:
        pool = Pool(script.address, limits=limits)
        async with (
            wire(plain(pool)) as listener,
            client(listener.port) as first,
            client(listener.port) as second,
            client(listener.port) as third,
        ):
            await first.send(GET)
            await begun.wait()
            await second.send(GET)
            async with asyncio.timeout(WAIT_S):
                while not pool.waiting:
                    await asyncio.sleep(0.01)
            assert (await third.ask(GET))[0] == 503
            go.set()
            assert (await first.response())[0] == 200
            assert (await second.response())[0] == 200
        assert script.connections == 1
        pool.close()


# Choosing, replacing, retrying, deadlines.


async def test_a_ready_answer_from_the_chooser_is_sent_and_the_body_skipped():
    async def choose():
        return Ready.of(402, [], b"pay")

    router = lambda head: Forward(forward_head(head), choose())  # noqa: E731
    async with wire(router) as listener, client(listener.port) as peer:
        await peer.send(POST + GET)
        assert (await peer.response())[::2] == (402, b"pay")
        assert (await peer.response())[::2] == (402, b"pay")


async def test_an_observer_can_repeat_after_paying():
    got = []

    async def toll(reader, writer):
        got.append(await read_request(reader))
        writer.write(b"HTTP/1.1 402 Payment Required\r\nContent-Length: 3\r\n\r\npay")
        got.append(await read_request(reader))
        writer.write(ok(b"paid"))
        await reader.read()

    async with upstream(toll) as script:
        pool = Pool(script.address)

        class Paying(Forward):
            def on_response_head(self, head: ResponseHead):
                if head.status == 402 and self.attempts == 1:
                    return Retry(self.pay(), self.request.replace(b"/x", b"/paid"))
                return b""

            async def pay(self):
                await asyncio.sleep(0.01)
                return pool

        async with (
            wire(lambda head: Paying(forward_head(head), pool)) as listener,
            client(listener.port) as peer,
        ):
            assert (await peer.ask(POST))[2] == b"paid"
    assert [body for _, body in got] == [b"body", b"body"]
    assert got[1][0].startswith(b"POST /paid ")


async def test_an_observer_can_replace_a_response():
    async with upstream(replies(ok(b"secret"), ok(b"secret"))) as script:

        class Hiding(Forward):
            def on_response_head(self, head):
                return Ready.of(404, [], b"hidden")

        pool = Pool(script.address)
        async with (
            wire(lambda head: Hiding(forward_head(head), pool)) as listener,
            client(listener.port) as peer,
        ):
            assert (await peer.ask(GET))[::2] == (404, b"hidden")
            assert (await peer.ask(GET))[::2] == (404, b"hidden")


async def test_a_deadline_asks_the_application():
    async with upstream(silent) as script:
        pool = Pool(script.address)

        class Hurried(Watch):
            deadline_s = 0.3

            def on_deadline(self):
                return Ready.of(504, [], b"too late")

        seen: list[Watch] = []

        def router(head):
            seen.append(Hurried(head, pool))
            return seen[-1]

        async with wire(router) as listener, client(listener.port) as peer:
            assert (await peer.ask(GET))[::2] == (504, b"too late")
            assert (await finished(seen)).kind == "replaced"


async def test_an_upstream_that_never_answers_is_a_504():
    async with (
        upstream(silent) as script,
        wire(plain(Pool(script.address)), response_s=0.3) as listener,
        client(listener.port) as peer,
    ):
        assert (await peer.ask(POST))[0] == 504


async def test_an_upstream_that_stalls_mid_body_is_cut():
    async with upstream(replies(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\npart")) as script:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(script.address)), upstream_idle_s=0.3) as listener,
            client(listener.port) as peer,
        ):
            await peer.send(GET)
            assert (await peer.ended()).endswith(b"part")
            assert (await finished(seen)).kind == "timeout"


async def test_a_client_that_leaves_ends_the_work_upstream():
    async with upstream(silent) as script:
        seen: list[Watch] = []
        async with wire(watching(seen, Pool(script.address))) as listener:
            async with client(listener.port) as peer:
                await peer.send(GET)
                async with asyncio.timeout(WAIT_S):
                    while not script.open:
                        await asyncio.sleep(0.01)
            assert (await finished(seen)).kind == "client-gone"
            async with asyncio.timeout(WAIT_S):
                while script.open:
                    await asyncio.sleep(0.01)


async def test_bodies_over_the_limit_are_refused_whichever_way_they_come():
    async with upstream(silent) as script:
        seen: list[Watch] = []
        pool = Pool(script.address)
        async with wire(watching(seen, pool), body_bytes_max=3) as listener:
            for request_bytes in (POST, CHUNKED_POST):
                async with client(listener.port) as peer:
                    assert (await peer.ask(request_bytes))[0] == 413
                assert (await finished(seen)).kind == "client-error"


async def test_a_stalled_request_body_is_timed_out():
    async with upstream(silent) as script:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(script.address)), body_idle_s=0.3) as listener,
            client(listener.port) as peer,
        ):
            assert (await peer.ask(POST[:-2]))[0] == 408
            assert (await finished(seen)).kind == "timeout"


async def test_a_hook_that_fails_does_not_leave_the_client_waiting():
    async with upstream(replies(ok())) as script:

        class Failing(Forward):
            def on_response_head(self, head):
                raise ZeroDivisionError

        pool = Pool(script.address)
        async with (
            wire(lambda head: Failing(forward_head(head), pool)) as listener,
            client(listener.port) as peer,
        ):
            assert (await peer.ask(GET))[0] == 500


# Tunnels.

UPGRADE = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def shouting(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"upgrade: websocket" in head
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Private: 1\r\n\r\nhi "
    )
    while data := await reader.read(1000):
        writer.write(data.upper())


async def test_a_tunnel_carries_bytes_both_ways_and_counts_them():
    async with upstream(shouting) as script:
        seen: list[Watch] = []
        async with wire(watching(seen, Pool(script.address))) as listener:
            async with client(listener.port) as peer:
                await peer.send(UPGRADE + b"early ")
                status, fields = await peer.head()
                assert (status, fields[b"upgrade"], fields[b"lichen-run"]) == (
                    101,
                    b"websocket",
                    b"7",
                )
                assert b"x-private" not in fields
                await peer.send(b"late")
                assert (
                    await asyncio.wait_for(peer.reader.readexactly(13), WAIT_S) == b"hi EARLY LATE"
                )
            outcome = await finished(seen)
    assert outcome == Outcome("client-gone", 101, 10, 13)


async def test_an_idle_tunnel_is_closed():
    async with upstream(shouting) as script:
        async with (
            wire(plain(Pool(script.address)), tunnel_idle_s=0.3) as listener,
            client(listener.port) as peer,
        ):
            await peer.send(UPGRADE)
            assert (await peer.ended()).endswith(b"hi ")


async def test_an_upgrade_that_is_refused_is_an_ordinary_response():
    async with upstream(replies(ok(b"no"), ok(b"still here"))) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            assert (await peer.ask(UPGRADE))[2] == b"no"
            assert (await peer.ask(GET))[2] == b"still here"


async def test_what_follows_a_refused_upgrade_is_the_next_request():
    async with upstream(replies(ok(b"no"), ok(b"next"))) as script:
        seen: list[Watch] = []
        async with (
            wire(watching(seen, Pool(script.address))) as listener,
            client(listener.port) as peer,
        ):
            await peer.send(UPGRADE + GET)
            assert (await peer.response())[2] == b"no"
            assert (await peer.response())[2] == b"next"


async def test_an_upstream_that_only_hints_is_a_502():
    async with upstream(replies(b"HTTP/1.1 102 Processing\r\n\r\n" * 5000)) as script:
        async with wire(plain(Pool(script.address))) as listener, client(listener.port) as peer:
            assert (await peer.ask(GET))[0] == 502


async def test_an_upstream_that_takes_no_body_is_a_504():
    async def deaf(reader, writer):
        writer.transport.pause_reading()
        await asyncio.sleep(WAIT_S)

    async with upstream(deaf) as script:
        router = plain(Pool(script.address))
        async with (
            wire(router, response_s=0.5, body_idle_s=30.0) as listener,
            client(listener.port) as peer,
        ):
            peer.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n")
            peer.writer.write(b"x" * 60_000_000)
            assert (await peer.response())[0] == 504


async def test_stopping_the_listener_ends_tunnels():
    async with (
        upstream(shouting) as script,
        wire(plain(Pool(script.address)), stop_s=0.5) as listener,
        client(listener.port) as peer,
    ):
        await peer.send(UPGRADE)
        await peer.head()
        await asyncio.wait_for(listener.stop(), WAIT_S)
        await peer.ended()
