"""`/routing/v1` over sockets: what a node says of itself, and a gateway of itself and its nodes."""

import contextlib
import json
import time

import pytest
from starlette.applications import Starlette

from lichen.cdn.names.store import NameStore
from lichen.cdn.retrieval.origins import Origins
from lichen.cdn.routing.api import routing_routes
from lichen.cdn.routing.directory import NetworkDirectory, Node, OwnDirectory
from lichen.content import CID, RAW
from lichen.content.ipns import RECORD_BYTES_MAX, Name, create_record
from lichen.content.libp2p_key import public_key
from lichen.identity import KeyKind, PrivateKey
from tests.integration.retrieval_world import response, serving, stranger

PUBLIC = "https://gateway.example"
ADDRESS = "/dns/gateway.example/tcp/443/tls/http"
RECORD_TYPE = "application/vnd.ipfs.ipns-record"
HOUR_NS = 3600 * 10**9


class Named:
    """A server that is a router too, with a key of its own."""

    def __init__(self, server, key):
        self.server = server
        self.key = key
        self.get = server.get
        self.client = server.client
        self.node = Node(key.public, server.url)
        self.peer_id = Name.of(public_key(key)).peer_id


@contextlib.asynccontextmanager
async def router(folder, nodes=(), public_url=PUBLIC, kind=KeyKind.ED25519, *, private=True):
    key, app, origins = PrivateKey.generate(kind), Starlette(), Origins()
    names = NameStore(str(folder) + "-names")
    async with serving(folder, app=app) as server:
        own = OwnDirectory(server.store, key.public, public_url)
        directory = NetworkDirectory(own, lambda: nodes, origins, private_nodes=private)
        app.router.routes.extend(routing_routes(directory if nodes else own, names))
        yield Named(server, key)
        await directory.close()
    origins.close()
    names.close()


def header_bytes(answer):
    return sum(len(name) + len(value) + 4 for name, value in answer.headers.raw)


async def test_a_server_lists_itself_for_what_it_has(tmp_path):
    async with router(tmp_path / "node") as node:
        cid = node.server.put(b"x" * 100_000)
        answer = await node.get(f"/routing/v1/providers/{cid}")
        record = {
            "Schema": "peer",
            "ID": node.peer_id,
            "Addrs": [ADDRESS],
            "Protocols": ["transport-ipfs-gateway-http"],
        }
        assert answer.json() == {"Providers": [record]}
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "max-age=300" in answer.headers["cache-control"]
        assert header_bytes(answer) < 2048
        lines = await node.get(
            f"/routing/v1/providers/{cid}", headers={"accept": "application/x-ndjson"}
        )
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line) for line in lines.text.splitlines()] == [record]
        for filters, count in (("filter-addrs=!https", 0), ("filter-protocols=unknown", 0),
                               ("filter-addrs=https,wss&filter-protocols=transport-ipfs-gateway-http", 1)):  # fmt: skip
            filtered = await node.get(f"/routing/v1/providers/{cid}?{filters}")
            assert len(filtered.json()["Providers"]) == count
        head = await node.client.head(f"/routing/v1/providers/{cid}")
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_nothing_found_is_an_empty_list_for_a_short_time(tmp_path, accept):
    missing = CID.of(RAW, b"nobody has this")
    stranger_id = Name.of(public_key(PrivateKey.generate(KeyKind.ED25519)))
    async with router(tmp_path / "node") as node:
        for path in (
            f"providers/{missing}",
            f"peers/{stranger_id}",
            f"peers/{stranger_id.peer_id}",
        ):
            answer = await node.get(f"/routing/v1/{path}", headers={"accept": accept})
            assert answer.status_code == 200
            assert "max-age=15," in answer.headers["cache-control"]
            assert answer.content in (b"", b'{"Providers":[]}', b'{"Peers":[]}')


async def test_a_server_that_was_not_told_where_it_is_reached_lists_nobody(tmp_path):
    async with router(tmp_path / "node", public_url="") as node:
        cid = node.server.put(b"x" * 100_000)
        assert (await node.get(f"/routing/v1/providers/{cid}")).json() == {"Providers": []}
        assert (await node.get(f"/routing/v1/peers/{node.peer_id}")).json() == {"Peers": []}


