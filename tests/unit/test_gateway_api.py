"""The public API: its table, its document, and what each route answers."""

import asyncio
import inspect
import json
import pathlib
import re
from urllib.parse import quote

import anyio
import httpx
import libipld
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from lichen.content.car import write_car
from lichen.content.cid import CID, RAW
from lichen.encoding import from_json
from lichen.errors import PeerError
from lichen.gateway.api import apps, content, views
from lichen.gateway.api.app import PREFIX
from lichen.gateway.api.events import RUNS_TOLD_MAX, Event, EventHub, publish_runs
from lichen.gateway.api.openapi import document
from lichen.gateway.api.table import table
from lichen.identity import http_signature as hs
from lichen.ledger.light import read_header
from lichen.ledger.results import ProofAnswer
from lichen.ledger.transactions import Transfer, encode_transaction, sign_transaction
from lichen.ledger.tree import verify_proof
from lichen.ledger.types import App, Release, network_id
from lichen.units import FLK, Amount
from lichen.wire.errors import BusyError
from tests.unit import gateway_api_world as w

ENTRIES = table()
BY_NAME = {
    "/events",
    "/apps/{app}/logs",
    "/market/quote/{app}",
    "/storage",
}  # have tests of their own
GETS = [entry for entry in ENTRIES if entry.method == "GET" and entry.path not in BY_NAME]


@pytest.fixture
def world(tmp_path):
    world = w.World(tmp_path).populate()
    yield world
    world.close()


def client_of(world):
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(world.api), base_url="http://gateway.test"
    )


