"""What is not here comes from elsewhere, whatever those elsewhere do: routers, providers, a Kubo."""

import asyncio
import contextlib
import io
import itertools
import os
import ssl

import pytest

from lichen.cdn.retrieval import origins, routers
from lichen.cdn.retrieval.ahead import NODES_MAX, SLOTS, WINDOW_MAX
from lichen.cdn.retrieval.fetch import Outside
from lichen.content import CID, RAW, CarReader, Link, import_directory
from lichen.content.ipns import Name, create_record
from lichen.content.libp2p_key import public_key
from lichen.content.profile import V1_2025
from lichen.errors import LichenError, UserError
from lichen.identity import KeyKind, PrivateKey
from tests.integration.retrieval_world import (
    NOT_FOUND,
    blocks_of,
    provider_of,
    record,
    response,
    routing,
    serving,
    stranger,
)
from tests.interop.world import make_certificate

DATA = os.urandom(1_050_000)  # eleven leaves and a root


async def test_what_a_router_names_is_fetched_kept_and_looked_up_once(tmp_path):
    root, blocks = blocks_of(DATA)
    async with (
        stranger(provider_of(blocks)) as provider,
        stranger(lambda _: routing(record(provider.url))) as router,
        serving(tmp_path / "here", outside=Outside((router.url,))) as here,
    ):
        for _ in range(2):
            answer = await here.get(f"/ipfs/{root}")
            assert (answer.status_code, answer.content) == (200, DATA)
        assert len(router.heads) == 1
        assert router.paths[0].startswith(f"/routing/v1/providers/{root}?")
        assert len(provider.heads) == len(blocks)
        assert all("only-if-cached" in head for head in provider.heads)
        assert here.fetcher.counts["provider"] == len(blocks)


async def test_a_local_hit_never_touches_routing_or_anybody_else(tmp_path):
    async with stranger(lambda _: NOT_FOUND) as anybody:
        outside = Outside((anybody.url,), anybody.url)
        async with serving(tmp_path / "here", [anybody.url], outside) as here:
            small, large = here.put(b"small"), here.put(os.urandom(3_000_000))
            for path in (small, large, f"{large}?format=raw", f"{large}?format=car", "bafkqaaa"):
                assert (await here.get(f"/ipfs/{path}")).status_code == 200
            part = await here.get(f"/ipfs/{large}", headers={"range": "bytes=5-2000000"})
            assert part.status_code == 206
        assert anybody.connections == 0


async def test_what_is_not_in_the_network_is_looked_for_in_order_and_remembered(tmp_path):
    missing = CID.of(RAW, b"nobody has this")
    async with (
        stranger(lambda _: NOT_FOUND) as node,
        stranger(lambda _: routing()) as router,
        stranger(lambda _: NOT_FOUND) as kubo,
        serving(tmp_path / "here", [node.url], Outside((router.url,), kubo.url)) as here,
    ):
        for _ in range(3):
            assert (await here.get(f"/ipfs/{missing}")).status_code == 404
        assert [len(asked.heads) for asked in (node, router, kubo)] == [1, 1, 1]
        assert "only-if-cached" not in kubo.heads[0]  # it may search its own network


async def test_who_asks_for_a_block_finds_other_sources_himself(tmp_path):
    missing = CID.of(RAW, b"nobody has this")
    async with (
        stranger(lambda _: routing()) as router,
        serving(
            tmp_path / "here", ["http://127.0.0.1:1"], Outside((router.url,), router.url)
        ) as here,
    ):
        for query, accept in (("?format=raw", "*/*"), ("", "application/vnd.ipld.raw")):
            answer = await here.get(f"/ipfs/{missing}{query}", headers={"accept": accept})
            assert answer.status_code == 404  # no 5xx: the node cannot be reached
        assert router.connections == 0


ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"
GARBAGE = [b"{", b"[]", b'{"Schema":"peer","Addrs":7}', b"\xff", record("http://h.example:1")[:-1]]