@pytest.mark.parametrize("kind", list(KeyKind))
async def test_a_server_is_found_by_every_spelling_of_its_peer_id(tmp_path, kind):
    async with router(tmp_path / "node", kind=kind) as node:
        name = Name.of(public_key(node.key))
        for text in (name.peer_id, str(name), str(name.cid)):
            found = (await node.get(f"/routing/v1/peers/{text}")).json()["Peers"]
            assert [record["ID"] for record in found] == [node.peer_id]


async def test_what_the_api_does_not_have_is_refused_in_words_that_browsers_may_read(tmp_path):
    cases = [
        ("GET", "providers/nonsense", 422),
        ("GET", "providers/" + "b" * 3000, 422),
        ("GET", "providers/bafkqaaa?filter-addrs=" + "a," * 65, 422),
        ("GET", "peers/bafkqaaa", 422),
        ("GET", "dht/closest/peers/bafkqaaa", 501),
        ("GET", "", 400),
        ("GET", "providers", 400),
        ("GET", "elsewhere/x", 400),
        ("POST", "providers/bafkqaaa", 501),
        ("PUT", "providers/bafkqaaa", 501),
        ("DELETE", "ipns/bafkqaaa", 501),
        ("GET", "ipns/nonsense", 400),
    ]
    async with router(tmp_path / "node") as node:
        for method, path, status in cases:
            answer = await node.client.request(method, f"/routing/v1/{path}")
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.json()["hint"]
        for path in ("providers/bafkqaaa", "peers/x", "ipns/x"):
            answer = await node.client.options(f"/routing/v1/{path}")
            assert answer.status_code == 200
            assert "GET" in answer.headers["access-control-allow-methods"]


async def test_a_gateway_lists_the_nodes_that_have_a_block_as_they_say_themselves(tmp_path):
    async with (
        router(tmp_path / "has", public_url="https://node.example") as has,
        router(tmp_path / "lacks") as lacks,
        router(tmp_path / "gateway", [has.node, lacks.node]) as gateway,
    ):
        cid = has.server.put(b"x" * 100_000)
        found = (await gateway.get(f"/routing/v1/providers/{cid}")).json()["Providers"]
        assert [(record["ID"], record["Addrs"]) for record in found] == [
            (has.peer_id, ["/dns/node.example/tcp/443/tls/http"])
        ]
        gateway.server.put(b"x" * 100_000)
        found = (await gateway.get(f"/routing/v1/providers/{cid}")).json()["Providers"]
        assert [record["ID"] for record in found] == [gateway.peer_id, has.peer_id]
        asked = [target for _, target in has.server.asked if "providers" in target]
        assert len(asked) == 1  # the answer is kept for a while
        peers = (await gateway.get(f"/routing/v1/peers/{lacks.peer_id}")).json()["Peers"]
        assert [record["ID"] for record in peers] == [lacks.peer_id]


@pytest.mark.parametrize(
    "answer",
    [
        response(json.dumps({"Providers": [{"Schema": "peer", "ID": "12D3KooWother", "Addrs": [ADDRESS]}]}).encode(), "application/json"),
        response(b'{"Providers": "all"}', "application/json"),
        response(b"x" * 100_000, "application/json"),
        response(b"", "application/json", "500 No"),
        b"nonsense\r\n\r\n",
        None,
    ],
)  # fmt: skip
async def test_nodes_that_speak_for_others_or_are_silent_are_left_out(tmp_path, answer):
    cid = CID.of(RAW, b"who has this")
    key = PrivateKey.generate(KeyKind.SECP256K1)
    async with stranger(lambda _: answer) as liar:
        node = Node(key.public, liar.url)
        async with router(tmp_path / "gateway", [node]) as gateway:
            started = time.monotonic()
            found = await gateway.get(f"/routing/v1/providers/{cid}")
            assert found.json() == {"Providers": []}
            assert time.monotonic() - started < 8
            other = CID.of(RAW, b"and this")
            assert (await gateway.get(f"/routing/v1/providers/{other}")).status_code == 200
        assert answer is not None or len(liar.heads) == 1  # who is silent is not waited for again


