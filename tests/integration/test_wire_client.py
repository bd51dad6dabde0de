"""The small client over the pool: whole and streamed responses, bounds, and every way to fail."""

from __future__ import annotations

import asyncio

import pytest

from lichen.errors import MachineError
from lichen.wire import Pool, PoolLimits
from lichen.wire.client import request, stream
from lichen.wire.errors import (
    BodyTooLargeError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamTimeoutError,
)
from tests.integration.wire_world import (
    WAIT_S,
    event_loop_policy,  # noqa: F401 (a fixture)
    ok,
    read_request,
    replies,
    upstream,
)


async def test_requests_share_one_kept_alive_connection():
    got = []

    async def record(reader, writer):
        while True:
            got.append(await read_request(reader))
            writer.write(ok(b"fine", b"X-A: 1"))

    async with upstream(record) as script:
        pool = Pool(script.address)
        for body in (b"", b"data"):
            response = await request(
                pool, b"POST", b"/v1/x?y", headers=[(b"Host", b"node")], body=body
            )
            assert (response.status, response.get(b"x-a"), response.body) == (200, b"1", b"fine")
        pool.close()
    assert got[0][0] == b"POST /v1/x?y HTTP/1.1\r\nHost: node\r\ncontent-length: 0\r\n\r\n"
    assert got[1][1] == b"data"
    assert script.connections == 1


async def test_a_stale_connection_is_replaced():
    async with upstream(replies(ok(b"one"), linger=False), replies(ok(b"two"))) as script:
        pool = Pool(script.address)
        assert (await request(pool, b"GET", b"/")).body == b"one"
        assert (await request(pool, b"GET", b"/")).body == b"two"
        pool.close()


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_every_framing_is_read(response, body):
    async with upstream(replies(response, linger=False)) as script:
        assert (await request(Pool(script.address), b"GET", b"/")).body == body


@pytest.mark.parametrize(
    "response",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
        b"",
    ],
)
async def test_a_peer_that_talks_nonsense_or_breaks_off_is_an_error(response):
    async with upstream(replies(response, linger=False)) as script:
        with pytest.raises(UpstreamError) as failure:
            await request(Pool(script.address), b"POST", b"/")
        assert script.address in failure.value.what


async def test_bounds_of_time_and_bytes_hold():
    async with upstream(replies(), replies(*[ok(b"x" * 5000)] * 2)) as script:
        pool = Pool(script.address)
        with pytest.raises(UpstreamTimeoutError):
            await request(pool, b"GET", b"/", timeout_s=0.1)
        with pytest.raises(BodyTooLargeError):
            await request(pool, b"GET", b"/", body_bytes_max=4999)
        assert len((await request(pool, b"GET", b"/", body_bytes_max=5000)).body) == 5000
        pool.close()


async def test_nobody_there_is_unavailable():
    with pytest.raises(UpstreamBusyError):
        await request(Pool("127.0.0.1:1"), b"GET", b"/")
    with pytest.raises(UpstreamBusyError):
        await request(Pool("unix:/nowhere/at/all"), b"GET", b"/")
    with pytest.raises(MachineError):
        Pool("nonsense")


@pytest.mark.parametrize(
    ("target", "value"), [(b"/ HTTP/1.1\r\nX: y", b"v"), (b"/", b"v\r\nX: y"), (b"/", b"v\ny")]
)
async def test_a_value_cannot_become_another_field(target, value):
    with pytest.raises(UpstreamError):
        await request(Pool("127.0.0.1:1"), b"GET", target, headers=[(b"a", value)])


async def test_a_stream_is_handed_out_as_it_comes():
    go = asyncio.Event()

    async def slowly(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    async with upstream(slowly) as script:
        pool = Pool(script.address)
        got = []
        async with stream(pool, b"GET", b"/v1/blocks") as response, asyncio.timeout(WAIT_S):
            async for chunk in response.chunks():
                got.append(chunk)
                go.set()
        assert got == [b"one", b"two"]
        assert len(pool.idle) == 1
        pool.close()


async def test_a_stream_that_stalls_or_breaks_off_says_so():
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    async with upstream(replies(part), replies(part, linger=False)) as script:
        pool = Pool(script.address)
        for failure in (UpstreamTimeoutError, UpstreamError):
            got = []
            with pytest.raises(failure):  # noqa: PT012 (while streaming)
                async with stream(pool, b"GET", b"/", idle_s=0.2) as response:
                    async for chunk in response.chunks():
                        got.append(chunk)  # noqa: PERF401 (it raises)
            assert got == [b"abc"]


async def test_idle_connections_are_closed_after_a_while():
    async with upstream(replies(ok())) as script:
        pool = Pool(script.address, limits=PoolLimits(idle_s=0.1))
        await request(pool, b"GET", b"/")
        async with asyncio.timeout(WAIT_S):
            while pool.total:  # noqa: ASYNC110 (the pool has no event for it)
                await asyncio.sleep(0.02)


async def test_a_closed_pool_refuses():
    async with upstream(replies(ok())) as script:
        pool = Pool(script.address)
        await request(pool, b"GET", b"/")
        pool.close()
        with pytest.raises(UpstreamBusyError):
            await request(pool, b"GET", b"/")