@pytest.mark.parametrize(
    "lie",
    [
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        response(b"<html>", "text/html"),
        response(b'{"Providers": 5}', "application/json"),
        routing(*GARBAGE),
        response(b"x" * (2 << 20), "application/x-ndjson"),
        None,
    ],
)
async def test_a_router_that_lies_or_is_silent_does_no_harm(tmp_path, monkeypatch, lie):
    monkeypatch.setattr(routers, "LOOKUP_S_MAX", 0.5)
    root, blocks = blocks_of(DATA)
    async with (
        stranger(provider_of(blocks)) as provider,
        stranger(lambda _: lie) as liar,
        stranger(lambda _: routing(record(provider.url))) as honest,
        serving(tmp_path / "here", outside=Outside((liar.url, honest.url))) as here,
    ):
        assert (await here.get(f"/ipfs/{root}")).content == DATA


async def test_a_router_that_never_ends_is_left_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr(routers, "LOOKUP_S_MAX", 1.0)
    root, blocks = blocks_of(DATA)
    async with (
        stranger(provider_of(blocks)) as provider,
        stranger(lambda _: itertools.chain([ENDLESS, record(provider.url) + b"\n"],
                                           itertools.repeat(b"{}\n" * 1000))) as endless,
        serving(tmp_path / "here", outside=Outside((endless.url,))) as here,
    ):  # fmt: skip
        assert (await here.get(f"/ipfs/{root}")).content == DATA


async def test_a_router_cannot_send_us_to_private_addresses(tmp_path):
    root, blocks = blocks_of(DATA)
    async with stranger(provider_of(blocks)) as secret:
        port = secret.url.rpartition(":")[2]
        urls = [secret.url, f"http://localhost:{port}", f"http://[::ffff:127.0.0.1]:{port}"]
        async with (
            stranger(lambda _: routing(record(*urls))) as router,
            serving(tmp_path / "here", outside=Outside((router.url,)), private_peers=False) as here,
        ):
            assert (await here.get(f"/ipfs/{root}")).status_code == 503
            assert len(router.heads) == 1
        assert secret.connections == 0


async def test_a_provider_of_wrong_bytes_is_counted_and_not_asked_again(tmp_path):
    root, blocks = blocks_of(DATA)
    wrong = response(b"not what was asked for")
    async with (
        stranger(lambda _: wrong) as liar,
        stranger(provider_of(blocks)) as provider,
        stranger(lambda _: routing(record(liar.url), record(provider.url))) as router,
        serving(tmp_path / "here", outside=Outside((router.url,))) as here,
    ):
        assert (await here.get(f"/ipfs/{root}")).content == DATA
        assert len(liar.heads) == here.fetcher.counts["wrong"] == 1


def endless_block():
    return itertools.chain(
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"],
        itertools.repeat(b"10000\r\n" + bytes(65536) + b"\r\n"),
    )


@pytest.mark.parametrize(
    "bad",
    [
        endless_block,
        lambda: response(bytes(5 << 20)),
        lambda: b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\n",
        lambda: itertools.repeat(b"HTTP/1.1 200 OK\r\nx: y\r\n"),
        lambda: response(b"short")[:-2],
        lambda: None,
    ],
)
async def test_a_provider_of_endless_or_broken_answers_is_passed_over(tmp_path, bad):
    root, blocks = blocks_of(DATA)
    async with (
        stranger(lambda _: bad()) as broken,
        stranger(provider_of(blocks)) as provider,
        stranger(lambda _: routing(record(broken.url), record(provider.url))) as router,
        serving(tmp_path / "here", outside=Outside((router.url,))) as here,
    ):
        assert (await here.get(f"/ipfs/{root}")).content == DATA
        assert len(broken.heads) <= 2


