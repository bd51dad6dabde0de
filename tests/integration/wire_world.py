"""A client and an upstream that speak bytes, so that tests can misbehave on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import uvloop

from lichen.wire import Limits, ListenerConfig, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lichen.wire import Listener

WAIT_S = 10.0


@pytest.fixture
def event_loop_policy():
    """Run the tests on the loop that production runs on."""
    return uvloop.EventLoopPolicy()


class Client:
    """One raw connection to a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[bytes, bytes]]:
        async with asyncio.timeout(WAIT_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = raw[:-4].split(b"\r\n")
        fields = (line.split(b":", 1) for line in lines)
        return int(line.split(b" ")[1]), {name.lower(): value.strip() for name, value in fields}

    async def response(self, *, bodiless: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        status, fields = await self.head()
        if bodiless or status in {204, 304}:
            return status, fields, b""
        async with asyncio.timeout(WAIT_S):
            if fields.get(b"transfer-encoding") == b"chunked":
                return status, fields, await self._chunks()
            if b"content-length" in fields:
                length = int(fields[b"content-length"])
                return status, fields, await self.reader.readexactly(length)
            return status, fields, await self.reader.read()

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            body += (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return body

    async def ended(self) -> bytes:
        """Return what still comes until the server ends the connection, cleanly or not."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def ask(self, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        await self.send(data)
        return await self.response()


@contextlib.asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


class Script:
    """An upstream that does for its n-th connection what the n-th function says, the last for all."""

    def __init__(
        self, *steps: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        self.steps = steps
        self.connections = 0
        self.open = 0
        self.gone = asyncio.Event()
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step = self.steps[min(self.connections, len(self.steps) - 1)]
        self.connections += 1
        self.open += 1
        try:
            await step(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def upstream(*steps: Callable[..., Awaitable[None]]) -> AsyncIterator[Script]:
    script = Script(*steps)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, limit=2**22)
    script.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return one request's head and its body, chunked framing included."""
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        return head, await reader.readuntil(b"0\r\n\r\n")
    if b"content-length: " in lowered:
        length = int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, await reader.readexactly(length)
    return head, b""


def replies(*responses: bytes, linger: bool = True) -> Callable[..., Awaitable[None]]:
    """Answer each request of a connection with the next of these bytes, then close."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in responses:
            await read_request(reader)
            writer.write(response)
            await writer.drain()
        if linger:
            await reader.read()

    return step


def ok(body: bytes = b"fine", *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (lines, len(body), body)


@contextlib.asynccontextmanager
async def wire(router, app=None, *, mux=False, **limits) -> AsyncIterator[Listener]:
    limits.setdefault("stop_s", 1.0)
    config = ListenerConfig(addresses=("127.0.0.1:0",), limits=Limits(**limits), mux=mux)
    async with listening(config, router, app) as listener:
        yield listener
