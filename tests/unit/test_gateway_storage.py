"""Uploads in parts, pins and quotas of accounts, as the API offers them."""

import asyncio
import os
import secrets

import httpx
import libipld
import pytest

from lichen.content import V1_2025, import_bytes, import_directory, read_file, write_car
from lichen.content.cid import CID, IDENTITY, RAW
from lichen.encoding import from_json
from lichen.gateway.api import content, storage, views
from lichen.gateway.api.app import PREFIX
from lichen.identity.http_signature import RequestHead, body_digest, sign_request
from lichen.ledger.transactions import CreateApp, PublishRelease, Transfer
from lichen.units import FLK, Amount
from lichen.wire.errors import BusyError
from tests.unit import gateway_api_world as w

ALICE, BOB = w.OWNER, w.NODE
DAY_MS = 86_400_000


@pytest.fixture
def world(tmp_path):
    world = w.World(tmp_path)
    yield world
    world.store.close()
    world.runs.close()


async def ask(world, method, path, key=ALICE, body=b"", media_type="", **query):
    transport = httpx.ASGITransport(app=world.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        request = client.build_request(
            method,
            PREFIX + path,
            content=body or None,
            params=query,
            headers={"content-type": media_type} if media_type else {},
        )
        head = RequestHead(
            method=method,
            scheme="http",
            authority="gateway.test",
            path=request.url.raw_path.split(b"?")[0].decode(),
            query=request.url.query.decode(),
            headers=tuple(request.headers.items()),
        )
        request.headers.update(
            sign_request(
                key,
                head,
                created_s=world.now_ms() // 1000,
                nonce=secrets.token_hex(16),
                body_sha256=body_digest(body),
            )
        )
        return await client.send(request)


def refusal(answer):
    problem = answer.json()
    assert problem["hint"]
    return answer.status_code, problem["type"].rpartition(":")[2]


def folder_of(**files):
    """The blocks of a folder, parents before children, and its root."""
    blocks = {}
    links = [import_bytes(data, V1_2025, blocks.__setitem__).link(n) for n, data in files.items()]
    root = import_directory(links, V1_2025, blocks.__setitem__).cid
    return dict(reversed(blocks.items())), root


async def upload(world, roots, blocks, key=ALICE, **query):
    car = b"".join(write_car(roots, blocks.items()))
    return await ask(world, "POST", "/content", key, car, content.MEDIA_TYPE, **query)


async def pin(world, cid, key=ALICE, **query):
    return await ask(world, "POST", f"/storage/{cid}/pin", key, **query)


async def unpin(world, cid, key=ALICE):
    return await ask(world, "DELETE", f"/storage/{cid}/pin", key)


async def pins(world, key=ALICE, **query):
    answer = await ask(world, "GET", "/storage", key, **query)
    return from_json(answer.content, views.PinPage)


def weight(blocks):
    return sum(map(len, blocks.values())) + 64 * len(blocks)


async def test_an_upload_is_pinned_under_its_account_and_weighs_what_it_has(world):
    blocks, root = folder_of(a=b"a" * 3000, b=b"b" * 5000)
    assert (await upload(world, [root], blocks)).status_code == 200
    page = await pins(world)
    assert [(p.cid, p.bytes, p.expires_ms) for p in page.items] == [(root, weight(blocks), None)]
    assert (page.pinned_bytes, page.pinned_bytes_max) == (weight(blocks), world.account_bytes_max)
    assert (await pins(world, BOB)).items == ()
    shown = await ask(world, "GET", f"/storage/{root}")
    assert from_json(shown.content, views.ContentView).pinned
    leaf = next(cid for cid in blocks if cid.codec == RAW)
    assert not from_json(
        (await ask(world, "GET", f"/storage/{leaf}")).content, views.ContentView
    ).pinned


async def test_one_account_cannot_let_go_of_anothers_pin(world):
    blocks, root = folder_of(a=b"a" * 3000)
    await upload(world, [root], blocks)
    assert refusal(await unpin(world, root, BOB)) == (404, "not-found")
    assert (await pin(world, root, BOB)).status_code == 200
    assert (await unpin(world, root, ALICE)).status_code == 200
    assert refusal(await unpin(world, root, ALICE)) == (404, "not-found")
    world.store.collect()
    assert all(world.store.has(cid) for cid in blocks)  # BOB's pin holds
    assert (await unpin(world, root, BOB)).status_code == 200
    world.store.collect()
    assert not any(world.store.has(cid) for cid in blocks)


async def test_nothing_is_read_past_an_accounts_quota(world):
    world.account_bytes_max = 20_000
    first, root = folder_of(a=b"a" * 12_000)
    assert (await upload(world, [root], first)).status_code == 200
    second, other = folder_of(b=b"b" * 12_000)
    assert refusal(await upload(world, [other], second)) == (413, "quota-exceeded")
    assert not any(world.store.has(cid) for cid in second)
    assert refusal(await upload(world, [other], second, part=1)) == (413, "quota-exceeded")
    assert (await upload(world, [root], first)).status_code == 200  # again: it weighs once
    assert (await upload(world, [other], second, BOB)).status_code == 200
    assert (await unpin(world, root)).status_code == 200
    assert (await upload(world, [other], second)).status_code == 200


async def test_an_upload_that_is_announced_far_above_the_quota_is_not_begun(world):
    world.upload_bytes_max = 1 << 30
    world.account_bytes_max = 1000
    blocks, root = folder_of(a=os.urandom(8_000_000))
    taken = []
    car = b"".join(write_car([root], blocks.items()))

    async def parts():
        for start in range(0, len(car), 50_000):
            taken.append(start)
            yield car[start : start + 50_000]

    transport = httpx.ASGITransport(app=world.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        headers = {"content-type": content.MEDIA_TYPE, "content-length": str(len(car))}
        request = client.build_request(
            "POST", PREFIX + "/content", content=parts(), headers=headers
        )
        head = RequestHead("POST", "http", "gateway.test", PREFIX + "/content")
        request.headers.update(
            sign_request(
                ALICE, head, created_s=world.now_ms() // 1000, nonce="n" * 16,
                body_sha256=body_digest(car),
            )
        )  # fmt: skip
        assert refusal(await client.send(request)) == (413, "quota-exceeded")
    assert len(taken) * 50_000 < 3 * content.HAND_OVER_BYTES < len(car) // 2


async def test_many_tiny_blocks_weigh_what_keeping_them_takes(world):
    world.account_bytes_max = 64 * 100
    blocks, root = folder_of(**{f"{n}": b"%d" % n for n in range(200)})
    assert refusal(await upload(world, [root], blocks)) == (413, "quota-exceeded")


async def test_what_is_missing_is_told_and_only_that_has_to_come(world):
    blocks, root = folder_of(a=b"a" * 3000, b=b"b" * 5000)
    names = list(blocks)
    half = dict(list(blocks.items())[:2])
    assert (await upload(world, [root], half, part=1)).status_code == 200
    body = bytes(libipld.encode_dag_cbor([cid.encode() for cid in names]))
    answer = await ask(world, "POST", "/content/missing", body=body, media_type=storage.CIDS_MEDIA_TYPE)  # fmt: skip
    missing = from_json(answer.content, views.Missing).cids
    assert missing == tuple(names[2:])
    told = from_json((await pin(world, root, fetch=0)).content, views.PinView)
    assert told.missing == missing
    assert [p.expires_ms for p in (await pins(world)).items] == [w.NOW_MS + DAY_MS]
    rest = {cid: blocks[cid] for cid in missing}
    assert (await upload(world, [root], rest, part=1)).status_code == 200
    pinned = from_json((await pin(world, root, fetch=0)).content, views.PinView)
    assert (pinned.missing, pinned.bytes, pinned.expires_ms) == ((), weight(blocks), None)
    assert (await pins(world)).pinned_bytes == weight(blocks)


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"\xff", storage.CIDS_MEDIA_TYPE, 400, "bad-parameter"),
        (b"\xa0", storage.CIDS_MEDIA_TYPE, 400, "bad-parameter"),
        (b"\x81A\x00", storage.CIDS_MEDIA_TYPE, 400, "bad-request"),
        (b"\x80", "text/plain", 415, "unsupported-media-type"),
        (bytes(storage.CIDS_BYTES_MAX + 1), storage.CIDS_MEDIA_TYPE, 413, "body-too-large"),
    ],
)
async def test_a_malformed_question_for_what_is_missing_is_refused(
    world, body, media_type, status, code
):
    answer = await ask(world, "POST", "/content/missing", body=body, media_type=media_type)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code)


