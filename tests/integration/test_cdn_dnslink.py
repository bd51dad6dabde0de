"""DNSLink over a real name server, on loopback: records, failures, truncation, silence."""

import asyncio

import dns.rcode
import pytest

from lichen.cdn.names import dnslink
from lichen.cdn.names.dnslink import DnsLinks, NoDnsLinkError
from lichen.errors import PeerUnavailableError, UserError
from tests.integration.dns_world import NameServer, serving, txt

CID = "bafkqaaa"


@pytest.fixture
async def server():
    async with serving() as made:
        yield made


@pytest.fixture
def links(server):
    return DnsLinks([server.address])


async def test_the_record_below_dnslink_counts_before_that_of_the_host(server, links):
    server.zone["_dnslink.example.org"] = [txt(f'"dnslink=/ipfs/{CID}/a"', ttl=77)]
    server.zone["example.org"] = [txt('"dnslink=/ipfs/other"')]
    found = await links.lookup("example.org")
    assert (found.path, found.ttl_s) == (f"/ipfs/{CID}/a", 77)
    assert server.asked == ["_dnslink.example.org"]


@pytest.mark.parametrize("nothing", [dns.rcode.NXDOMAIN, [], [txt('"v=spf1"')]])
async def test_the_host_itself_is_asked_when_the_name_below_says_nothing(server, links, nothing):
    server.zone["_dnslink.example.org"] = nothing
    server.zone["example.org"] = [txt('"v=spf1"', f'"dnslink=/ipns/k51/{CID}"')]
    assert (await links.lookup("example.org")).path == f"/ipns/k51/{CID}"


async def test_a_domain_without_a_link_is_no_failure(server, links):
    with pytest.raises(NoDnsLinkError):
        await links.lookup("example.org")
    server.zone["example.org"] = [txt('"dnslink=/etc/passwd"')]
    with pytest.raises(NoDnsLinkError):
        await links.lookup("example.org")


async def test_parts_of_a_text_are_joined(server, links):
    server.zone["_dnslink.example.org"] = [txt(f'"dnslink=/ip" "fs/{CID}"')]
    assert (await links.lookup("example.org")).path == f"/ipfs/{CID}"


async def test_aliases_are_followed_and_the_shortest_time_counts(server, links):
    server.zone["_dnslink.www.example.org"] = [
        (None, 30, "CNAME", "links.example.net."),
        txt(f'"dnslink=/ipfs/{CID}"', owner="links.example.net"),
    ]
    found = await links.lookup("www.example.org")
    assert (found.path, found.ttl_s) == (f"/ipfs/{CID}", 30)


@pytest.mark.parametrize(("said", "counts"), [(0, 10), (5, 10), (600, 600), (2**31 - 1, 3600)])
async def test_times_to_live_are_bounded(server, links, said, counts):
    server.zone["_dnslink.example.org"] = [txt(f'"dnslink=/ipfs/{CID}"', ttl=said)]
    assert (await links.lookup("example.org")).ttl_s == counts


async def test_long_answers_come_over_tcp(server, links):
    texts = [f'"filler {number} {"x" * 200}"' for number in range(20)]
    server.zone["_dnslink.example.org"] = [txt(*texts, f'"dnslink=/ipfs/{CID}"')]
    assert (await links.lookup("example.org")).path == f"/ipfs/{CID}"


@pytest.mark.parametrize("failure", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, None])
async def test_a_server_that_fails_or_is_silent_is_no_answer(server, links, failure, monkeypatch):
    server.zone["_dnslink.example.org"] = failure
    server.zone["example.org"] = [txt(f'"dnslink=/ipfs/{CID}"')]
    links._resolver.lifetime = links._resolver.timeout = 0.3
    with pytest.raises(PeerUnavailableError):
        await links.lookup("example.org")
    assert "example.org" not in server.asked, "what was not answered is not taken for a no"


async def test_the_next_server_is_asked_when_the_first_fails(server):
    loop = asyncio.get_running_loop()
    transport, dead = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    dead.zone["_dnslink.example.org"] = dns.rcode.SERVFAIL
    server.zone["_dnslink.example.org"] = [txt(f'"dnslink=/ipfs/{CID}"')]
    links = DnsLinks([dead.address, server.address])
    assert (await links.lookup("example.org")).path == f"/ipfs/{CID}"
    transport.close()


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4:x", "1.2.3.4:99999", "example.org"])
def test_what_is_no_server_is_refused(text):
    with pytest.raises(UserError):
        DnsLinks([text])


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("1.2.3.4", "1.2.3.4", 53), ("1.2.3.4:5353", "1.2.3.4", 5353), ("::1", "::1", 53),
     ("[::1]:5353", "::1", 5353)],
)  # fmt: skip
def test_servers_are_addresses_with_or_without_a_port(text, address, port):
    server = dnslink._server(text)
    assert (server.address, server.port) == (address, port)
