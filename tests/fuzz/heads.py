"""HTTP on the wire: what is accepted is read alike by llhttp and h11, and written on unambiguously."""

from __future__ import annotations

import contextlib

import h11
import httptools

from lichen.errors import LichenError
from lichen.wire import HeadRewrite
from lichen.wire.asgi import ASGI_METHODS
from lichen.wire.content import ContentEntry, byte_range, content_answer, etag_matches
from lichen.wire.errors import MalformedError
from lichen.wire.framing import LAST_CHUNK, ChunkedFraming, chunk
from lichen.wire.heads import (
    CHUNKED,
    HOP_BY_HOP,
    UNTIL_CLOSE,
    RequestHead,
    parse_request,
    parse_response,
    usual_request,
    usual_response,
)
from tests.fuzz.kit import Dice, refusals, require, target

USUAL = b"GET /a?b HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: x, close\r\nx: 1\r\n\r\n"
PROXY = b"GET http://a.b:1/c HTTP/1.1\r\nHost: d\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
REWRITE = HeadRewrite(set_names=(b"lichen-run", b"forwarded"), remove=(b"x-drop",))
HEADERS_MAX = 128


class _Read:
    """What llhttp makes of a request head."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):
            self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


@target(
    "request-head", USUAL, POST, PROXY, b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", bytes_max=1024
)
def request_head(data: bytes) -> None:
    usual = usual_request(data, None, HEADERS_MAX)
    try:
        head = parse_request(data, None, headers_max=HEADERS_MAX)
    except LichenError as error:
        require(error.status in {400, 413, 431, 501}, repr(error))
        require(usual is None, "usual, but refused")
        return
    if usual is not None:
        _check_alike(usual, head)
    require(head.target.startswith(b"/") or head.target == b"*" or head.method == b"CONNECT")
    if head.method == b"CONNECT":
        return
    if head.method not in ASGI_METHODS:  # answered before llhttp sees it
        return
    found = _Read(head.block)
    require(found.complete, "llhttp refuses what the listener hands over")
    require(found.parser.get_method() == head.method)
    require(found.url == head.target, (found.url, head.target))
    url = httptools.parse_url(head.target)  # as uvicorn does
    require(url.path == head.path, (url.path, head.path))
    require((url.query or b"") == head.query)
    require(found.headers == [(n, v.strip(b" \t")) for n, v in head.headers], "other fields")
    _check_h11(head)
    _check_forwarded(head)


def _check_alike(usual: RequestHead, head: RequestHead) -> None:
    names = (
        "method", "target", "path", "host", "keep_alive", "content_length", "upgrade",
        "expects_continue", "minor", "block", "fields_at", "headers",
    )  # fmt: skip
    for name in names:
        require(getattr(usual, name) == getattr(head, name), name)


def _check_h11(head: RequestHead) -> None:
    """h11 is stricter in places; where it reads the head too, it sees the same framing."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(head.block)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return
    if not isinstance(event, h11.Request):
        return
    require(event.method == head.method)
    require(event.target == head.target)
    names = dict(event.headers)
    is_chunked = names.get(b"transfer-encoding") == b"chunked"
    length = int(names.get(b"content-length", 0))
    require((CHUNKED if is_chunked else length) == head.content_length, "another body")


def _check_forwarded(head: RequestHead) -> None:
    out = REWRITE(head, b"run", b"for=x")
    again = parse_request(out, None, headers_max=HEADERS_MAX + 8)
    require(again.method == head.method)
    require(again.target == head.target)
    require(again.host == head.host)
    require(again.content_length == head.content_length, "the next hop reads another body")
    require(again.get(b"lichen-run") == b"run")
    kept = HOP_BY_HOP & set(again.names)
    require(kept <= {b"transfer-encoding", b"connection", b"upgrade"}, kept)
    if not head.upgrade:
        require(kept <= {b"transfer-encoding"}, kept)


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: a\r\ncontent-length: 5\r\n\r\n"