def sign(request, key, body=b"", *, now_s=w.NOW_MS // 1000, nonce="0123456789abcdef"):
    head = hs.RequestHead(
        request.method,
        "http",
        request.headers["host"],
        request.url.raw_path.split(b"?")[0].decode(),
        request.url.query.decode(),
    )
    digest = hs.body_digest(body)
    request.headers.update(
        hs.sign_request(key, head, created_s=now_s, nonce=nonce, body_sha256=digest)
    )
    return request


async def get(world, path, kind=None, status=200, **query):
    async with client_of(world) as client:
        answer = await client.get(PREFIX + path, params=query)
    assert answer.status_code == status, answer.text
    return answer if kind is None else from_json(answer.content, kind)


async def problem(world, path, status, code, **query):
    answer = await get(world, path, status=status, **query)
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["type"] == f"urn:lichen:problem:{code}"
    assert found["status"] == status
    assert found["detail"]
    return found


def path_of(world, entry):
    values = {
        "address": w.NODE.address if "nodes" in entry.path else w.OWNER.address,
        "app": "shop",
        "function": "api",
        "number": 1,
        "run": world.run,
        "cid": w.CODE,
        "name": "docs.example",
        "key": (b"account/" + w.OWNER.address).hex(),
    }
    return entry.path.format(**values)


@pytest.mark.parametrize("entry", GETS, ids=lambda entry: entry.path)
async def test_every_get_answers_what_its_document_says(world, entry):
    answer = await get(world, path_of(world, entry))
    assert answer.headers["content-type"] == entry.media_type
    assert answer.headers["access-control-allow-origin"] == "*"
    if entry.handler.__name__ != "receipt":
        from_json(answer.content, entry.answer)


async def test_the_openapi_document_and_the_routes_are_the_same_table(world):
    served = (await get(world, "/openapi.json")).json()
    assert served == json.loads(msgspec.json.encode(document(ENTRIES, PREFIX)))
    documented = {(method, path) for path, methods in served["paths"].items() for method in methods}
    assert documented == {(entry.method.lower(), PREFIX + entry.path) for entry in ENTRIES}
    routed = {
        (method.lower(), route.path)
        for route in world.api.routes
        for method in route.methods - {"HEAD", "OPTIONS"}
        if not route.path.endswith("openapi.json")
    }
    assert routed == documented


def test_every_operation_is_described_and_every_reference_resolves():
    found = document(ENTRIES, PREFIX)
    for methods in found["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert set(operation["responses"]) == {"200", "default"}
    text = json.dumps(found)
    for part in text.split('"$ref": "#/')[1:]:
        target = found
        for name in part.split('"')[0].split("/"):
            target = target[name]
        assert target


def test_the_documentation_lists_every_route_as_the_code_describes_it():
    page = pathlib.Path(__file__).parents[2].joinpath("docs/api.md").read_text()
    listed = [
        line for line in page.splitlines() if line.startswith(("| `GET", "| `POST", "| `DELETE"))
    ]
    assert listed == [
        f"| `{entry.method} {entry.path}` | {inspect.getdoc(entry.handler).splitlines()[0]}"
        f"{' Signed (RFC 9421).' if entry.signed else ''} |"
        for entry in ENTRIES
    ]


async def test_status_names_network_and_height(world):
    status = await get(world, "/status", views.Status)
    assert status.network == network_id(world.genesis)
    assert (status.height, status.nodes_active) == (world.head.height, 1)
    assert status.gateway == w.GATEWAY.address


async def test_the_genesis_has_the_networks_id(world):
    network = await get(world, "/network", views.Network)
    assert network_id(network.genesis) == network.id


async def test_accounts_are_found_in_any_case_and_empty_ones_exist(world):
    lower = await get(world, f"/accounts/0x{w.OWNER.address.hex()}", views.AccountView)
    assert lower.balance == world.ledger.account(w.OWNER.address).balance
    poor = await get(world, f"/accounts/{w.POOR.address}", views.AccountView)
    assert (poor.balance, poor.nonce) == (0, 0)
    await problem(world, "/accounts/0x12", 400, "bad-parameter")


async def test_history_pages_back_to_the_start_without_gaps(world):
    found, cursor = [], ""
    while cursor is not None:
        page = await get(
            world,
            f"/accounts/{w.OWNER.address}/history",
            views.Page[views.HistoryEntry],
            limit=2,
            cursor=cursor,
        )
        assert len(page.items) <= 2
        found += page.items
        cursor = page.cursor
    heights = [entry.height for entry in found]
    assert heights == sorted(heights, reverse=True)
    assert sum(int(e.change) for e in found) == found[0].balance - 1000 * FLK
    assert {"transfer", "create-app", "open-channel"} <= {e.kind for e in found}
    await problem(world, f"/accounts/{w.OWNER.address}/history", 400, "bad-parameter", before="x")


async def test_channels_are_seen_by_payer_payee_and_signer(world):
    for key in (w.OWNER, w.NODE, w.GATEWAY):
        page = await get(world, f"/accounts/{key.address}/channels", views.Page[views.ChannelView])
        assert [(c.payer, c.payee, c.deposit) for c in page.items] == [
            (w.OWNER.address, w.NODE.address, FLK)
        ]


async def test_lists_page_in_order_and_nothing_is_lost(world):
    for number in range(7):
        world.do(w.OWNER, w.CreateApp(f"app-{number}", ""))
    found, cursor = [], ""
    while cursor is not None:
        page = await get(world, "/apps", views.Page[App], limit=2, cursor=cursor)
        found += [app.name for app in page.items]
        cursor = page.cursor
    assert found == sorted(found)
    assert len(found) == 9
    owned = await get(world, "/apps", views.Page[App], owner=str(w.POOR.address))
    assert owned == views.Page((), None)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "-1"},
        {"limit": "x"},
        {"limit": "²"},
        {"cursor": "c" * 257},
    ],
)
async def test_limits_and_cursors_are_bounded(world, query):
    await problem(world, "/apps", 400, "bad-parameter", **query)


async def test_apps_show_the_release_that_serves(world):
    app = await get(world, "/apps/shop", views.AppView)
    assert (app.release.number, app.path) == (2, "/app/shop/")
    assert (await get(world, "/apps/empty", views.AppView)).release is None
    releases = await get(world, "/apps/shop/releases", views.Page[Release])
    assert [release.number for release in releases.items] == [2, 1]
    paged = await get(world, "/apps/shop/releases", views.Page[Release], limit=1)
    rest = await get(world, "/apps/shop/releases", views.Page[Release], cursor=paged.cursor)
    assert [release.number for release in rest.items] == [1]
    await problem(world, "/apps/none", 404, "unknown-app")
    await problem(world, "/apps/shop/releases/9", 404, "unknown-release")


