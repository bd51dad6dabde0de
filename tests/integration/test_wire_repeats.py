"""A request that repeats the one before it on its connection: answered alike, and never stale."""

import asyncio
import contextlib

from lichen.wire import ContentEntry, ListenerConfig, Ready, content_answer, listening
from lichen.wire.limits import TICK_S

REQUEST = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"


class World:
    """A listener whose router counts what it is asked, and one client."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked = 0

    def route(self, head):
        self.asked += 1
        return self.answer(head)

    async def say(self, request: bytes) -> bytes:
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        wanted = 0 if request.startswith(b"HEAD") else int(length or 0)
        return head + await self.reader.readexactly(wanted)


@contextlib.asynccontextmanager
async def world(answer):
    it = World(answer)
    config = ListenerConfig(addresses=("127.0.0.1:0",))
    async with listening(config, it.route) as listener:
        it.listener = listener
        it.reader, it.writer = await asyncio.open_connection("127.0.0.1", listener.port)
        yield it
        it.writer.close()
        await it.writer.wait_closed()


def lasting(body: bytes):
    entry = ContentEntry(b'"e"', b"", body)
    entry.full.lasts = True
    return lambda head: content_answer(entry, head)


async def test_what_lasts_answers_a_repeated_request_without_the_router():
    async with world(lasting(b"hello")) as it:
        answers = {await it.say(REQUEST) for _ in range(200)}
        assert len(answers) == 1
        assert answers.pop().endswith(b"hello")
        assert it.asked < 100  # a tick may have passed meanwhile, even some
        counters = it.listener.counters
        assert (counters.requests, counters.statuses[2]) == (200, 200)
        assert counters.bytes_in == 200 * len(REQUEST)


async def test_the_router_is_asked_again_with_every_tick():
    bodies = iter(range(10**6))

    def fresh(head):
        return lasting(b"%d" % next(bodies))(head)

    async with world(fresh) as it:
        first = await it.say(REQUEST)
        for _ in range(200):
            if await it.say(REQUEST) != first:
                break
            await asyncio.sleep(TICK_S / 20)
        assert it.asked >= 2


async def test_what_does_not_last_is_asked_for_every_time():
    async with world(lambda _: Ready.of(200, (), b"now")) as it:
        for _ in range(10):
            assert (await it.say(REQUEST)).endswith(b"now")
        assert it.asked == 10


async def test_no_other_request_gets_the_answer_of_the_last_one():
    async with world(lasting(b"hello")) as it:
        assert (await it.say(REQUEST)).endswith(b"hello")
        assert (await it.say(REQUEST.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
        assert b" 304 " in await it.say(REQUEST[:-2] + b'if-none-match: "e"\r\n\r\n')
        assert (await it.say(REQUEST[:-2] + b"range: bytes=1-2\r\n\r\n")).endswith(b"\r\n\r\nel")
        assert b" 405 " in await it.say(REQUEST.replace(b"GET", b"PUT"))
        assert (await it.say(REQUEST)).endswith(b"hello")
        assert it.asked == 6


async def test_who_reads_no_answers_gets_no_more_of_them():
    size = 64 * 1024 - 1024
    async with world(lasting(bytes(size))) as it:
        for _ in range(600):
            it.writer.write(REQUEST)
            await it.writer.drain()
            await asyncio.sleep(0)
        for _ in range(1000):
            if it.listener.counters.bytes_in == 600 * len(REQUEST):
                break
            await asyncio.sleep(0.01)
        (connection,) = it.listener._server.server_state.connections
        assert connection.transport.get_write_buffer_size() < 1024 * 1024
        assert it.listener.counters.requests < 600
        for _ in range(600):
            head = await it.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert len(await it.reader.readexactly(size)) == size
        assert it.listener.counters.requests == 600


async def test_requests_in_pieces_and_pipelines_are_answered_as_ever():
    async with world(lasting(b"hello")) as it:
        await it.say(REQUEST)
        it.writer.write(REQUEST + REQUEST + REQUEST[:5])
        await it.writer.drain()
        await asyncio.sleep(0)
        it.writer.write(REQUEST[5:])
        for _ in range(3):
            head = await it.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await it.reader.readexactly(5) == b"hello"