@pytest.mark.parametrize("status", ["429 Slow Down", "503 Later"])
async def test_who_asks_for_rest_is_left_alone(tmp_path, status):
    busy_answer = response(b"", "text/plain", status, "retry-after: 60")
    async with (
        stranger(lambda _: busy_answer) as busy,
        serving(tmp_path / "here", [busy.url]) as here,
    ):
        for number in range(5):
            cid = CID.of(RAW, b"%d" % number)
            answer = await here.get(f"/ipfs/{cid}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert len(busy.heads) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Elsewhere", "308 Moved"])
async def test_redirects_are_not_followed(tmp_path, status):
    cid = CID.of(RAW, b"behind the redirect")
    async with stranger(lambda _: response(b"behind the redirect")) as secret:
        moved = response(b"", "text/plain", status, f"location: {secret.url}/ipfs/{cid}?format=raw")
        async with (
            stranger(lambda _: moved) as provider,
            stranger(
                lambda path: moved if "loop" in path else routing(record(provider.url))
            ) as router,
            serving(tmp_path / "here", outside=Outside((router.url,))) as here,
        ):
            assert (await here.get(f"/ipfs/{cid}")).status_code == 404
            assert (len(provider.heads), len(router.heads)) == (1, 1)
        assert secret.connections == 0


async def test_reading_in_order_has_many_blocks_under_way(tmp_path):
    data = os.urandom(6_000_000)
    root, blocks = blocks_of(data)

    async def answer(path):
        await asyncio.sleep(0.02)
        return blocks.get(path, NOT_FOUND)

    async with stranger(answer) as node, serving(tmp_path / "here", [node.url]) as here:
        assert (await here.get(f"/ipfs/{root}")).content == data
        assert len(node.heads) == len(blocks)
        assert 8 <= node.most <= WINDOW_MAX + NODES_MAX + 1


async def test_a_folder_is_fetched_ahead_across_its_shards(tmp_path):
    blocks = {}
    leaves = [Link(CID.of(RAW, b"%d" % n), f"entry-{n:04}-{'n' * 80}", 4) for n in range(2000)]
    root = import_directory(leaves, V1_2025, blocks.setdefault).cid
    blocks |= {CID.of(RAW, b"%d" % n): b"%d" % n for n in range(2000)}
    by_path = {f"/ipfs/{cid}?format=raw": response(block) for cid, block in blocks.items()}

    async def answer(path):
        await asyncio.sleep(0.005)
        return by_path.get(path, NOT_FOUND)

    async with stranger(answer) as node, serving(tmp_path / "here", [node.url]) as here:
        car = await here.get(f"/ipfs/{root}?format=car")
        assert {cid for cid, _ in CarReader(io.BytesIO(car.content))} == set(blocks)
        assert len(node.heads) < len(blocks) * 1.1  # little is fetched twice, nothing in vain
        assert node.most >= 16


async def test_a_reader_that_leaves_frees_what_was_fetched_ahead(tmp_path):
    root, blocks = blocks_of(os.urandom(20_000_000))
    async with (
        stranger(provider_of(blocks)) as node,
        serving(tmp_path / "here", [node.url]) as here,
    ):
        async with here.client.stream("GET", f"/ipfs/{root}") as answer:
            await anext(answer.aiter_bytes())
        slots = here.delivery._bridge._slots
        async with asyncio.timeout(20):
            while slots.free < SLOTS:  # noqa: ASYNC110 - nobody tells when they are free
                await asyncio.sleep(0.01)
        assert len(node.heads) < len(blocks)


