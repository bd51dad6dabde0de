"""What a peer writes into a head costs time in proportion to its length, and no more."""

from lichen.wire import heads
from lichen.wire.heads import forward_head, parse_request

NAMES = 5000


def _head(seed: int) -> bytes:
    names = b",".join(b"x%x-%d" % (number, seed) for number in range(NAMES))
    kept = b"x-kept: 1\r\nX1-%d: gone\r\n" % seed
    return b"GET / HTTP/1.1\r\nhost: a\r\nconnection: %b\r\n%b\r\n" % (names, kept)


def test_fields_that_a_client_names_are_cut_out_without_compiling_its_names() -> None:
    forward_head(parse_request(_head(0)))
    before = heads._cutter.cache_info().misses
    out = forward_head(parse_request(_head(1)))
    assert heads._cutter.cache_info().misses == before
    assert out == b"GET / HTTP/1.1\r\nhost: a\r\nx-kept: 1\r\n\r\n"


def test_a_response_loses_the_fields_that_its_connection_field_names() -> None:
    block = b"HTTP/1.1 200 a: b\r\nX-One: 1\r\nx-two: 2\r\nx-three:3\r\n\r\n"
    left = heads.without_named(block, frozenset({b"x-one", b"x-three"}))
    assert left == b"HTTP/1.1 200 a: b\r\nx-two: 2\r\n\r\n"


def test_a_request_of_http_1_0_without_host_is_forwarded_with_an_empty_one() -> None:
    out = forward_head(parse_request(b"GET / HTTP/1.0\r\nx: 1\r\n\r\n"))
    assert out == b"GET / HTTP/1.1\r\nx: 1\r\nhost:\r\n\r\n"
    assert parse_request(out).host == b""
