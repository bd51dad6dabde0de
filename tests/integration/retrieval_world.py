"""Servers that fetch from each other, and strangers that answer as a test tells them to."""

import asyncio
import contextlib
import io
import json

import httpx
import msgspec

from lichen.cdn.delivery import Delivery
from lichen.cdn.retrieval.fetch import NOWHERE, Fetcher
from lichen.cdn.routing.multiaddr import parse_origin
from lichen.cdn.serve import ContentRouter
from lichen.content import BlockStore
from lichen.content.importer import import_bytes
from lichen.content.profile import V1_2025
from lichen.wire import ListenerConfig, listening

CAPACITY = 2**30
SMALL_CHUNKS = msgspec.structs.replace(V1_2025, chunk_bytes=100_000)


class Server:
    """A store, served as a gateway serves it: nodes at `peers`, and what is `outside`."""

    def __init__(self, folder, peers=(), outside=NOWHERE, *, private_peers=True):
        self.store = BlockStore.open(folder, capacity_bytes=CAPACITY)
        self.fetcher = Fetcher(
            self.store, lambda: peers, private_peers=private_peers, outside=outside
        )
        self.delivery = Delivery(self.store, self.fetcher)
        self.router = ContentRouter(self.store, can_fetch=True)
        self.asked = []

    def route(self, head):
        self.asked.append((head.method.decode(), head.target.decode()))
        return self.router.answer(head) if head.path.startswith(b"/ipfs/") else None

    def put(self, data):
        return self.store.add_file(io.BytesIO(data))[0]


@contextlib.asynccontextmanager
async def serving(folder, *arguments, app=None, **settings):
    server = Server(folder, *arguments, **settings)
    try:
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        asgi = server.delivery.before(app or _nothing)
        async with listening(config, server.route, asgi) as listener:
            server.url = f"http://127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as http:
                server.client, server.get = http, http.get
                yield server
    finally:
        await server.fetcher.close()
        server.delivery.close()
        server.store.close()


async def _nothing(scope, receive, send):
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body"})


class Stranger:
    """An HTTP server that answers by `reply(path)`: bytes to send as they are, None for silence.

    `connections` counts who came, `heads` is what they asked, `most` how many were answered at once.
    """

    def __init__(self, reply):
        self._reply = reply
        self.connections = 0
        self.heads = []
        self.most = 0
        self._now = 0

    @property
    def paths(self):
        return [head.split(" ")[1] for head in self.heads]

    async def handle(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                self._now += 1
                self.most = max(self.most, self._now)
                try:
                    await self._answer(head.split(" ")[1], reader, writer)
                finally:
                    self._now -= 1
        writer.close()

    async def _answer(self, path, reader, writer):
        answer = self._reply(path)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer is None:
            await reader.read()
        elif isinstance(answer, bytes):
            writer.write(answer)
        else:
            for part in answer:  # without end, perhaps
                writer.write(part)
                await writer.drain()


@contextlib.asynccontextmanager
async def stranger(reply):
    found = Stranger(reply)
    server = await asyncio.start_server(found.handle, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


def response(body, kind="application/vnd.ipld.raw", status="200 OK", *fields):
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", f"content-type: {kind}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


NOT_FOUND = response(b"", "text/plain", "404 Not Found")


def record(*urls, protocols=("transport-ipfs-gateway-http",)):
    addrs = [parse_origin(url).multiaddr for url in urls]
    return json.dumps(
        {"Schema": "peer", "ID": "x", "Addrs": addrs, "Protocols": protocols}
    ).encode()


def routing(*records):
    return response(b"".join(line + b"\n" for line in records), "application/x-ndjson")


def blocks_of(data, profile=SMALL_CHUNKS):
    """Return a file's root and its blocks, by the path at which a gateway has them."""
    blocks = {}
    root = import_bytes(data, profile, lambda cid, block: blocks.setdefault(str(cid), block)).cid
    return root, {f"/ipfs/{cid}?format=raw": response(block) for cid, block in blocks.items()}


def provider_of(blocks):
    """Return how a stranger answers who has these blocks."""
    return lambda path: blocks.get(path, NOT_FOUND)
