"""Records of the routing API: what filters leave, and how they are spelled and read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.retrieval.routers import read_document, read_record
from lichen.cdn.routing.records import (
    HTTP_GATEWAY,
    RECORDS_MAX,
    Filters,
    PeerRecord,
    UnprocessableError,
    cache_control,
    gateway_record,
    read_filters,
    wants_lines,
    write_records,
)
from lichen.content import CID
from lichen.content.cid import LIBP2P_KEY
from lichen.errors import PeerError
from lichen.identity import KeyKind, PrivateKey, base58

TLS = "/dns4/h.example/tcp/443/tls/http"
TCP = "/ip4/1.2.3.4/tcp/4001"
QUIC = "/ip6/2001:db8::1/udp/4001/quic-v1"
BOTH = PeerRecord("a", (TLS, TCP, QUIC), (HTTP_GATEWAY, "transport-bitswap"))
BARE = PeerRecord("b")


@pytest.mark.parametrize(
    ("query", "addrs"),
    [
        ("", [TLS, TCP, QUIC]),
        ("filter-addrs=https", [TLS]),
        ("filter-addrs=TLS", [TLS]),
        ("filter-addrs=tcp", [TLS, TCP]),
        ("filter-addrs=tcp,quic-v1", [TLS, TCP, QUIC]),
        ("filter-addrs=!tcp", [QUIC]),
        ("filter-addrs=!ip6,!quic-v1", [TLS, TCP]),
        ("filter-addrs=tcp,!http", [TCP]),
        ("filter-addrs=tcp%2C!http", [TCP]),
        ("filter-addrs=webtransport", None),
        ("filter-addrs=unknown", None),
        ("filter-protocols=transport-ipfs-gateway-http", [TLS, TCP, QUIC]),
        ("filter-protocols=unknown,TRANSPORT-BITSWAP", [TLS, TCP, QUIC]),
        ("filter-protocols=transport-graphsync-filecoinv1", None),
        ("filter-protocols=transport-bitswap&filter-addrs=webrtc", None),
    ],
)
def test_filters_leave_the_addresses_that_a_client_can_use(query, addrs):
    found = read_filters(query).apply([BOTH])
    assert [list(record.addrs) for record in found] == ([] if addrs is None else [addrs])
    assert all(record.protocols == BOTH.protocols for record in found)


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("", True),
        ("filter-addrs=unknown", True),
        ("filter-addrs=tcp", False),
        ("filter-protocols=unknown", True),
        ("filter-protocols=transport-bitswap", False),
        ("filter-protocols=unknown&filter-addrs=unknown,tcp", True),
    ],
)
def test_a_record_that_says_little_passes_where_unknown_is_asked_for(query, passes):
    assert bool(read_filters(query).apply([BARE])) is passes


@given(
    st.lists(
        st.sampled_from(["tcp", "!tcp", "udp", "!udp", "https", "!tls", "unknown"]), max_size=4
    ),
    st.lists(st.sampled_from([TLS, TCP, QUIC, "nonsense"]), max_size=4, unique=True),
)
def test_filters_only_ever_take_away(names, addrs):
    record = PeerRecord("x", tuple(addrs), (HTTP_GATEWAY,))
    filters = Filters(tuple(names))
    once = filters.apply([record])
    assert filters.apply(once) == once
    assert all(set(left.addrs) <= set(addrs) for left in once)


@pytest.mark.parametrize(
    "query",
    ["filter-addrs=" + "a," * 65, "filter-addrs=" + "a" * 64, "&".join("abcdefghijklmnopqrs")],
)
def test_filters_are_bounded(query):
    with pytest.raises(UnprocessableError):
        read_filters(query.replace("&", "=1&") + "=1")


@pytest.mark.parametrize(
    ("accept", "lines"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/x-ndjson", True),
        ("application/json;q=0.5, Application/X-NDJSON ; q=0.9", True),
        ("application/x-ndjson;q=0, application/json", False),
    ],
)
def test_lines_are_sent_only_where_they_are_asked_for(accept, lines):
    assert wants_lines(accept) is lines


@given(st.lists(st.sampled_from([BOTH, BARE]), max_size=5), st.booleans())
def test_what_is_written_can_be_read(records, as_lines):
    written = write_records(records, "Providers", as_lines=as_lines)
    if as_lines:
        found = [read_record(line) for line in written.splitlines()]
    else:
        found = read_document(written)
    assert found == records


def test_an_answer_is_bounded_and_an_empty_one_is_a_list():
    assert json.loads(write_records([], "Peers", as_lines=False)) == {"Peers": []}
    assert write_records([], "Peers", as_lines=True) == b""
    many = json.loads(write_records([BARE] * 200, "Providers", as_lines=False))
    assert len(many["Providers"]) == RECORDS_MAX


def test_nothing_found_is_believed_for_a_shorter_time():
    assert "max-age=300," in cache_control([BOTH])
    assert "max-age=15," in cache_control([])


@pytest.mark.parametrize(
    ("kind", "start"),
    [(KeyKind.ED25519, "12D3KooW"), (KeyKind.SECP256K1, "16Uiu2HA"), (KeyKind.P256, "Qm")],
)
def test_a_server_is_called_by_the_peer_id_of_its_key(kind, start):
    record = gateway_record(PrivateKey.generate(kind).public, (TLS,))
    assert record.id.startswith(start)
    named = CID.decode(b"\x01" + bytes([LIBP2P_KEY]) + base58.decode(record.id))
    assert named.codec == LIBP2P_KEY
    assert record.protocols == (HTTP_GATEWAY,)


@pytest.mark.parametrize(
    ("line", "protocols"),
    [
        (b'{"Schema":"peer","ID":"x","Addrs":null,"Protocols":null}', ()),
        (b'{"Schema":"peer","Extra":{"deep":[1]},"Protocols":["a"]}', ("a",)),
        (b'{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"x"}', ("transport-bitswap",)),
        (b'{"Schema":"tomorrow","ID":"x"}', None),
        (b'{"ID":"x"}', None),
        (b'{"Schema":"peer","Addrs":"no list"}', None),
        (b"[]", None),
        (b"null", None),
        (b"", None),
        (b"  \r", None),
        (b"{" * 100_000, None),
        (b"\xff\xfe", None),
    ],
)
def test_strangers_records_are_read_or_passed_over(line, protocols):
    record = read_record(line)
    assert (None if record is None else record.protocols) == protocols


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_none(line):
    assert read_record(line) is None or isinstance(read_record(line), PeerRecord)


def test_a_document_that_is_not_json_is_the_routers_fault():
    with pytest.raises(PeerError):
        read_document(b"<html>")
    assert read_document(b'{"Providers": null}') == []
    assert read_document(b"{}") == []
