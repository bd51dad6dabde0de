"""Addresses of HTTP servers, as URLs and as multiaddrs write them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.routing.multiaddr import (
    HttpAddress,
    parse_http,
    parse_origin,
    protocol_names,
    split_multiaddr,
)
from lichen.errors import UserError

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
DNS_NAMES = (
    st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda n: not n[-1].isdigit())
)
HOSTS = st.one_of(DNS_NAMES, st.ip_addresses().map(str))
ADDRESSES = st.builds(HttpAddress, HOSTS, st.integers(1, 65535), st.booleans())


@given(ADDRESSES)
def test_an_address_is_the_same_after_either_spelling(address):
    assert parse_http(address.multiaddr) == address
    assert parse_origin(address.url) == address


@given(st.builds(HttpAddress, HOSTS, st.integers(1, 65535), st.just(True), DNS_NAMES))
def test_a_server_that_is_called_otherwise_than_its_host_keeps_its_name(address):
    found = parse_http(address.multiaddr)
    assert (found.host, found.port, found.is_tls) == (address.host, address.port, True)
    assert (found.name or found.host) == address.name
    assert address.name in address.authority


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/dns4/h.example/tcp/443/tls/http", "https://h.example"),
        ("/dns/h.example/tcp/8443/https", "https://h.example:8443"),
        ("/dns/h.example/https", "https://h.example"),
        ("/dns6/h.example/tcp/80/http", "http://h.example"),
        ("/ip4/127.0.0.1/tcp/8080/http", "http://127.0.0.1:8080"),
        ("/ip6/::1/tcp/8080/http", "http://[::1]:8080"),
        ("/ip4/1.2.3.4/tcp/443/tls/sni/h.example/http", "https://h.example"),
        ("/dns4/h.example/tcp/443/tls/http/p2p/12D3KooWabc", "https://h.example"),
    ],
)
def test_addresses_are_read_as_other_software_writes_them(text, url):
    assert parse_http(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "dns/h/tcp/80/http",
        "/dns4/h.example/tcp/443",
        "/dns4/h.example/udp/443/quic-v1/http",
        "/dns4/h.example/tcp/443/tls/ws",
        "/dns4/h.example/tcp/443/tls/http/p2p-circuit",
        "/dns4/h.example/tcp/443/tls/tcp/80/http",
        "/dns4/h.example/tcp/0/http",
        "/dns4/h.example/tcp/65536/http",
        "/dns4/h.example/tcp/+80/http",
        "/dns4/h.example/tcp/٨٠/http",
        "/dns4/a b/tcp/80/http",
        "/dns4/h.example@evil/tcp/80/http",
        "/dns4/h\r\nx: y/tcp/80/http",
        "/ip4/999.1.1.1/tcp/80/http",
        "/ip4/::1/tcp/80/http",
        "/ip6/fe80::1%25eth0/tcp/80/http",
        "/ip4/1.2.3.4/tcp/443/tls/sni/a b/http",
        "/unix/tmp/http",
        "/unknown/x/tcp/80/http",
        "/dns4/" + "a" * 64 + "/tcp/80/http",
        "/dns4/h.example/tcp/80/http" + "/tls" * 200,
    ],
)
def test_what_is_not_an_http_server_is_refused(text):
    with pytest.raises(UserError):
        parse_http(text)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    for read in (parse_http, parse_origin, split_multiaddr):
        try:
            read(text)
        except UserError:
            continue
    assert isinstance(protocol_names(text), frozenset)


@given(
    st.lists(
        st.sampled_from(["dns", "tcp", "tls", "http", "ip6", "80", "sni", "h", "::1", ""]),
        max_size=9,
    )
)
def test_what_is_read_from_pieces_of_addresses_has_a_sound_host(parts):
    try:
        address = parse_http("/" + "/".join(parts))
    except UserError:
        return
    assert address.host in ("h", "80", "::1", "tcp", "tls", "http", "dns", "ip6", "sni")
    assert 0 < address.port < 65536
    if ":" in address.host:
        assert ipaddress.ip_address(address.host).version == 6


@pytest.mark.parametrize(
    "url",
    ["", "h.example", "ftp://h.example", "https://h.example/path", "https://u:p@h.example",
     "https://h.example?x=1", "https://h.example#x", "https://h example", "https://:443",
     "https://h.example:99999", "http://[::1", "https://h\r\n.example"],
)  # fmt: skip
def test_only_the_root_of_a_server_is_an_origin(url):
    with pytest.raises(UserError):
        parse_origin(url)


def test_https_and_tls_with_http_are_one_for_filters():
    assert {"https", "tls", "http"} <= protocol_names("/dns/h/tcp/443/tls/http")
    assert {"https", "tls", "http"} <= protocol_names("/dns/h/tcp/443/https")
    assert "https" not in protocol_names("/dns/h/tcp/80/http")
    assert "tls" not in protocol_names("/ip4/1.1.1.1/udp/1/quic-v1/webtransport")