async def test_functions_are_named_by_app_release_and_name(world):
    found = await get(world, "/functions/shop", views.Page[views.FunctionView])
    assert [f.id for f in found.items] == ["shop/2/api", "shop/2/ssr"]
    await problem(world, "/functions/shop/none", 404, "unknown-route")
    assert not (await get(world, "/functions/empty", views.Page[views.FunctionView])).items


async def test_nodes_show_how_this_gateway_finds_them(world):
    node = await get(world, f"/nodes/{w.NODE.address}", views.NodeView)
    assert (node.reachable, node.latency_ms, node.failures) == (True, 4, 0)
    world.health[bytes(w.NODE.address)].failed(w.NOW_MS)
    node = await get(world, f"/nodes/{w.NODE.address}", views.NodeView)
    assert (node.reachable, node.failures) == (False, 1)
    await problem(world, f"/nodes/{w.OWNER.address}", 404, "unknown-node")


async def test_prices_and_quotes_follow_the_nodes_offers(world):
    prices = await get(world, "/market/prices", views.MarketPrices)
    assert [(p.unit, p.median) for p in prices.prices][:2] == [("request", 10), ("cpu_s", 20)]
    quote = await get(world, "/market/quote/shop/api", views.FunctionQuote)
    assert [q.node for q in quote.nodes] == [w.NODE.address]
    assert quote.nodes[0].typical <= quote.nodes[0].ceiling <= 10**15
    world.do(w.OWNER, w.PublishRelease("shop", None, (w.function(max_price=1),), None))
    dear = await get(world, "/market/quote/shop", views.FunctionQuote)
    assert not dear.nodes
    assert "too dear" in dear.refused
    await problem(world, "/market/quote/shop/api", 400, "bad-parameter", verify="mpc")


async def test_an_app_with_two_functions_has_no_quote_of_its_own(world):
    found = await problem(world, "/market/quote/shop", 404, "unknown-route")
    assert "api, ssr" in found["hint"]


async def test_an_empty_market_has_no_prices(tmp_path):
    world = w.World(tmp_path)
    assert (await get(world, "/market/prices", views.MarketPrices)).prices == ()
    world.close()


async def test_runs_tell_their_story_and_keep_their_receipt(world):
    run = await get(world, f"/runs/{world.run}", views.RunView)
    assert (run.function, run.amount, run.attempts[0].outcome) == ("shop/2/api", 12, "answered")
    why = await get(world, f"/runs/{world.run}/why", views.Why)
    story = " ".join(why.story)
    for part in ("shop/2/api", "1 too dear", "Attempt 1", str(w.NODE.address), "FLK"):
        assert part in story
    for path in (f"/runs/{world.run}/receipt", f"/receipts/{world.run}"):
        assert (await get(world, path)).content == w.RECEIPT
    for path in ("/runs/none", "/runs/none/why", "/runs/none/receipt"):
        await problem(world, path, 404, "not-found")


async def test_epochs_list_settled_batches(world):
    found = await get(world, "/epochs", views.Page[views.EpochView])
    assert [(e.node, e.epoch, e.receipts) for e in found.items] == [(w.NODE.address, 0, 3)]
    one = await get(
        world, "/epochs", views.Page[views.EpochView], node=str(w.NODE.address), epoch=1
    )
    assert not one.items