async def test_waiting_for_the_network_keeps_nobody_from_what_is_here(tmp_path):
    ended = asyncio.Event()

    async def answer(_):
        await ended.wait()
        return NOT_FOUND

    async with stranger(answer) as silent, serving(tmp_path / "here", [silent.url]) as here:
        stored = here.put(os.urandom(3_000_000))
        missing = [CID.of(RAW, b"%d" % number) for number in range(40)]
        waiting = [asyncio.ensure_future(here.get(f"/ipfs/{cid}")) for cid in missing]
        async with asyncio.timeout(20):
            while silent.connections < 16:  # noqa: ASYNC110 - until many wait
                await asyncio.sleep(0.01)
            for _ in range(5):
                assert (await here.get(f"/ipfs/{stored}?format=car")).status_code == 200
        assert not any(task.done() for task in waiting)
        ended.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {404}


async def test_https_providers_count_only_with_a_certificate_that_holds(tmp_path, monkeypatch):
    certificate, key = make_certificate(tmp_path)
    root, blocks = blocks_of(DATA)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with stranger(provider_of(blocks)) as provider:
        server = await asyncio.start_server(provider.handle, "127.0.0.1", 0, ssl=tls)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, stranger(lambda _: routing(record(url))) as router:
            origins._tls.cache_clear()
            async with serving(tmp_path / "strict", outside=Outside((router.url,))) as strict:
                assert (await strict.get(f"/ipfs/{root}")).status_code == 503
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            origins._tls.cache_clear()
            async with serving(tmp_path / "trusting", outside=Outside((router.url,))) as trusting:
                assert (await trusting.get(f"/ipfs/{root}")).content == DATA
            origins._tls.cache_clear()


async def test_two_gateways_that_route_for_each_other_do_not_ask_in_circles(tmp_path):
    missing = CID.of(RAW, b"nobody has this")
    async with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        for server, other in ((one, two), (two, one)):
            server.fetcher.routers = routers.Routers(
                [other.url], server.fetcher.origins, server.fetcher.health, private_providers=True
            )
        async with asyncio.timeout(20):
            assert (await one.get(f"/ipfs/{missing}")).status_code == 404
        assert len(one.asked) == len(two.asked) == 1


# --- names ---------------------------------------------------------------------------------------

HOUR_NS = 3600 * 10**9


def make_record(key, sequence, now_ns):
    made = create_record(
        key, "/ipfs/bafkqaaa", sequence=sequence, eol_ns=now_ns + HOUR_NS, ttl_ns=0
    )
    return response(made.encoded, "application/vnd.ipfs.ipns-record"), made.encoded


async def test_the_newest_valid_record_of_all_routers_counts(tmp_path):
    key, other = PrivateKey.generate(KeyKind.ED25519), PrivateKey.generate(KeyKind.ED25519)
    name, now_ns = Name.of(public_key(key)), 1_800_000_000 * 10**9
    old, new, wrong = (
        make_record(*made)[0] for made in ((key, 1, now_ns), (key, 2, now_ns), (other, 9, now_ns))
    )
    plain = response(b"no record found", "text/plain")
    async with contextlib.AsyncExitStack() as stack:
        urls = [
            (await stack.enter_async_context(stranger(lambda _, said=said: said))).url
            for said in (old, new, wrong, plain, NOT_FOUND)
        ]
        here = await stack.enter_async_context(
            serving(tmp_path / "here", outside=Outside(tuple(urls)))
        )
        assert await here.fetcher.routers.find_record(name) == make_record(key, 2, now_ns)[1]
        assert await here.fetcher.routers.find_record(Name.of(public_key(other))) is not None


async def test_no_router_is_no_record(tmp_path):
    name = Name.of(public_key(PrivateKey.generate(KeyKind.ED25519)))
    async with serving(tmp_path / "here") as here:
        assert await here.fetcher.routers.find_record(name) is None


@pytest.mark.parametrize(
    "outside", [Outside(("ftp://x",)), Outside((), "nonsense"), Outside(("https://h",) * 9)]
)
async def test_wrong_urls_in_the_configuration_are_refused(tmp_path, outside):
    with pytest.raises(UserError) as refused:
        async with serving(tmp_path / "here", outside=outside):
            pass
    assert isinstance(refused.value, LichenError)
    assert refused.value.hint
