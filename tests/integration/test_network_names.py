"""Names through a real gateway: published, resolved, served at paths, hosts and domains, kept."""

import json
import time

import pytest

from lichen.cdn.names.values import NameNotResolvedError
from lichen.cdn.retrieval.fetch import Fetcher, Outside
from lichen.cli.network.folder import write_config
from lichen.content import BlockStore
from lichen.content.ipns import Name, create_record, verify_record
from lichen.content.ipns_time import parse_time
from lichen.content.libp2p_key import public_key
from lichen.gateway.config import GatewayConfig
from lichen.gateway.name_service import NameService
from lichen.identity import KeyKind, PrivateKey
from lichen.testing.network import Answer, LocalNetwork
from tests.integration.dns_world import serving_beside, txt
from tests.interop.world import Kubo

RECORD_TYPE = "application/vnd.ipfs.ipns-record"
S = 10**9


@pytest.fixture(scope="module")
def dns():
    with serving_beside() as server:
        yield server


@pytest.fixture(scope="module")
def network(tmp_path_factory, dns):
    made = LocalNetwork(tmp_path_factory.mktemp("names"), nodes=1)
    site = made.root / "site"
    (site / "docs").mkdir(parents=True)
    (site / "index.html").write_text("<p>home")
    (site / "docs" / "a.txt").write_text("text")
    (site / "_redirects").write_text("/old /docs/a.txt 302\n")
    made.up()
    try:
        made.site = made.lichen("storage", "add", "site")["cid"]
        made.before = made.lichen("name", "publish", made.site, "--lifetime", "1h", "--ttl", "2m")
        made.kept = made.lichen("name", "publish", made.site, "--lifetime", "1h", "--key", "node-1")
        made.down()
        settings = {
            "dns_servers": [dns.address],
            "dnslinks": {"mapped.example": f"/ipfs/{made.site}"},
        }
        settings |= {"hosts": ["localhost", "gateway.example"], "names": ["node-1"]}
        home = made.folder.home("gateway")
        write_config(home, made.folder.config("gateway") | settings)
        made.up()
        yield made
    finally:
        made.down()


def ask(network, host, target, method="GET", body=None, **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = network.connect()
    connection.request(method, target, body, {"host": host, **fields})
    response = connection.getresponse()
    read = {name.lower(): value for name, value in response.getheaders()}
    answer = Answer(response.status, read, response.read())
    connection.close()
    return answer


def local(network):
    return f"127.0.0.1:{network.port}"


def put(network, key, value, *, sequence=0, ttl_s=300):
    name = Name.of(public_key(key))
    record = create_record(
        key, value, sequence=sequence, eol_ns=time.time_ns() + 3600 * S, ttl_ns=ttl_s * S
    ).encoded
    answer = ask(
        network, local(network), f"/routing/v1/ipns/{name}", "PUT", record, content_type=RECORD_TYPE
    )
    assert answer.status == 200, answer.body
    return name, record


def key_of(number):
    return PrivateKey(KeyKind.ED25519, bytes([number]) * 32)


def test_a_published_name_outlives_a_restart_and_is_kept_fresh(network):
    made = network.before
    assert (made["sequence"], made["value"]) == (0, f"/ipfs/{network.site}")
    assert ask(network, local(network), f"/ipns/{made['name']}/docs/a.txt").body == b"text"
    done = network.command("name", "keep", "developer", "--once", "--json")
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout)
    assert (kept["sequence"], kept["value"]) == (made["sequence"], made["value"])
    assert kept["ends"] > made["ends"]
    assert network.lichen("name", "resolve", made["name"])["ends"] == kept["ends"]
    assert network.command("name", "keep", "developer", "--once", "--json").stdout == ""


def test_the_gateway_itself_keeps_the_names_that_it_is_told_to(network):
    found = network.lichen("name", "resolve", network.kept["name"])
    assert (found["value"], found["sequence"]) == (network.kept["value"], 0)
    left_ns = parse_time(found["ends"].encode()) - time.time_ns()
    assert left_ns > 47 * 3600 * S