async def test_blocks_follow_each_other_with_readable_transactions(world):
    first = await get(world, "/blocks", views.Page[views.BlockView], limit=4)
    rest = await get(world, "/blocks", views.Page[views.BlockView], cursor=first.cursor)
    blocks = [*first.items, *rest.items]
    assert [b.height for b in blocks] == list(range(1, world.head.height + 1))
    assert blocks[-1].state_root == world.head.state_root
    assert blocks[-1].hash == world.head.hash
    bodies = [t.body for b in blocks for t in b.transactions]
    assert bodies[-1] == {
        "kind": "settle-epoch",
        "epoch": 0,
        "receipts_root": "00" * 32,
        "receipts": 3,
        "vouchers": [],
    }
    beyond = await get(world, "/blocks", views.Page[views.BlockView], **{"from": 10**6})
    assert beyond == views.Page((), None)


async def test_what_stands_in_the_ledger_comes_with_its_proof(world):
    answer = await get(world, f"/proofs/{(b'app/shop').hex()}", ProofAnswer)
    header = read_header(bytes.fromhex(answer.header))
    value = bytes.fromhex(answer.value)
    assert (header.height, answer.network) == (world.replica.height, world.network.hex())
    assert verify_proof(header.state_root, b"app/shop", value, answer.proof())
    for key in ("xyz", "0", "00" * 257):
        await problem(world, f"/proofs/{key}", 400, "bad-request")


async def test_a_name_is_resolved(world):
    found = await get(world, "/names/docs.example", views.NameView)
    assert (found.name, found.path) == ("docs.example", f"/ipfs/{w.CODE}/docs")
    await problem(world, "/names/other.example", 404, "no-dnslink")
    await problem(world, "/names/nonsense", 400, "bad-request")


async def test_storage_tells_what_is_here(world):
    found = await get(world, f"/storage/{w.CODE}", views.ContentView)
    assert (found.bytes, found.codec) == (4, "raw")
    await problem(world, f"/storage/{CID.of(RAW, b'other')}", 404, "block-missing")
    await problem(world, "/storage/nonsense", 400, "bad-request")


async def post(world, path, body, media_type, key=None, **options):
    async with client_of(world) as client:
        headers = {"content-type": media_type}
        request = client.build_request("POST", PREFIX + path, content=body, headers=headers)
        if key is not None:
            sign(request, key, options.pop("signed_body", body), **options)
        return await client.send(request)


async def test_transactions_are_passed_on_and_refusals_are_results(world):
    bodies = [
        encode_transaction(
            sign_transaction(world.network, w.GATEWAY, nonce, Transfer(w.POOR.address, Amount(7)))
        )
        for nonce in (1, 1)
    ]
    answer = await post(
        world, "/transactions", libipld.encode_dag_cbor(bodies), "application/vnd.ipld.dag-cbor"
    )
    results = from_json(answer.content, views.TransactionResults).results
    assert results[0].height == world.head.height
    assert results[1].error.code == "bad-nonce"
    assert world.ledger.account(w.POOR.address).balance == 7


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"\x80", "application/json", 415, "unsupported-media-type"),
        (b"\xff", "application/vnd.ipld.dag-cbor", 400, "bad-transaction"),
        (b"", "application/vnd.ipld.dag-cbor", 400, "bad-transaction"),
        (b"\x01", "application/vnd.ipld.dag-cbor", 400, "bad-transaction"),
        (b"\x81\x01", "application/vnd.ipld.dag-cbor", 400, "bad-transaction"),
        (b"\x80", "application/vnd.ipld.dag-cbor", 413, "limit-exceeded"),
        (b"\x99\x01\x01" + b"\x40" * 257, "application/vnd.ipld.dag-cbor", 413, "limit-exceeded"),
        (
            b"\x81\x5a\x00\x01\x00\x01" + bytes(65537),
            "application/vnd.ipld.dag-cbor",
            400,
            "bad-transaction",
        ),
        (bytes(4 * 2**20 + 1), "application/vnd.ipld.dag-cbor", 413, "body-too-large"),
    ],
)
async def test_bodies_that_are_no_transactions_reach_no_ledger(
    world, body, media_type, status, code
):
    answer = await post(world, "/transactions", body, media_type)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code)
    assert not world.submitted


def car_of(*blocks):
    named = [(CID.of(RAW, block), block) for block in blocks]
    return b"".join(write_car([named[0][0]], named)), named[0][0]


