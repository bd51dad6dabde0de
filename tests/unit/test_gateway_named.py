"""Names at the front door: what is answered at once, under which name, and how it changes."""

import time

import pytest

from lichen.cdn.names.dnslink import NoDnsLinkError
from lichen.content.ipns import Name, create_record
from lichen.content.libp2p_key import public_key
from lichen.errors import LimitError, UserError
from lichen.gateway.config import GatewayConfig
from lichen.gateway.name_service import NameService
from lichen.gateway.named import Asked, place_of
from lichen.identity import KeyKind, PrivateKey
from lichen.wire import Asgi
from tests.unit.test_gateway_front import World, fields, put_site

S = 10**9
KEY = PrivateKey(KeyKind.ED25519, b"n" * 32)
NAME = Name.of(public_key(KEY))


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.names.close()
    made.records.close()
    made.runs.close()
    made.store.close()


def publish(world, value, sequence=1, ttl_s=300, key=KEY):
    now = time.time_ns()
    record = create_record(key, value, sequence=sequence, eol_ns=now + 3600 * S, ttl_ns=ttl_s * S)
    assert world.records.put(Name.of(public_key(key)), record.encoded, now)


async def test_a_name_waits_for_its_record_once_and_is_then_answered_at_once(world):
    publish(world, f"/ipfs/{world.site}")
    target = f"/ipns/{NAME}/about.html"
    assert isinstance(world.ask(target, host="localhost"), Asgi)
    found = await world.names.resolve(str(NAME))
    answer = world.ask(target, host="localhost")
    assert (answer.status, answer.body) == (200, b"<p>about")
    assert answer is world.ask(target, host="localhost"), "kept ready"
    head = fields(answer)
    assert head["cache-control"] == f"public, max-age={found.ttl_s}"
    assert head["x-ipfs-path"] == target
    assert head["content-security-policy"].startswith("sandbox")


async def test_what_a_name_stood_for_before_is_never_answered(world):
    publish(world, f"/ipfs/{world.site}")
    await world.names.resolve(str(NAME))
    for host, target in (
        ("localhost", f"/ipns/{NAME}/about.html"),
        (f"{NAME}.ipns.localhost", "/about.html"),
    ):
        assert world.ask(target, host=host).body == b"<p>about"
    other = put_site(world.store, {"about.html": b"<p>new"})
    publish(world, f"/ipfs/{other}", sequence=2)
    for host, target in (
        ("localhost", f"/ipns/{NAME}/about.html"),
        (f"{NAME}.ipns.localhost", "/about.html"),
    ):
        assert isinstance(world.ask(target, host=host), Asgi)
    await world.names.resolve(str(NAME))
    for host, target in (
        ("localhost", f"/ipns/{NAME}/about.html"),
        (f"{NAME}.ipns.localhost", "/about.html"),
    ):
        assert world.ask(target, host=host).body == b"<p>new"


async def test_a_name_at_its_host_has_the_rules_of_its_site_and_no_sandbox(world):
    publish(world, f"/ipfs/{world.site}")
    await world.names.resolve(str(NAME))
    head = fields(world.ask("/", host=f"{NAME}.ipns.localhost:8080"))
    assert head["x-site"] == "yes"
    assert "content-security-policy" not in head
    assert head["x-ipfs-path"] == f"/ipns/{NAME}/"


async def test_a_name_that_stands_for_a_path_begins_there(world):
    publish(world, f"/ipfs/{world.site}/empty")
    await world.names.resolve(str(NAME))
    assert world.ask(f"/ipns/{NAME}/file.txt", host="localhost").body == b"text"
    assert world.ask("/file.txt", host=f"{NAME}.ipns.localhost").body == b"text"
    assert world.ask(f"/ipns/{NAME}/about.html", host="localhost").status == 404


async def test_a_directory_is_led_to_its_slash_under_the_name(world):
    publish(world, f"/ipfs/{world.site}")
    found = await world.names.resolve(str(NAME))
    moved = world.ask(f"/ipns/{NAME}/docs", host="localhost")
    assert (moved.status, fields(moved)["location"]) == (301, f"/ipns/{NAME}/docs/")
    assert fields(moved)["cache-control"] == f"public, max-age={found.ttl_s}", "it may change"


@pytest.mark.parametrize("spelling", [NAME.peer_id, str(NAME.cid)])
async def test_other_spellings_of_a_key_lead_to_the_usual_one(world, spelling):
    moved = world.ask(f"/ipns/{spelling}/a%20b?x=/1", host="localhost")
    assert (moved.status, fields(moved)["location"]) == (302, f"/ipns/{NAME}/a%20b?x=/1")