def test_a_name_serves_content_and_follows_its_owner(network):
    made = network.lichen("name", "publish", f"{network.site}/docs", "--ttl", "2m")
    name = made["name"]
    assert (made["sequence"], made["value"]) == (1, f"/ipfs/{network.site}/docs")
    for _ in range(2):  # resolved on the ASGI side, then from memory
        page = ask(network, local(network), f"/ipns/{name}/a.txt")
        assert (page.status, page.body) == (200, b"text")
        assert page.headers["x-ipfs-path"] == f"/ipns/{name}/a.txt"
        assert page.headers["cache-control"] in {"public, max-age=120", "public, max-age=105"}
        assert len(page.headers["x-ipfs-roots"].split(",")) == 2
        assert "last-modified" not in page.headers
    again = ask(network, local(network), f"/ipns/{name}/a.txt", if_none_match=page.headers["etag"])
    assert again.status == 304
    network.lichen("name", "publish", network.site)
    assert ask(network, local(network), f"/ipns/{name}/docs/a.txt").body == b"text"
    assert ask(network, local(network), f"/ipns/{name}/a.txt").status == 404
    assert ask(network, local(network), f"/ipns/{name}").headers["location"] == f"/ipns/{name}/"
    (network.root / "site" / "new.txt").write_text("new")
    again = network.lichen("name", "publish", "site")
    assert ask(network, local(network), f"/ipns/{name}/new.txt").body == b"new"
    assert (again["name"], again["sequence"]) == (name, 3)
    network.lichen("name", "publish", f"/ipfs/{network.site}")
    found = network.lichen("name", "resolve", name)
    assert (found["path"], found["sequence"]) == (f"/ipfs/{network.site}", 4)
    listed = {entry["key"]: entry for entry in network.lichen("name", "ls")}
    assert (listed["developer"]["name"], listed["developer"]["sequence"]) == (name, 4)


def test_a_name_has_an_origin_of_its_own_at_its_host(network):
    name, _ = put(network, key_of(1), f"/ipfs/{network.site}")
    host = f"{name}.ipns.gateway.example"
    for _ in range(2):
        assert ask(network, host, "/").body == b"<p>home"
    assert "content-security-policy" not in ask(network, host, "/").headers
    moved = ask(network, host, "/old")
    assert (moved.status, moved.headers["location"]) == (302, "/docs/a.txt")
    other = ask(network, f"{name.cid}.ipns.gateway.example", "/docs/a.txt?x=1")
    assert (other.status, other.headers["location"]) == (301, f"http://{host}/docs/a.txt?x=1")


def test_a_key_in_another_spelling_is_led_to_its_usual_one(network):
    name, _ = put(network, key_of(1), f"/ipfs/{network.site}")
    moved = ask(network, local(network), f"/ipns/{name.peer_id}/docs/a.txt?format=raw")
    assert (moved.status, moved.headers["location"]) == (302, f"/ipns/{name}/docs/a.txt?format=raw")


@pytest.mark.parametrize("asked", [{"accept": RECORD_TYPE}, {"query": "?format=ipns-record"}])
def test_the_record_itself_can_be_had_and_verified(network, asked):
    name, record = put(network, key_of(2), f"/ipfs/{network.site}", ttl_s=1800)
    query = asked.pop("query", "")
    answer = ask(network, local(network), f"/ipns/{name}{query}", **asked)
    assert (answer.status, answer.body) == (200, record)
    assert answer.headers["content-type"] == RECORD_TYPE
    assert answer.headers["cache-control"] == "public, max-age=1800"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}.ipns-record"'
    verify_record(name, answer.body, time.time_ns())
    tag = answer.headers["etag"]
    assert (
        ask(network, local(network), f"/ipns/{name}{query}", if_none_match=tag, **asked).status
        == 304
    )
    for target in (f"/ipns/{name}/docs?format=ipns-record", f"/ipfs/{network.site}?format=ipns-record",
                   "/ipns/mapped.example?format=ipns-record"):  # fmt: skip
        assert ask(network, local(network), target).status == 400


def test_what_is_no_name_is_400_and_what_nobody_knows_5xx(network):
    for target in ("/ipns/", "/ipns/nonsense", "/ipns/10.0.0.1/", "/ipns/printer.local/"):
        assert ask(network, local(network), target).status == 400
    unknown = ask(network, local(network), f"/ipns/{Name.of(public_key(key_of(99)))}/")
    assert (unknown.status, unknown.json()["type"]) == (502, "urn:lichen:problem:name-not-resolved")
    other = f"/ipns/{Name.of(public_key(key_of(97)))}/"
    page = ask(network, local(network), other, accept="text/html")
    assert page.headers["content-type"].startswith("text/html")
    other = f"/ipns/{Name.of(public_key(key_of(96)))}/"
    assert ask(network, local(network), other, cache_control="only-if-cached").status == 412
    assert ask(network, local(network), other, method="POST").status == 405
    assert ask(network, local(network), other, method="OPTIONS").status == 204


def test_the_operators_map_and_dns_lead_hosts_and_paths_to_content(network, dns):
    name, _ = put(network, key_of(3), f"/ipfs/{network.site}/docs")
    dns.zone["_dnslink.site.example.org"] = [txt(f'"dnslink=/ipfs/{network.site}"', ttl=60)]
    dns.zone["_dnslink.over-ipns.example.org"] = [txt(f'"dnslink=/ipns/{name}"')]
    for host in ("mapped.example", "site.example.org", "SITE.example.org:80"):
        for _ in range(2):
            page = ask(network, host, "/docs/a.txt")
            assert (page.status, page.body) == (200, b"text")
        assert page.headers["x-ipfs-path"] == f"/ipns/{host.lower().partition(':')[0]}/docs/a.txt"
        assert ask(network, host, "/old").headers["location"] == "/docs/a.txt"
        assert ask(network, host, "/api/v1/status").status == 404, "all of the host is its content"
    for host, path in (
        ("over-ipns.example.org", "/a.txt"),
        ("over--ipns-example-org.ipns.gateway.example", "/a.txt"),
        ("over-ipns.example.org.ipns.gateway.example", "/a.txt"),
        (local(network), "/ipns/over-ipns.example.org/a.txt"),
    ):
        assert ask(network, host, path).body == b"text"
    assert network.lichen("name", "resolve", "site.example.org")["path"] == f"/ipfs/{network.site}"
    max_age = ask(network, "site.example.org", "/docs/a.txt").headers["cache-control"]
    assert int(max_age.removeprefix("public, max-age=")) <= 60


