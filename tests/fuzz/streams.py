"""A whole connection: the requests that come out of any bytes are those that h11 finds in them."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import h11

from lichen.wire import Asgi, Limits, ListenerConfig, Ready
from lichen.wire.connection import Connection
from lichen.wire.listener import Listener
from tests.fuzz.kit import Dice, require, target

if TYPE_CHECKING:
    from lichen.wire.heads import RequestHead

HEAD_BYTES_MAX = 4096
PIECES_MAX = 12
TURNS = 10
READY = Ready.of(200, [(b"content-type", b"text/plain")], b"ready")
Request = tuple[bytes, bytes, bytes]

GET = b"GET /%b HTTP/1.1\r\nhost: a\r\n%b\r\n"
POST = b"POST /%b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /%b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and closes when told."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.out = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        require(not self.closed, "written after the end")
        self.out += data

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Server:
    """A listener without sockets, which notes what it was asked; one for all runs."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.asked: list[Request] = []
        limits = Limits(head_bytes_max=HEAD_BYTES_MAX)
        self.listener = Listener(
            ListenerConfig(addresses=(), limits=limits), self._route, self._app
        )
        self.listener._server.config.load()

    def _route(self, head: RequestHead):
        if head.path.startswith(b"/r") and not head.content_length:
            self.asked.append((head.method, _target(head.target), b""))
            return READY
        return Asgi(1 << 20)

    async def _app(self, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        if message["type"] == "http.disconnect":
            return
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        self.asked.append((scope["method"].encode(), scope["raw_path"] + query, body))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]}
        )
        await send({"type": "http.response.body", "body": b"app"})

    def run(self, pieces: list[bytes]) -> tuple[list[Request], bytes]:
        self.asked = []
        server, wire = self.listener._server, Wire()
        connection = Connection(
            self.listener, config=server.config, server_state=server.server_state,
            app_state={}, _loop=self.loop,
        )  # fmt: skip
        self.loop.run_until_complete(self._feed(connection, wire, pieces))
        return self.asked, bytes(wire.out)

    async def _feed(self, connection: Connection, wire: Wire, pieces: list[bytes]) -> None:
        connection.connection_made(wire)
        for piece in pieces:
            if wire.closed:
                break
            connection.data_received(piece)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        require(not self.listener._server.server_state.connections, "a connection is kept")
        require(not self.listener._server.server_state.tasks, "a task is kept")


@functools.cache
def _server() -> Server:
    return Server()


def _target(sent: bytes) -> bytes:
    """Leave out an empty query, as ASGI does."""
    path, _, query = sent.partition(b"?")
    return path + b"?" + query if query else path


def _cut(data: bytes) -> list[bytes]:
    dice, at, pieces = Dice(data[-PIECES_MAX:]), 0, []
    while at < len(data) and len(pieces) < PIECES_MAX:
        size = dice.choose((1, 7, 40, len(data)))
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]] if at < len(data) else pieces


def _requests(data: bytes) -> list[Request]:
    """What h11 finds, up to what it refuses, or does not find an end of."""
    found: list[Request] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
    head, body = None, b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((head.method, _target(head.target), body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


@target(
    "stream",
    (GET % (b"r", b"")) * 3,
    GET % (b"a", b"") + POST % b"r" + CHUNKED % b"a" + GET % (b"r", b"connection: close\r\n"),
    CHUNKED % b"r" + GET % (b"a", b"expect: 100-continue\r\n"),
    b"\r\n\r\n" + POST % b"a" + POST % b"a",
    GET % (b"a", b"upgrade: h2c\r\nconnection: upgrade\r\n") + GET % (b"r", b""),
    bytes_max=600,
)
def stream(data: bytes) -> None:
    whole, _ = _server().run([data])
    pieces, out = _server().run(_cut(data))
    require(whole == pieces[: len(whole)] or pieces == whole[: len(pieces)], "pieces decide")
    expected = _requests(data)
    if b"://" in data or b"CONNECT" in data:  # proxied: written anew
        return
    common = min(len(pieces), len(expected))
    require(pieces[:common] == expected[:common], (pieces, expected))
    if b"HEAD" not in data:  # whose answers have a length and no body
        _check_answers(out)


def _check_answers(out: bytes) -> None:
    """What is written are whole responses, one behind the other."""
    while out:
        require(out.startswith(b"HTTP/1.1 "), out[:80])
        head, mark, out = out.partition(b"\r\n\r\n")
        require(mark, "a head without end")
        if int(head[9:12]) == 100:
            continue
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        require(len(out) >= length, "a body cut off")
        out = out[length:]