async def test_a_key_in_upper_case_is_the_same_name(world):
    publish(world, f"/ipfs/{world.site}")
    await world.names.resolve(str(NAME))
    answer = world.ask(f"/ipns/{str(NAME).upper()}/about.html", host="localhost")
    assert answer.body == b"<p>about"


async def test_what_takes_waiting_goes_to_the_asgi_side(world):
    publish(world, f"/ipfs/{world.site}")
    await world.names.resolve(str(NAME))
    path = f"/ipns/{NAME}"
    for target in (f"{path}?format=ipns-record", f"{path}/empty/", f"{path}/about.html?format=raw"):
        assert isinstance(world.ask(target, host="localhost"), Asgi)
    for accept in ("application/vnd.ipfs.ipns-record", "application/vnd.ipld.car"):
        assert isinstance(world.ask(f"{path}/about.html", host="localhost", accept=accept), Asgi)
    assert isinstance(world.ask(f"{path}/about.html", host="localhost", method="POST"), Asgi)


async def test_a_domain_without_dns_or_map_is_the_gateways_own(world):
    assert world.ask("/api/v1/status", host="somewhere.example") is None
    answer = world.ask(f"/ipfs/{world.site}/about.html", host="somewhere.example")
    assert answer.body == b"<p>about"


async def test_the_host_of_a_mapped_domain_is_all_content(world):
    for target in ("/", "/api/v1/status", "/app/shop/", f"/ipfs/{world.site}/about.html"):
        asked = world.front.asked(b"mapped.example", target.encode())
        assert asked == Asked("mapped.example", target.encode(), "mapped.example")
        answer = world.ask(target, host="mapped.example")
        assert isinstance(answer, Asgi) or answer.status == (200 if target == "/" else 404)


async def test_names_in_listings_link_to_where_they_are(world):
    publish(world, f"/ipfs/{world.site}/empty")
    found = await world.names.resolve(str(NAME))
    at_path = place_of(Asked(str(NAME), b"/x"), found)
    assert (at_path.prefix, at_path.kind, at_path.links) == (f"/ipns/{NAME}", "content", None)
    at_label = place_of(Asked(str(NAME), b"/", f"{NAME}.ipns.g.example:80", "g.example:80"), found)
    assert at_label.links.above == f"//g.example:80/ipns/{NAME}"
    assert at_label.links.other == "//g.example:80/ipfs/"
    at_domain = place_of(Asked("d.example", b"/", "d.example:80"), found)
    assert (at_domain.links.above, at_domain.links.other) == ("//d.example:80", "")
    assert (at_domain.name, at_domain.below, at_domain.kind) == (
        "/ipns/d.example",
        "/empty",
        "host",
    )


async def test_all_header_fields_stay_under_two_kib(world):
    deep = "/".join(["d" * 60] * 8) + "/" + "f" * 200 + ".html"
    site = put_site(world.store, {deep: b"deep", "_headers": b"/*\n  X-Long: " + b"x" * 900})
    publish(world, f"/ipfs/{site}")
    await world.names.resolve(str(NAME))
    answer = world.ask(f"/{deep}", host=f"{NAME}.ipns.localhost")
    assert answer.status == 200
    assert len(answer.head) < 2048


# --- composed for a gateway ---------------------------------------------------------------------


def config(**settings):
    return GatewayConfig(network="", ledger="", listen="127.0.0.1:0", **settings)


async def test_a_gateway_keeps_the_names_of_its_keys(tmp_path):
    service = NameService(str(tmp_path), config(dnslink=False), [KEY])
    now = time.time_ns()
    soon = create_record(KEY, "/ipfs/bafkqaaa", sequence=4, eol_ns=now + 60 * S, ttl_ns=S)
    service.store.put(NAME, soon.encoded, now)
    await service.keep()
    kept = service.store.last(NAME)
    assert (kept.sequence, kept.value) == (4, "/ipfs/bafkqaaa")
    assert kept.eol_ns > now + 47 * 3600 * S
    await service.close()


async def test_a_gateway_without_dns_resolves_its_map_alone(tmp_path):
    settings = config(dnslink=False, dnslinks={"a.example": "/ipfs/bafkqaaa"})
    service = NameService(str(tmp_path), settings)
    assert str((await service.names.resolve("a.example")).root) == "bafkqaaa"
    with pytest.raises(NoDnsLinkError):
        await service.names.resolve("b.example")
    await service.close()


def test_wrong_settings_are_told_before_a_gateway_serves(tmp_path):
    with pytest.raises(UserError, match="content path"):
        NameService(str(tmp_path / "a"), config(dnslinks={"a.example": "/srv"}))
    with pytest.raises(UserError, match="name server"):
        NameService(str(tmp_path / "b"), config(dns_servers=("ns.example.org",)))
    with pytest.raises(LimitError):
        NameService(str(tmp_path / "c"), config(), [KEY] * 65)
