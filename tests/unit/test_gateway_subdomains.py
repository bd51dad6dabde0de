"""From paths of content to hosts of their own, and addresses that browsers hand over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.formats import InvalidPathError, LocationTooLongError
from lichen.cdn.uri import refuse_or_route, route_uri
from lichen.content import CID, RAW
from lichen.content.cid import DAG_PB, SHA2_512
from lichen.errors import LichenError, UserError
from lichen.gateway.names import Hosts
from lichen.gateway.subdomains import LabelTooLongError, Subdomains, label_of
from lichen.wire.heads import parse_request

ROOT = CID.of(RAW, b"x")
V0 = CID(DAG_PB, ROOT.digest, version=0)
LONG = CID(RAW, bytes(64), SHA2_512)
HOSTS = Hosts(("example.org", "localhost"))
SUBDOMAINS = Subdomains(HOSTS, label_of_name=lambda text: text.replace(".", "-"))
BEHIND = Subdomains(HOSTS, ["10.0.0.1", "fd00::/8"])


def head(target, host="example.org:8080", method="GET", client="10.0.0.1", **fields):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    data = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"
    return parse_request(data.encode(), None if client is None else (client, 1))


def location(answer):
    fields = dict(line.split(b": ", 1) for line in answer.head.split(b"\r\n")[1:-2])
    return (answer.status, fields[b"location"].decode())


def led(subdomains, request, base="example.org"):
    answer = subdomains.answer(request, base)
    return None if answer is None else location(answer)


@pytest.mark.parametrize(
    ("cid", "below", "left"),
    [
        (ROOT, "", "/"),
        (ROOT, "/", "/"),
        (V0, "/a%252Cb/%C3%BC=x%20y?q=/1&r=%2F", "/a%252Cb/%C3%BC=x%20y?q=/1&r=%2F"),
        (ROOT, "?format=tar", "/?format=tar"),
        (ROOT, "//evil.example/", "//evil.example/"),
    ],
)
def test_a_path_leads_to_the_roots_own_host_as_it_was_written(cid, below, left):
    asked = f"http://{cid.as_v1()}.ipfs.example.org:8080{left}"
    assert led(SUBDOMAINS, head(f"/ipfs/{cid}{below}")) == (301, asked)
    assert led(SUBDOMAINS, head(f"/ipfs/{cid}{below}", method="HEAD")) == (301, asked)


@pytest.mark.parametrize(
    "request_head",
    [
        head(f"/ipfs/{ROOT}?format=raw"),
        head(f"/ipfs/{ROOT}/a?dag-scope=all&format=car"),
        head(f"/ipfs/{ROOT}", accept="application/vnd.ipld.car; version=1"),
        head(f"/ipfs/{ROOT}", method="OPTIONS"),
        head("/ipfs/"),
        head("/ipns/?uri=x"),
        head("/api/v1/apps"),
    ],
)
def test_what_needs_no_origin_stays_where_it_is(request_head):
    assert led(SUBDOMAINS, request_head) is None


def test_a_name_leads_to_its_host_by_the_label_that_stands_for_it():
    asked = head("/ipns/docs.example.net/a%2Fb/?c")
    assert led(SUBDOMAINS, asked) == (301, "http://docs-example-net.ipns.example.org:8080/a%2Fb/?c")
    with pytest.raises(LabelTooLongError):
        SUBDOMAINS.answer(head("/ipns/" + "x" * 64), "example.org")


def test_on_ones_own_machine_only_pages_are_led_away():
    for fields, moves in (
        ({}, False),
        ({"accept": "*/*"}, False),
        ({"accept": "text/html,*/*"}, True),
        ({"accept": "text/html,*/*", "sec_fetch_mode": "navigate"}, True),
        ({"accept": "text/html", "sec_fetch_mode": "cors"}, False),
    ):
        answer = SUBDOMAINS.answer(head(f"/ipfs/{ROOT}", "localhost:8080", **fields), "localhost")
        assert (answer is not None) is moves
        assert answer is None or b"cache-control: no-store\r\n" in answer.head


def test_a_cid_takes_the_spelling_that_fits_a_host_and_a_long_one_has_none():
    assert label_of(V0) == str(V0.as_v1())
    wide = CID(RAW, bytes([7]) * 36, 0x1234)  # too long in base32 alone
    assert len(str(wide)) > 63 >= len(label_of(wide))
    assert CID.parse(label_of(wide)) == wide
    with pytest.raises(LabelTooLongError, match="DNS label length limit of 63"):
        SUBDOMAINS.answer(head(f"/ipfs/{LONG}"), "example.org")


def test_a_malformed_path_and_one_too_long_to_repeat_are_named():
    with pytest.raises(InvalidPathError, match='invalid path "/ipfs/QmNoCID"'):
        SUBDOMAINS.answer(head("/ipfs/QmNoCID"), "example.org")
    with pytest.raises(LocationTooLongError):
        SUBDOMAINS.answer(head(f"/ipfs/{ROOT}/{'a' * 2000}"), "example.org")


FORWARDED = {"x_forwarded_host": "example.org", "x_forwarded_proto": "https"}


def test_a_trusted_proxy_says_which_domain_and_scheme_were_asked_for():
    for client in ("10.0.0.1", "fd00::1", None):
        asked = head(f"/ipfs/{ROOT}", "inner:8080", client=client, **FORWARDED)
        assert led(BEHIND, asked, "") == (301, f"https://{ROOT}.ipfs.example.org/")


@pytest.mark.parametrize("client", ["10.0.0.2", "::1", "nonsense"])
def test_what_others_say_about_host_and_scheme_counts_for_nothing(client):
    asked = head(f"/ipfs/{ROOT}", "inner:8080", client=client, **FORWARDED)
    assert led(BEHIND, asked, "") is None
    asked = head(f"/ipfs/{ROOT}", client=client, **FORWARDED)
    assert led(BEHIND, asked) == (301, f"http://{ROOT}.ipfs.example.org:8080/")
    assert led(SUBDOMAINS, head(f"/ipfs/{ROOT}", "inner", **FORWARDED), "") is None


@pytest.mark.parametrize(
    "host", ["evil.example", "example.org:80@evil.example", "example.org/", f"{ROOT}.ipfs.example.org",
             "shop.app.example.org", "example.org, evil.example", ""],
)  # fmt: skip
def test_a_proxy_leads_nowhere_but_to_the_gateways_own_domains(host):
    asked = head(f"/ipfs/{ROOT}", "inner", x_forwarded_host=host)
    assert led(BEHIND, asked, "") is None


def test_trusted_proxies_are_addresses_or_networks():
    with pytest.raises(UserError, match="trusted_proxies"):
        Subdomains(HOSTS, ["proxy.example"])


def test_a_host_in_another_spelling_leads_to_the_one():
    label = ROOT.to_base36()
    asked = head("/a?b", f"{label}.ipfs.example.org:8080")
    moved = SUBDOMAINS.canonical(asked, label, str(ROOT))
    assert location(moved) == (301, f"http://{ROOT}.ipfs.example.org:8080/a?b")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        (f"ipfs%3A%2F%2F{V0}/wiki/A_b.html", f"/ipfs/{V0}/wiki/A_b.html"),
        (f"ipfs://{V0}", f"/ipfs/{V0}"),
        ("IPNS://example.org/a%2520b?c=d%23e", "/ipns/example.org/a%20b?c=d"),
        ("ipfs://a%0d%0ab/%0d%0ac", "/ipfs/a%0D%0Ab/%0D%0Ac"),
        ("ipfs://u@evil.example:80//x", "/ipfs/u%40evil.example%3A80//x"),
    ],
)
def test_a_browser_is_led_to_the_path_of_an_address(uri, path):
    assert location(route_uri(head(f"/ipfs/?uri={uri}"))) == (301, path)


@pytest.mark.parametrize("uri", ["http://evil.example", "ipfs://", "ipfs:bafy", "", "ipfs:///x"])
def test_what_is_no_address_of_content_is_refused(uri):
    with pytest.raises(InvalidPathError):
        route_uri(head(f"/ipfs/?uri={uri}"))
    assert route_uri(head("/ipfs/?other=1")) is None


def test_a_path_that_cannot_be_read_is_quoted_in_words_or_as_a_problem():
    error = InvalidPathError('invalid path "/ipfs/Qm"', hint="so")
    plain = refuse_or_route(error, head("/ipfs/Qm"))
    assert (plain.status, plain.body) == (400, b'invalid path "/ipfs/Qm"\nso\n')
    assert b"content-type: text/plain" in plain.head
    asked = refuse_or_route(error, head("/ipfs/Qm", accept="application/json"))
    assert json.loads(asked.body)["detail"] == 'invalid path "/ipfs/Qm"'


@given(st.binary(max_size=60), st.text(max_size=30))
def test_whatever_is_asked_leads_to_the_gateways_own_hosts_or_nowhere(path, query):
    target = "/ipfs/" + "".join(f"%{byte:02x}" for byte in path)
    request = head(f"{target}?uri={query.encode().hex()}", **FORWARDED)
    try:
        answer = BEHIND.answer(request, "example.org")
    except LichenError:
        return
    assert answer is None or ".ipfs.example.org" in location(answer)[1]