def test_a_host_without_a_dnslink_is_the_gateways_own(network, dns):
    network.deploy("greet", "export default { fetch: () => new Response('hi') }")
    before = dns.asked.count("_dnslink.somewhere.example.net")
    for _ in range(3):
        assert ask(network, "somewhere.example.net", "/api/v1/status").status == 200
    assert dns.asked.count("_dnslink.somewhere.example.net") == before + 1
    assert ask(network, "elsewhere.example.net", f"/ipfs/{network.site}/docs/a.txt").body == b"text"
    first = ask(network, "third.example.net", "/app/greet/x?y")
    if first.status == 307:  # it was the first request for this host, and DNS had to be asked
        assert first.headers["location"] == "/app/greet/x?y"
        first = ask(network, "third.example.net", "/app/greet/x?y")
    assert first.body == b"hi"


def test_records_are_imported_from_files_and_broken_ones_refused(network):
    name, record = put(network, key_of(4), "/ipfs/bafkqaaa", sequence=5)
    newer = create_record(
        key_of(4), f"/ipfs/{network.site}", sequence=6, eol_ns=time.time_ns() + 3600 * S, ttl_ns=S
    ).encoded
    (network.root / f"{name}_7.ipns-record").write_bytes(newer)
    (network.root / "old.ipns-record").write_bytes(record)
    (network.root / f"{name.peer_id}.ipns-record").write_bytes(newer[:-1] + b"x")
    done = network.lichen("name", "import", f"{name}_7.ipns-record")
    assert [(entry["name"], entry["newest"]) for entry in done] == [(str(name), True)]
    done = network.lichen("name", "import", "old.ipns-record", "--name", str(name))
    assert done[0]["newest"] is False
    failed = network.command("name", "import", f"{name.peer_id}.ipns-record", "--json")
    assert failed.returncode == 4
    assert json.loads(failed.stdout) == []
    assert ask(network, local(network), f"/ipns/{name}/docs/a.txt").body == b"text"


async def test_a_gateway_asks_the_routers_that_it_was_told_of_and_tells_them(network, tmp_path):
    name, record = put(network, key_of(7), f"/ipfs/{network.site}")
    mine = Name.of(public_key(key_of(8)))
    settings = GatewayConfig(network="", ledger="", listen="", dnslink=False)
    with BlockStore.open(tmp_path / "content", capacity_bytes=2**24) as store:
        fetcher = Fetcher(store, list, outside=Outside((f"http://{local(network)}",)))
        other = NameService(str(tmp_path), settings, [key_of(8)], fetcher.routers)
        assert str((await other.names.resolve(str(name))).root) == network.site
        assert other.store.get(name) == record
        with pytest.raises(NameNotResolvedError):
            await other.names.resolve(str(Name.of(public_key(key_of(98)))))
        made = create_record(
            key_of(8), "/ipfs/bafkqaaa", sequence=1, eol_ns=time.time_ns() + S, ttl_ns=S
        )
        other.store.put(mine, made.encoded, time.time_ns())
        await other.keep()
        await other.tell()
        assert network.client().name_record(mine) == other.store.get(mine) != made.encoded
        await other.close()
        await fetcher.close()


def test_kubo_publishes_here_and_resolves_what_was_published_here(network, tmp_path):
    router = f"http://{local(network)}"
    with Kubo(tmp_path / "kubo", router, [f"{router}/routing/v1/ipns"]) as kubo:
        for kind in ("ed25519", "rsa"):
            name = kubo.ipfs("key", "gen", f"--type={kind}", kind, "--ipns-base=base36").decode()
            value = f"/ipfs/{network.site}/docs"
            options = ["--allow-delegated", "--resolve=false", f"--key={kind}"]
            kubo.ipfs("name", "publish", *options, value)
            assert network.lichen("name", "resolve", name.strip())["path"] == value
            page = ask(network, local(network), f"/ipns/{name.strip()}/a.txt")
            assert page.body == b"text"
        name, _ = put(network, key_of(6), f"/ipfs/{network.site}", sequence=3)
        assert kubo.ipfs("name", "resolve", f"/ipns/{name}").decode().strip() == (
            f"/ipfs/{network.site}"
        )