async def test_a_node_cannot_send_clients_to_private_addresses(tmp_path):
    async with stranger(lambda _: said) as node_server:
        key = PrivateKey.generate(KeyKind.ED25519)
        peer_id = Name.of(public_key(key)).peer_id
        addresses = [
            "/ip4/127.0.0.1/tcp/1/http",
            "/ip4/10.0.0.1/tcp/1/tls/http",
            "nonsense",
            ADDRESS,
        ]
        document = {"Providers": [{"Schema": "peer", "ID": peer_id, "Addrs": addresses}]}
        said = response(json.dumps(document).encode(), "application/json")
        listed = Node(key.public, node_server.url)
        async with router(tmp_path / "gateway", [listed]) as gateway:
            cid = CID.of(RAW, b"x")
            found = (await gateway.get(f"/routing/v1/providers/{cid}")).json()["Providers"]
            assert [record["Addrs"] for record in found] == [[*addresses[:2], ADDRESS]]
        async with router(tmp_path / "strict", [listed], private=False) as strict:
            found = (await strict.get(f"/routing/v1/providers/{cid}")).json()["Providers"]
            assert found == []  # the node itself is at a private address: it is not asked


# --- names ---------------------------------------------------------------------------------------


def make_record(key, sequence=1, ttl_ns=600 * 10**9):
    eol_ns = time.time_ns() + HOUR_NS
    made = create_record(key, "/ipfs/bafkqaaa", sequence=sequence, eol_ns=eol_ns, ttl_ns=ttl_ns)
    return Name.of(public_key(key)), made.encoded


async def test_a_record_that_was_put_is_given_as_it_came(tmp_path):
    name, encoded = make_record(PrivateKey.generate(KeyKind.ED25519))
    async with router(tmp_path / "gateway") as gateway:
        put = await gateway.client.put(
            f"/routing/v1/ipns/{name}", content=encoded, headers={"content-type": RECORD_TYPE}
        )
        assert put.status_code == 200
        path = f"/routing/v1/ipns/{name.cid}"
        answer = await gateway.get(path, headers={"accept": RECORD_TYPE})
        assert (answer.status_code, answer.content) == (200, encoded)
        assert answer.headers["content-type"] == RECORD_TYPE
        assert "max-age=600," in answer.headers["cache-control"]
        assert answer.headers["expires"].endswith("GMT")
        same = await gateway.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        assert (await gateway.get(path, headers={"accept": "text/html"})).status_code == 406


async def test_a_name_without_a_record_has_none_and_that_is_no_error(tmp_path):
    name, _ = make_record(PrivateKey.generate(KeyKind.ED25519))
    async with router(tmp_path / "gateway") as gateway:
        answer = await gateway.get(f"/routing/v1/ipns/{name}", headers={"accept": RECORD_TYPE})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")


async def test_what_is_no_record_of_the_name_is_not_taken(tmp_path):
    name, encoded = make_record(PrivateKey.generate(KeyKind.ED25519))
    _, another = make_record(PrivateKey.generate(KeyKind.ED25519))
    cases = [
        (encoded[:-1] + bytes([encoded[-1] ^ 1]), RECORD_TYPE, 400),
        (b"", RECORD_TYPE, 400),
        (bytes(RECORD_BYTES_MAX + 1), RECORD_TYPE, 413),
        (encoded, "application/json", 406),
        (another, RECORD_TYPE, 400),
    ]
    async with router(tmp_path / "gateway") as gateway:
        path = f"/routing/v1/ipns/{name}"
        for body, kind, status in cases:
            put = await gateway.client.put(path, content=body, headers={"content-type": kind})
            assert put.status_code == status
            assert put.json()["hint"]
        assert (await gateway.get(path)).headers["content-type"].startswith("text/plain")