async def upload(world, body, key=w.OWNER, media_type=content.MEDIA_TYPE, **options):
    return await post(world, "/content", body, media_type, key, **options)


async def test_an_owner_uploads_a_car(world):
    body, root = car_of(b"one", b"two" * 30_000)
    answer = await upload(world, body)
    assert from_json(answer.content, views.Uploaded) == views.Uploaded((root,), len(body))
    assert world.store.get_block(root) == b"one"
    assert world.store.pins() == [root]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"key": None}, 401, "signature-missing"),
        ({"key": w.POOR}, 402, "payment-required"),
        ({"now_s": w.NOW_MS // 1000 - 100}, 401, "clock-skew"),
        ({"now_s": w.NOW_MS // 1000 - 5}, 401, "request-replayed"),
        ({"media_type": "application/octet-stream"}, 415, "unsupported-media-type"),
        ({"signed_body": b"something else"}, 401, "signature-invalid"),
    ],
)
async def test_uploads_without_the_right_are_refused(world, change, status, code):
    body, root = car_of(b"one")
    answer = await upload(world, body, **change)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code)
    assert world.store.size(root) is None


async def test_an_upload_works_once(world):
    body, _ = car_of(b"one")
    assert (await upload(world, body)).status_code == 200
    again = await upload(world, body)
    assert again.json()["type"].endswith("request-replayed")


async def test_uploads_are_bounded_and_damaged_ones_leave_nothing(world):
    large, _ = car_of(bytes(100_001))
    answer = await upload(world, large)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (413, "body-too-large")
    body, root = car_of(b"one", b"two")
    for damaged in (b"", body[:-1], body[:-1] + b"?", body + b"\x00"):
        answer = await upload(world, damaged, nonce=f"{len(damaged):016d}{damaged[-1:].hex()}")
        assert 400 <= answer.status_code < 500, answer.text
        assert world.store.size(root) is None


async def test_a_body_without_announced_length_is_bounded_too(world):
    body, _ = car_of(bytes(100_001))

    async def parts():
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    async with client_of(world) as client:
        request = client.build_request(
            "POST",
            PREFIX + "/content",
            content=parts(),
            headers={"content-type": content.MEDIA_TYPE},
        )
        answer = await client.send(sign(request, w.OWNER, body))
    assert answer.json()["type"].endswith("body-too-large")


async def test_only_so_many_uploads_run_at_a_time(world):
    body, _ = car_of(b"one")
    headers = {"content-type": content.MEDIA_TYPE}
    request = sign(
        httpx.Request("POST", "http://g/c", content=body, headers=headers), w.OWNER, body
    )
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/c",
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    with pytest.raises(BusyError, match="0 in all"):
        await content.Uploads(uploads_max=0).receive(world, Request(scope))


async def test_a_request_that_was_signed_for_another_gateway_is_refused(world):
    body, root = car_of(b"one")
    world.hosts = frozenset({"other.test"})
    answer = await upload(world, body)
    assert answer.json()["type"].endswith("signature-invalid")
    assert "gateway.test" in answer.json()["detail"]
    assert world.store.size(root) is None


async def test_one_account_cannot_take_all_uploads():
    uploads = content.Uploads(uploads_max=3, uploads_per_account_max=2)
    with uploads._slot(w.OWNER.address), uploads._slot(w.OWNER.address):
        with pytest.raises(BusyError, match="2 of your uploads"), uploads._slot(w.OWNER.address):
            pass
        with uploads._slot(w.NODE.address):
            pass
    assert not uploads._running


async def logs(world, key, **options):
    async with client_of(world) as client:
        request = client.build_request("GET", PREFIX + "/apps/shop/logs", params={"follow": "1"})
        return await client.send(sign(request, key, **options))


async def test_logs_are_for_the_owner_only(world):
    answer = await logs(world, w.OWNER)
    assert from_json(answer.content.splitlines()[0], views.LogLine).text == "hi"
    stranger = await logs(world, w.GATEWAY)
    assert stranger.status_code == 403
    await problem(world, "/apps/shop/logs", 401, "signature-missing")


async def test_unknown_paths_and_methods_are_problems(world):
    await problem(world, "/nothing", 404, "no-such-route")
    async with client_of(world) as client:
        answer = await client.delete(PREFIX + "/status")
    assert (answer.status_code, answer.json()["type"]) == (
        405,
        "urn:lichen:problem:method-not-allowed",
    )
    assert "GET" in answer.headers["allow"]


async def test_other_sites_may_read_but_not_write(world):
    async with client_of(world) as client:
        answer = await client.options(PREFIX + "/content")
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"


async def test_what_nobody_expected_is_a_problem_without_inner_words(world, monkeypatch):
    def broken(*_):
        raise RuntimeError("inner secret")

    monkeypatch.setattr(world.runs, "get", broken)
    answer = await get(world, f"/runs/{world.run}", status=500)
    assert answer.json()["type"] == "urn:lichen:problem:machine"
    assert "secret" not in answer.text


async def test_events_reach_every_listener_in_order():
    hub = EventHub()
    listeners = [hub.listen(), hub.listen()]
    for number in range(3):
        hub.publish(Event("block", number, {}))
    for listener in listeners:
        assert [(await listener.next()).time_ms for _ in range(3)] == [0, 1, 2]


async def test_a_slow_listener_is_told_what_it_missed_and_costs_no_memory():
    hub = EventHub(queue_max=4)
    listener = hub.listen()
    for number in range(100):
        hub.publish(Event("block", number, {}))
    first = await listener.next()
    seen = [first]
    while seen[-1].time_ms < 99:
        seen.append(await listener.next())
    assert first.kind == "missed"
    assert len(seen) <= 5


async def test_listeners_are_bounded_and_silence_is_a_heartbeat():
    hub = EventHub(listeners_max=1)
    listener = hub.listen()
    with pytest.raises(Exception, match="1 listeners"):
        hub.listen()
    assert await listener.next(heartbeat_s=0.001) is None
    listener.close()
    assert hub.listeners == 0
    hub.listen()
    assert hub.listeners == 0  # nobody holds it: it is gone


async def test_events_stream_as_server_sent_events_until_the_gateway_closes(world):
    """The test client reads whole bodies, so the application is driven by hand."""
    sent = []
    started = anyio.Event()

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        sent.append(message)
        if message.get("body"):
            started.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "scheme": "http",
        "path": PREFIX + "/events",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "http_version": "1.1",
    }
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(world.api, scope, receive, send)
            await started.wait()
            world.events.publish(Event("block", 5, {"height": 1}))
            world.events.close()
    text = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] == 200
    assert text.startswith(b": still here\n\n")
    assert b'event: block\ndata: {"kind":"block","time_ms":5,"data":{"height":1}}\n\n' in text
    assert world.events.listeners == 0


