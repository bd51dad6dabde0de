"""Heads: what is accepted is read as llhttp reads it; what is ambiguous is refused."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import LichenError
from lichen.wire import HeadRewrite, forward_head
from lichen.wire.errors import HeadTooLargeError, MalformedError
from lichen.wire.heads import (
    CHUNKED,
    UNTIL_CLOSE,
    parse_request,
    parse_response,
    usual_request,
    usual_response,
)

SMUGGLING = {
    "length and chunked": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "two equal lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
    "empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
    "endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n",
    "non-ASCII digit": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ٥\r\n\r\n".encode(),
    "bare LF": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF in fields": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    "folded first line": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before colon": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
    "tab before colon": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
    "vertical tab coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "coding list": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "identity coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two equal hosts": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "host with path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "host list": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in the line": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "control in the target": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment in the target": b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "upgrade with body": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("head", SMUGGLING.values(), ids=SMUGGLING)
def test_an_ambiguous_head_is_refused(head: bytes) -> None:
    with pytest.raises(MalformedError) as refusal:
        parse_request(head)
    assert refusal.value.hint
    assert usual_request(head, None, 128) is None


def test_connect_names_host_and_port_as_its_target() -> None:
    head = parse_request(b"CONNECT A:443 HTTP/1.1\r\nHost: b\r\n\r\n")
    assert (head.host, head.path, head.is_proxied) == (b"a:443", b"", True)
    assert parse_request(b"CONNECT [::1]:80 HTTP/1.0\r\n\r\n").host == b"[::1]:80"


@pytest.mark.parametrize(
    "target",
    [b"CONNECT a", b"CONNECT a:", b"CONNECT http://a:80/", b"CONNECT u@a:80", b"CONNECT /a:80/",
     b"GET a:80", b"GET http:///x", b"GET http://u@a/x", b"GET http://u:p@a", b"GET ftp://a/x",
     b"GET http://a b/x", b"GET http://a:123456/", b"GET http://a:80:80/", b"GET http:/a/x"],
)  # fmt: skip
def test_a_target_that_names_a_host_in_another_way_is_refused(target: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_request(target + b" HTTP/1.1\r\nHost: a\r\n\r\n")


def test_too_many_fields_are_refused_on_both_paths() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n"
    assert usual_request(head, None, 128) is None
    with pytest.raises(HeadTooLargeError):
        parse_request(head)
    assert usual_request(head, None, 201) is not None


def test_a_head_is_read_into_its_parts() -> None:
    head = parse_request(
        b"POST /a%20b?q=1?2 HTTP/1.1\r\nHOST: Example.ORG:80\r\nX-A: 1 \t\r\nx-a: 2\r\n"
        b"Content-Length: 12\r\nExpect: 100-continue\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        ("10.0.0.1", 5),
    )
    assert (head.method, head.path, head.query) == (b"POST", b"/a%20b", b"q=1?2")
    assert (head.host, head.client) == (b"example.org:80", ("10.0.0.1", 5))
    assert head.get(b"x-a") == b"1, 2"
    assert head.get(b"cookie") == b"a=1; b=2"
    assert head.get(b"none", b"-") == b"-"
    assert (head.content_length, head.has_body, head.expects_continue) == (12, True, True)
    assert head.keep_alive
    assert b"x-a" in head
    assert b"x" not in head


def test_the_absolute_form_decides_the_host() -> None:
    head = parse_request(b"GET http://b.example/x?y HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.host, head.path, head.target) == (b"b.example", b"/x", b"/x?y")
    assert forward_head(head) == b"GET /x?y HTTP/1.1\r\nhost: b.example\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "read"),
    [(b"http://b:80", b"/"), (b"HTTP://b:80?x", b"/?x"), (b"https://b:80/a?b", b"/a?b")],
)
def test_the_absolute_form_reads_as_if_it_had_come_in_the_usual_one(target, read) -> None:
    block = b"GET %b HTTP/1.1\r\nX: 1\r\nHost: a\r\nY: 2\r\n\r\n" % target
    head = parse_request(block)
    assert head.block == b"GET %b HTTP/1.1\r\nhost: b:80\r\nX: 1\r\nY: 2\r\n\r\n" % read
    assert head.headers == [(b"host", b"b:80"), (b"x", b"1"), (b"y", b"2")]
    assert head.is_proxied
    again = parse_request(head.block)
    assert (again.host, again.target, again.path) == (head.host, head.target, head.path)


@pytest.mark.parametrize(
    ("fields", "keep_alive"),
    [
        (b"", True),
        (b"Connection: keep-alive\r\n", True),
        (b"Connection: Close\r\n", False),
        (b"Connection: foo, close\r\n", False),
        (b"Connection: foo\r\nConnection: close\r\n", False),
    ],
)
def test_connection_close_is_found_wherever_it_stands(fields: bytes, keep_alive: bool) -> None:
    assert (
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n").keep_alive is keep_alive
    )


def test_http_1_0_is_not_kept_alive() -> None:
    head = parse_request(b"GET / HTTP/1.0\r\n\r\n")
    assert not head.keep_alive
    assert head.host == b""


@pytest.mark.parametrize("token", [b"h2c", b"websocket, h2c", b"TLS/1.0"])
def test_only_websocket_is_switched_to(token: bytes) -> None:
    head = parse_request(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: " + token + b"\r\n\r\n"
    )
    assert head.upgrade == b""
    assert b"pgrade" not in forward_head(head)


def test_hop_by_hop_fields_stay_on_this_hop() -> None:
    head = parse_request(
        b"GET / HTTP/1.1\r\nConnection: keep-alive, X-Secret, Host, Authorization\r\nHost: a\r\n"
        b"TE: trailers\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nAuthorization: b\r\nProxy-Authorization: c\r\n"
        b"Z: 1\r\nUpgrade: h2c\r\n\r\n"
    )
    assert forward_head(head) == (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nZ: 1\r\n\r\n")


def test_fields_that_are_set_replace_the_clients() -> None:
    rewrite = HeadRewrite(set_names=(b"lichen-run",), remove=(b"cookie",))
    head = parse_request(
        b"GET / HTTP/1.1\r\nHost: a\r\nLICHEN-Run: evil\r\ncookie: 1\r\nLichen-Runs: ok\r\n\r\n"
    )
    expected = b"GET / HTTP/1.1\r\nHost: a\r\nLichen-Runs: ok\r\nlichen-run: 7\r\n\r\n"
    assert rewrite(head, b"7") == expected
    usual = usual_request(head.block, None, 128)
    assert usual is not None
    assert rewrite(usual, b"7") == expected


def test_a_chunked_body_keeps_its_framing_on_the_next_hop() -> None:
    head = parse_request(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n")
    assert head.content_length == CHUNKED
    assert forward_head(head).endswith(b"transfer-encoding: chunked\r\n\r\n")


RESPONSES_REFUSED = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5,5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 099 x\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n\r\n",
]


@pytest.mark.parametrize("head", RESPONSES_REFUSED)
def test_an_ambiguous_response_is_refused(head: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_response(head, b"GET")
    assert usual_response(head) is None


@pytest.mark.parametrize(
    ("head", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", CHUNKED),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE),
    ],
)
def test_a_response_has_the_length_rfc_9112_says(head: bytes, method: bytes, length: int) -> None:
    assert parse_response(head, method).length == length


# Differential: whatever we accept, llhttp accepts and frames alike; the short path and the long one
# agree on every head.

_names = st.sampled_from(
    [b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"X-A", b"Cookie",
     b"Upgrade", b"TE", b"Keep-Alive", b"X-A ", b"", b"Content-Lengt", b"Expect", b"Hos\x00t"]
)  # fmt: skip
_values = st.one_of(
    st.sampled_from(
        [b"a", b"example.org:80", b"5", b"05", b"+5", b"5,5", b"chunked", b"CHUNKED", b"gzip, chunked",
         b"close", b"keep-alive", b"upgrade", b"websocket", b"100-continue", b"", b"a b", b"\tx"]
    ),
    st.binary(max_size=6),
)  # fmt: skip
_separators = st.sampled_from([b": ", b":", b": \t", b" : "])
_ends = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r\n ", b"\r"])
_fields = st.lists(
    st.tuples(_names, _separators, _values, st.sampled_from([b"", b" "]), _ends).map(b"".join),
    max_size=5,
).map(b"".join)
_requests = st.builds(
    lambda line, host, fields: line + host + fields + b"\r\n",
    st.sampled_from(
        [b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"HEAD /x HTTP/1.0\r\n",
         b"GET http://h/p HTTP/1.1\r\n", b"GET  / HTTP/1.1\r\n", b"G@T / HTTP/1.1\r\n"]
    ),
    st.sampled_from([b"Host: a\r\n", b"host:  B.c:8 \r\n", b""]),
    _fields,
)  # fmt: skip
_responses = st.builds(
    lambda line, fields: line + fields + b"\r\n",
    st.sampled_from(
        [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 \r\n", b"HTTP/1.1 304 x\r\n", b"HTTP/1.0 200 OK\r\n",
         b"HTTP/1.1 200\r\n", b"HTTP/1.1  200 OK\r\n"]
    ),
    _fields,
)  # fmt: skip


class _Oracle:
    def __init__(self) -> None:
        self.complete = False
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def without_host(fields):
    return [(name, value) for name, value in fields if name != b"host"]


@given(_requests)
def test_an_accepted_request_is_read_as_llhttp_reads_it(block: bytes) -> None:
    if block.find(b"\r\n\r\n") + 4 != len(block):
        return  # the connection cuts there
    try:
        head = parse_request(block)
    except LichenError:
        assert usual_request(block, None, 128) is None
        return
    oracle = _Oracle()
    parser = httptools.HttpRequestParser(oracle)
    try:
        parser.feed_data(block)
    except httptools.HttpParserUpgrade:
        assert b"upgrade" in head
    assert oracle.complete
    if head.is_proxied:  # there the target's host stands in the place of the field
        oracle.headers = [(b"host", head.host), *without_host(oracle.headers)]
    assert oracle.headers == head.headers
    if head.minor:
        assert parser.should_keep_alive() == head.keep_alive
    usual = usual_request(block, None, 128)
    if usual is not None:
        names = ("method", "target", "path", "host", "keep_alive", "content_length", "upgrade",
                 "expects_continue", "minor", "fields_at", "headers")  # fmt: skip
        for name in names:
            assert getattr(usual, name) == getattr(head, name), name
        assert forward_head(usual) == forward_head(head)


@given(_responses)
def test_an_accepted_response_is_read_alike_on_both_paths_and_by_llhttp(block: bytes) -> None:
    if block.find(b"\r\n\r\n") + 4 != len(block):
        return
    usual = usual_response(block)
    try:
        head = parse_response(block, b"GET")
    except LichenError:
        assert usual is None
        return
    if usual is not None:
        assert usual == (b"%d" % head.status, head.length, len(block), head.fields_at)
        assert head.plain
        assert head.keep_alive
    oracle = _Oracle()
    parser = httptools.HttpResponseParser(oracle)
    try:
        parser.feed_data(block)
    except httptools.HttpParserUpgrade:
        assert b"upgrade" in head
    assert oracle.complete
    assert oracle.headers == head.headers
