"""From a Host header and a path to what is meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import CID, RAW
from lichen.content.cid import SHA2_512
from lichen.gateway.names import GATEWAY, Hosts, Name, split_app_path

HOSTS = Hosts(("localhost", "Example.org"), ["Docs.test"])
CID_TEXT = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
MOVED = Name("moved", CID.parse(CID_TEXT).to_base36(), CID_TEXT)
LONG = str(CID(RAW, bytes(64), SHA2_512))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"hello.app.localhost", Name("app", "hello")),
        (b"hello.app.localhost:8080", Name("app", "hello")),
        (b"HELLO.APP.Example.ORG:1", Name("app", "hello")),
        (b"a-b.app.localhost", Name("app", "a-b")),
        (b"-a.app.localhost", GATEWAY),
        (b"a.b.app.localhost", GATEWAY),
        (b".app.localhost", GATEWAY),
        (b"app.localhost", GATEWAY),
        (b"x" * 41 + b".app.localhost", GATEWAY),
        (b"%b.ipfs.localhost:80" % CID_TEXT.encode(), Name("ipfs", CID_TEXT)),
        (b"docs.ipns.example.org", Name("ipns", "docs")),
        (b"docs.example.net.ipns.Example.org", Name("ipns", "docs.example.net")),
        (b"docs.test:80", Name("domain", "docs.test")),
        (b"other.test", GATEWAY),
        (b"localhost", Name("gateway", "localhost")),
        (b"example.org:8080", Name("gateway", "example.org")),
        (b"%b.ipfs.localhost" % CID.parse(CID_TEXT).to_base36().encode(), MOVED),
        (b"%b.ipfs.localhost" % CID_TEXT.upper().encode(), Name("ipfs", CID_TEXT)),
        (b"%b.ipfs.localhost" % LONG.encode(), Name("long", LONG)),
        (b"nonsense.ipfs.localhost", Name("ipfs", "nonsense")),
        (b"127.0.0.1:8080", GATEWAY),
        (b"hello.app.elsewhere.net", Name("domain", "hello.app.elsewhere.net")),
        (b"hello.app.localhost.evil.net", Name("domain", "hello.app.localhost.evil.net")),
        (b"evilexample.org.", Name("domain", "evilexample.org")),
        (b"[::1]:8080", GATEWAY),
        (b"", GATEWAY),
    ],
)
def test_a_host_stands_for_an_app_content_or_the_gateway(host, name):
    assert HOSTS.read(host) == name


def test_an_address_is_no_domain_but_the_operators_own_all_the_same():
    hosts = Hosts(("10.0.0.7", "[fd00::7]", "example.org"), ["docs.test"])
    for own in (b"10.0.0.7", b"10.0.0.7:80", b"[fd00::7]:80"):
        assert hosts.read(own) is GATEWAY
        assert hosts.is_own(own)
    for own in (b"example.org:80", b"a.app.example.org", b"a.b.ipns.example.org", b"docs.test:80"):
        assert hosts.is_own(own)
    for other in (b"10.0.0.8", b"[fd00::8]", b"other.test", b"example.org.evil", b"", b"localhost"):
        assert not hosts.is_own(other)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"/app/hello", ("hello", b"/")),
        (b"/app/hello/", ("hello", b"/")),
        (b"/app/hello/x/y?z=1", ("hello", b"/x/y?z=1")),
        (b"/app/hello?z=/1", ("hello", b"/?z=/1")),
        (b"/app/", None),
        (b"/app//x", None),
        (b"/app/He/x", None),
        (b"/app/a%2fb/x", None),
        (b"/apps/hello", None),
    ],
)
def test_an_app_path_is_split_into_the_app_and_what_it_sees(target, found):
    assert split_app_path(target) == found


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_host_or_target_breaks_the_readers(host, target):
    assert HOSTS.read(host).kind in {"app", "ipfs", "ipns", "domain", "gateway"}
    found = split_app_path(b"/app/" + target)
    assert found is None or found[1].startswith(b"/")