async def test_parts_of_an_upload_stay_while_it_goes_on_and_end_by_themselves(world):
    blocks, root = folder_of(a=b"a" * 3000, b=b"b" * 5000)
    half = dict(list(blocks.items())[:2])
    await upload(world, [root], half, part=1)
    world.store.collect()
    assert all(world.store.has(cid) for cid in half)
    assert world.store.drop_expired(w.NOW_MS + DAY_MS - 1) == 0
    assert world.store.drop_expired(w.NOW_MS + DAY_MS) == 1
    world.store.collect()
    assert not any(world.store.has(cid) for cid in half)
    assert (await pins(world)).pinned_bytes == 0


async def test_a_lease_weighs_what_others_brought_and_is_not_prolonged(world):
    blocks, root = folder_of(a=b"a" * 3000, b=b"b" * 5000)
    await upload(world, [root], blocks, BOB)
    first = dict(list(blocks.items())[:1])
    await upload(world, [root], first, part=1)
    (lease,) = (await pins(world)).items
    assert lease.bytes >= weight(blocks)
    world.clock_ms += 1000
    await upload(world, [root], first, part=1)
    assert (await pins(world)).items == (lease,)


async def test_a_car_that_lacks_blocks_is_kept_for_a_day(world):
    blocks, root = folder_of(a=b"a" * 3000, b=b"b" * 5000)
    blocks.popitem()
    answer = from_json((await upload(world, [root], blocks)).content, views.Uploaded)
    assert answer.incomplete == (root,)
    assert [p.expires_ms for p in (await pins(world)).items] == [w.NOW_MS + DAY_MS]