@target(
    "response-head",
    ANSWER,
    ANSWER + b"hello",
    b"HTTP/1.0 200 \r\nconnection: a\r\n\r\n",
    bytes_max=1024,
)
def response_head(data: bytes) -> None:
    end = data.find(b"\r\n\r\n") + 4
    usual = usual_response(data)
    try:
        head = parse_response(data[:end] if end > 3 else data, b"GET")
    except LichenError:
        require(usual is None, "usual, but refused")
        return
    if usual is not None:
        status, length, usual_end, fields_at = usual
        require(
            (int(status), length, usual_end, fields_at)
            == (head.status, head.length, end, head.fields_at)
        )
    require(head.length >= 0 or head.length in {CHUNKED, UNTIL_CLOSE})
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(data[:end])
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return
    if isinstance(event, h11.Response):
        require(event.status_code == head.status)
        names = dict(event.headers)
        if head.status not in {204, 304} and names.get(b"transfer-encoding") == b"chunked":
            require(head.length == CHUNKED, "another body")


def _feed(data: bytes, cuts) -> tuple[bytes, bool, bytes, bool]:
    framing, out = ChunkedFraming(), b""
    try:
        for piece in cuts(data):
            if framing.done:
                framing.rest += piece
            else:
                out += framing.feed(piece)
    except MalformedError:
        return b"", framing.done, b"", False
    return out, framing.done, framing.rest, True


class _Body:
    """What llhttp makes of a chunked body."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.done = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


@target(
    "chunks",
    chunk(b"hello") + LAST_CHUNK,
    b"5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\nGET",
    b"0\r\n\r\n",
    bytes_max=512,
)
def chunks(data: bytes) -> None:
    whole = _feed(data, lambda d: (d,))
    dice = Dice(data[::-1])
    sizes = [1 + dice.byte() % 5 for _ in range(8)]

    def cut(d: bytes):
        at = 0
        while at < len(d):
            size = sizes[at % 8]
            yield d[at : at + size]
            at += size

    pieces = _feed(data, cut)
    if whole[3] and pieces[3]:
        require(whole == pieces, "pieces decide")
    require(whole[3] == pieces[3] or whole[1] or pieces[1] or not whole[3], "pieces decide")
    if whole[3] and whole[1]:
        body = data[: len(data) - len(whole[2])]
        try:
            found = _Body(body)
        except httptools.HttpParserError:  # it reads extensions more strictly; they are cut out
            return
        require(found.done, "llhttp waits for more")
        require(found.body == whole[0], "llhttp reads another body")


ETAG = b'"abc"'


@target(
    "ranges",
    b"bytes=0-1",
    b"bytes=-5",
    b"bytes=3-,9-9",
    b'bytes=0-1\nW/"abc"\n"abc"',
    bytes_max=256,
)
def ranges(data: bytes) -> None:
    value, _, rest = data.partition(b"\n")
    match, _, if_range = rest.partition(b"\n")
    for size in (0, 1, 10):
        place = byte_range(value, size)
        if place is not None and place[0] <= place[1]:
            require(0 <= place[0] <= place[1] < size, place)
    require(not etag_matches(ETAG, match) or b"abc" in match or b"*" in match)
    fields = b"".join(
        b"%b: %b\r\n" % (name, field)
        for name, field in ((b"range", value), (b"if-none-match", match), (b"if-range", if_range))
        if field
    )
    body = b"0123456789"
    entry = ContentEntry(ETAG, b"content-type: text/plain\r\n", body)
    with refusals():
        head = parse_request(b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % fields)
        found = content_answer(entry, head)
        sent = parse_response(found.head, b"GET")
        require(sent.status in {200, 206, 304, 416})
        require(sent.length == len(found.body))
        if sent.status == 206:
            first, last = sent.get(b"content-range")[6:].split(b"/")[0].split(b"-")
            require(found.body == body[int(first) : int(last) + 1])
        elif sent.status == 200:
            require(found.body == body)
        else:
            require(not found.body)