async def test_blocks_and_releases_are_events(world):
    listener = world.events.listen()
    world.do(w.OWNER, w.PublishRelease("shop", None, (w.function(),), None))
    block, release = [await listener.next() for _ in range(2)]
    assert (block.kind, block.data) == ("block", {"height": world.head.height, "transactions": 1})
    assert (release.kind, release.data) == ("release", {"app": "shop", "number": 3})


async def test_the_index_behind_a_car_of_version_2_is_covered_by_the_signature_too(world):
    inner, root = car_of(b"one")
    header = bytes(16) + (51).to_bytes(8, "little") + len(inner).to_bytes(8, "little") + bytes(8)
    whole = bytes.fromhex("0aa16776657273696f6e02") + header + inner + b"an index"
    answer = await upload(world, whole[:-1] + b"?", signed_body=whole)
    assert answer.json()["type"].endswith("signature-invalid")
    answer = await upload(world, whole, nonce="another-nonce-here")
    assert from_json(answer.content, views.Uploaded).roots == (root,)


async def test_few_runs_are_told_one_by_one_and_many_in_sum(world):
    record = world.runs.get(world.run)
    listener = world.events.listen()
    publish_runs(world.events, [record])
    event = await listener.next()
    assert (event.kind, event.data["run"], event.data["node"]) == (
        "run",
        world.run,
        str(w.NODE.address),
    )
    publish_runs(world.events, [record] * 1000)
    summary = await listener.next()
    assert (summary.kind, summary.data) == (
        "runs",
        {"runs": 1000, "failed": 0, "told": RUNS_TOLD_MAX},
    )
    told = [await listener.next() for _ in range(RUNS_TOLD_MAX)]
    assert {event.kind for event in told} == {"run"}