async def test_a_file_that_came_in_parts_is_one_flat_file_once_it_is_pinned(world):
    data = b"".join(bytes([n]) * 100_000 for n in range(7))
    world.account_bytes_max = world.upload_bytes_max = 1 << 22
    for profile in (V1_2025, w.SMALL_CHUNKS, w.SMALL_WRAPPED_CHUNKS):
        blocks = {}
        file = import_bytes(data, profile, blocks.__setitem__)
        root = import_directory([file.link("f")], V1_2025, blocks.__setitem__).cid
        for block in reversed(blocks.items()):
            assert (await upload(world, [root], dict([block]), part=1)).status_code == 200
        answer = await pin(world, root, fetch=0)
        assert from_json(answer.content, views.PinView).missing == ()
        flat = world.store.flat_file(file.cid)
        assert flat.pread(flat.size) == data
        assert b"".join(map(bytes, read_file(world.store, file.cid))) == data
        assert all(world.store.get_block(cid) == block for cid, block in blocks.items())
        assert len(world.store._index.files()) == 1  # its leaves are in it, not beside it
        assert world.store.usage_bytes < len(data) + 1000
        assert (await unpin(world, root)).status_code == 200
        world.store.collect()
        assert world.store.usage_bytes == 0


async def test_what_is_not_here_is_fetched_to_be_pinned(world):
    blocks, root = folder_of(a=b"a" * 3000)
    world.network_blocks = blocks
    pinned = from_json((await pin(world, root)).content, views.PinView)
    assert pinned.bytes == weight(blocks)
    world.store.collect()
    assert all(world.store.has(cid) for cid in blocks)


async def test_many_pins_at_a_time_wait_for_each_other_and_too_many_are_told_so(world, monkeypatch):
    folders = [folder_of(a=b"%d" % number) for number in range(6)]
    for blocks, _ in folders:
        world.store.put_blocks(blocks.items())
    answers = await asyncio.gather(*(pin(world, root) for _, root in folders))
    assert {answer.status_code for answer in answers} == {200}
    monkeypatch.setattr(storage, "_signed_without_body", _signed)
    asked = Named({"cid": str(folders[0][1])})
    with pytest.raises(BusyError):
        await storage.Pinning(waiting_max=0).pin(world, asked)


async def _signed(_context, _request):
    return Named({}, ALICE)


class Named:
    """As much of a request, or of its signature, as the question for room needs."""

    def __init__(self, path_params, key=None):
        self.path_params, self.query_params = path_params, {}
        self.key = None if key is None else key.public


async def test_a_dag_heavier_than_the_quota_is_not_pinned(world):
    blocks, root = folder_of(a=b"a" * 30_000)
    world.store.put_blocks(blocks.items())
    world.account_bytes_max = 20_000
    assert refusal(await pin(world, root)) == (413, "quota-exceeded")
    assert (await pins(world)).items == ()


async def test_what_an_active_release_is_made_of_is_not_let_go_of(world):
    blocks, root = folder_of(a=b"a" * 3000)
    await upload(world, [root], blocks)
    world.do(ALICE, CreateApp("shop", ""))
    world.do(ALICE, PublishRelease("shop", root, (), None))
    assert refusal(await unpin(world, root)) == (409, "content-needed")
    assert (await pin(world, root, BOB)).status_code == 200
    assert (await unpin(world, root, BOB)).status_code == 200  # it is not BOB's app
    world.do(ALICE, PublishRelease("shop", CID.of(RAW, b"other"), (), None))
    assert (await unpin(world, root)).status_code == 200


async def test_pins_are_listed_in_pages(world):
    roots = []
    for number in range(5):
        blocks, root = folder_of(a=b"%d" % number)
        await upload(world, [root], blocks)
        roots.append(root)
    first = await pins(world, limit=3)
    rest = await pins(world, limit=3, cursor=first.cursor)
    assert {p.cid for p in (*first.items, *rest.items)} == set(roots)
    assert (len(first.items), len(rest.items), rest.cursor) == (3, 2, None)


async def test_an_identity_cid_is_not_pinned(world):
    cid = CID(RAW, b"tiny", IDENTITY)
    assert refusal(await pin(world, cid)) == (400, "bad-request")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/storage/{}/pin"), ("DELETE", "/storage/{}/pin"), ("GET", "/storage")],
)
async def test_pins_are_for_accounts_that_hold_flk(world, method, path):
    assert refusal(await ask(world, method, path.format(w.CODE), w.POOR)) == (
        402,
        "payment-required",
    )
    world.do(ALICE, Transfer(w.POOR.address, Amount(FLK)))
    answer = await ask(world, method, path.format(w.CODE), w.POOR)
    assert answer.status_code in {200, 404}