async def test_nodes_of_runs_are_spelled_as_everywhere(world):
    second, third = world.runs.next_run(), world.runs.next_run()
    world.runs.add(
        msgspec.structs.replace(
            world.runs.get(world.run), run=second, node=f"0x{w.NODE.address.hex()}"
        )
    )
    assert (await get(world, f"/runs/{second}", views.RunView)).node == str(w.NODE.address)
    world.runs.add(
        msgspec.structs.replace(
            world.runs.get(world.run),
            run=third,
            node="",
            status=503,
            error="no node",
            attempts=(),
            amount=-1,
        )
    )
    why = await get(world, f"/runs/{third}/why", views.Why)
    assert why.run.node == ""
    assert why.run.amount is None
    assert "It failed: no node." in why.story


async def test_a_quiet_log_shows_that_it_is_alive(monkeypatch):
    monkeypatch.setattr(apps, "HEARTBEAT_S", 0.001)
    hub, wake = EventHub(), asyncio.Event()

    async def lines():
        await wake.wait()
        yield b"{}"

    stream = apps._stream(hub, lines())
    assert await anext(stream) == b"\n"
    wake.set()
    rest = [line async for line in stream]
    assert rest[-1] == b"{}\n"
    assert set(rest[:-1]) <= {b"\n"}


async def test_a_log_that_breaks_off_breaks_its_answer_off():
    async def lines():
        yield b"{}"
        raise PeerError("the node is gone")

    stream = apps._stream(EventHub(), lines())
    assert await anext(stream) == b"{}\n"
    with pytest.raises(PeerError, match="gone"):
        await anext(stream)


async def test_a_reader_that_leaves_a_full_log_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(apps, "QUEUE_LINES_MAX", 2)
    ended = asyncio.Event()

    async def lines():
        try:
            while True:
                yield b"{}"
        finally:
            ended.set()

    stream = apps._stream(EventHub(), lines())
    await anext(stream)
    await stream.aclose()
    await asyncio.wait_for(ended.wait(), 5)
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "api-logs"]
    assert all(task.cancelled() or task.done() or task.cancelling() for task in tasks)


async def test_following_a_log_ends_when_the_gateway_closes(world):
    """Lines that never end, driven by hand as above."""
    world.follow_forever = True
    sent, first = [], anyio.Event()

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        sent.append(message)
        if message.get("body"):
            first.set()

    request = httpx.Request("GET", f"http://g{PREFIX}/apps/shop/logs?follow=1")
    sign(request, w.OWNER)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.path.encode(),
        "query_string": b"follow=1",
        "root_path": "",
        "http_version": "1.1",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(world.api, scope, receive, send)
            await first.wait()
            world.events.close()
    assert sent[-1].get("more_body") is False
    assert world.log_ended


segments = st.text(min_size=1, max_size=40).filter(lambda text: text not in (".", ".."))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    entry=st.sampled_from(GETS),
    values=st.lists(segments, min_size=2, max_size=2),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "before", "owner", "from", "node", "epoch", "verify"]),
        st.text(max_size=30) | st.integers(0, 2**70).map(str),
        max_size=4,
    ),
)
def test_no_request_is_answered_by_a_failure_of_the_gateway(world, entry, values, query):
    waiting = [quote(value, safe="") for value in values]
    path = re.sub(r"\{[a-z]+\}", lambda _: waiting.pop(), entry.path)

    async def ask():
        async with client_of(world) as client:
            return await client.get(PREFIX + path, params=query)

    answer = asyncio.run(ask())
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
