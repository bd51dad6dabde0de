"""The ledger over HTTP, and followers of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import httpx
import libipld
import pytest
import uvicorn
from msgspec.structs import replace

from lichen.cli.main import main
from lichen.content import varint
from lichen.encoding import from_canonical, to_json
from lichen.errors import CorruptionError, MachineError, PeerUnavailableError
from lichen.ledger import (
    Account,
    BadNonceError,
    OverdraftError,
    Status,
    Transfer,
    network_id,
    sign_transaction,
)
from lichen.ledger import server as server_module
from lichen.ledger.blocks import encode_block
from lichen.ledger.client import Frames, LedgerClient
from lichen.ledger.engine import Engine, create
from lichen.ledger.follower import Follower
from lichen.ledger.light import LightClient
from lichen.ledger.server import Api
from lichen.ledger.submitter import Submitter
from lichen.ledger.tables import ACCOUNTS
from lichen.ledger.transactions import encode_transaction
from lichen.ledger.tree import verify_proof
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import FLK, Amount

GENESIS = genesis_of("alice", "bob")
NETWORK = network_id(GENESIS)
ALICE, BOB = key_of("alice"), key_of("bob")


def pay(nonce, amount=1):
    return sign_transaction(NETWORK, ALICE, nonce, Transfer(BOB.address, Amount(amount)))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def serving(home, port, key=None):
    async with Engine(home, key=key) as engine:
        server = uvicorn.Server(
            uvicorn.Config(Api(engine).app(), port=port, log_level="warning", lifespan="off")
        )
        server.capture_signals = contextlib.nullcontext
        task = asyncio.create_task(server.serve())
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
                await asyncio.sleep(0.01)
        try:
            yield engine
        finally:
            engine.stop_streams()
            server.should_exit = True
            await task


@pytest.fixture
def home(tmp_path):
    create(tmp_path / "ledger", GENESIS)
    return tmp_path / "ledger"


@pytest.fixture
async def url(home):
    port = free_port()
    async with serving(home, port):
        yield f"http://127.0.0.1:{port}"


async def test_a_client_reads_and_submits_and_gets_typed_refusals(url):
    async with LedgerClient(url) as client:
        assert await client.genesis() == GENESIS
        results = await client.submit([pay(0), pay(1), pay(5), pay(2, 10**6 * FLK)])
        assert [result.height for result in results] == [1, 1, None, None]
        with pytest.raises(BadNonceError):
            results[2].accepted()
        with pytest.raises(OverdraftError):
            results[3].accepted()
        status = await client.status()
        assert (status.network, status.height) == (NETWORK.hex(), 1)


async def test_more_than_one_request_holds_is_split(url):
    async with LedgerClient(url) as client:
        results = await client.submit([pay(nonce) for nonce in range(1030)])
        assert all(result.accepted() for result in results)


async def test_a_ledger_that_is_away_is_a_typed_error():
    async with LedgerClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(PeerUnavailableError):
            await client.status()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/blocks?from=0", b"", 400, "bad-request"),
        ("GET", "/v1/blocks?from=x", b"", 400, "bad-request"),
        ("GET", "/v1/blocks?from=99", b"", 400, "bad-request"),
        ("POST", "/v1/transactions", b"\xff", 400, "bad-request"),
        ("POST", "/v1/transactions", b"\xa0", 400, "bad-request"),
        ("POST", "/v1/transactions", b"\x81\x01", 400, "bad-request"),
        ("POST", "/v1/transactions", bytes(libipld.encode_dag_cbor([b""] * 1025)), 413, "limit-exceeded"),
        ("POST", "/v1/transactions", bytes(9 << 20), 413, "limit-exceeded"),
        ("GET", "/v1/transactions/" + "00" * 32, b"", 404, "not-found"),
        ("GET", "/v1/transactions/zz", b"", 400, "bad-request"),
        ("GET", "/v1/proofs/xyz", b"", 400, "bad-request"),
        ("GET", "/v1/proofs/" + "00" * 300, b"", 400, "bad-request"),
        ("GET", "/nothing", b"", 404, "not-found"),
        ("GET", "/v1/transactions", b"", 404, "not-found"),
    ],
)  # fmt: skip
async def test_bad_requests_are_problems_with_a_code(url, method, path, body, status, code):
    async with httpx.AsyncClient() as http:
        response = await http.request(method, url + path, content=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:lichen:problem:{code}"


async def test_health_metrics_and_places_are_served(url):
    async with LedgerClient(url) as client, httpx.AsyncClient(base_url=url) as http:
        result = await client.submit_one(pay(0))
        assert (await http.get("/healthz")).text == "ok\n"
        assert "lichen_ledger_height 1.0" in (await http.get("/metrics")).text
        assert (await http.get(f"/v1/transactions/{result.id}")).json() == {"height": 1, "index": 0}


async def test_a_proof_from_the_server_checks_out_here(url):
    async with LedgerClient(url) as client:
        await client.submit_one(pay(0))
        key = ACCOUNTS.prefix + BOB.address
        answer = await client.prove(key)
        root, value = bytes.fromhex(answer.state_root), bytes.fromhex(answer.value)
        assert from_canonical(value, Account).balance == 1000 * FLK + 1
        assert verify_proof(root, key, value, answer.proof())
        absent = await client.prove(b"app/nothing")
        assert absent.value is None
        assert verify_proof(root, b"app/nothing", None, absent.proof())
        assert not verify_proof(root, key, None, absent.proof())


async def test_a_light_client_believes_the_server_for_its_proofs(tmp_path):
    sequencer = key_of("sequencer")
    genesis = replace(GENESIS, sequencer=sequencer.public)
    create(tmp_path / "ledger", genesis)
    port = free_port()
    async with (
        serving(tmp_path / "ledger", port, sequencer),
        LedgerClient(f"http://127.0.0.1:{port}") as client,
    ):
        light = LightClient(genesis, client)
        assert (await light.account(BOB.address)).height == 0
        transfer = Transfer(BOB.address, Amount(1))
        signed = sign_transaction(network_id(genesis), ALICE, 0, transfer)
        await client.submit_one(signed)
        bob = await light.account(BOB.address)
        assert (bob.record.balance, bob.height) == (1000 * FLK + 1, 1)
        assert (await light.app("nothing")).record is None


async def test_a_proof_is_fetched_checked_and_kept_by_the_command_line(tmp_path, capsys):
    sequencer = key_of("sequencer")
    genesis = replace(GENESIS, sequencer=sequencer.public)
    create(tmp_path / "ledger", genesis)
    first, other, file = (tmp_path / name for name in ("genesis", "other", "proof.json"))
    first.write_bytes(to_json(genesis))
    other.write_bytes(to_json(replace(genesis, name="other")))
    port = free_port()
    async with serving(tmp_path / "ledger", port, sequencer) as engine:
        transfer = Transfer(BOB.address, Amount(1))
        await engine.submit(
            [encode_transaction(sign_transaction(network_id(genesis), ALICE, 0, transfer))]
        )
        key = f"account/{BOB.address}"
        command = ["ledger", "prove", key, "--ledger", f"http://127.0.0.1:{port}"]
        command += ["--out", str(file), "--genesis"]
        assert await asyncio.to_thread(main, [*command, str(first)]) == 0
        assert "1000.000000000000000001 FLK" in capsys.readouterr().out
        assert await asyncio.to_thread(main, [*command, str(other)]) == 4
    assert main(["--json", "ledger", "check", str(file), "--genesis", str(first)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["key"], said["height"], said["record"]["nonce"]) == (key, 1, 0)
    assert main(["ledger", "check", str(file), "--genesis", str(other)]) == 4
    file.write_bytes(file.read_bytes().replace(b'"height": 1', b'"height": 2'))
    assert main(["ledger", "check", str(file), "--genesis", str(first)]) == 4


async def test_a_quiet_stream_carries_heartbeats(url, monkeypatch):
    monkeypatch.setattr(server_module, "HEARTBEAT_S", 0.05)
    async with (
        asyncio.timeout(10),
        httpx.AsyncClient() as http,
        http.stream("GET", url + "/v1/blocks?from=1") as response,
    ):
        async for chunk in response.aiter_raw():
            assert chunk == b"\0"
            break


async def test_a_follower_catches_up_follows_and_resumes(home, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    seen = []
    async with asyncio.timeout(30):
        async with serving(home, port) as engine, LedgerClient(url) as client:
            await client.submit([pay(nonce) for nonce in range(20)])
            async with Follower(tmp_path / "replica", url, GENESIS) as follower:
                follower.on_block(lambda block, keys: seen.append((block.header.height, keys)))
                await follower.sync()
                await follower.wait_for((await client.submit_one(pay(20))).height)
                assert follower.state_root == engine.state.head.state_root
                assert follower.state.account(BOB.address).balance == 1000 * FLK + 21
            last = follower.height
            await client.submit_one(pay(21))
        async with Follower(tmp_path / "replica", url, GENESIS) as follower:
            assert follower.height == last
            async with serving(
                home, port
            ) as engine:  # it comes back: the follower notices by itself
                await follower.wait_for(last + 1)
                assert follower.state_root == engine.state.head.state_root
    assert [height for height, _ in seen] == list(range(1, last + 1))
    assert b"account/" + BOB.address in seen[-1][1]


async def test_a_submitter_sees_what_it_wrote(url):
    async with (
        asyncio.timeout(20),
        LedgerClient(url) as client,
        Follower(None, url, GENESIS) as follower,
    ):
        submitter = Submitter(ALICE, GENESIS, client, follower)
        await asyncio.gather(
            *(submitter.submit(Transfer(BOB.address, Amount(1))) for _ in range(5))
        )
        assert follower.state.account(BOB.address).balance == 1000 * FLK + 5
        await client.submit_one(pay(5))  # the same key, used elsewhere
        await submitter.submit(Transfer(BOB.address, Amount(2)))
        assert follower.state.account(BOB.address).balance == 1000 * FLK + 8
        with pytest.raises(OverdraftError):
            await submitter.submit(Transfer(BOB.address, Amount(10**6 * FLK)))


@contextlib.asynccontextmanager
async def impostor(status, blocks):
    """A server that answers like a ledger, with blocks of our choosing."""

    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = to_json(status)
                if b"/v1/blocks" in head:
                    body = b"".join(
                        varint.encode(len(data)) + data for data in map(encode_block, blocks)
                    )
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    "change", [{"state_root": bytes(32)}, {"previous": bytes(32)}, {"transactions_hash": bytes(32)}]
)
async def test_a_forged_block_stops_a_follower_loudly(change):
    ledger = MemoryLedger(GENESIS)
    ledger.submit(ALICE, Transfer(BOB.address, Amount(1)))
    block = ledger.view.block(1)
    forged = replace(block, header=replace(block.header, **change))
    status = Status(NETWORK.hex(), 1, 0, "", "")
    async with (
        asyncio.timeout(20),
        impostor(status, [forged]) as url,
        Follower(None, url, GENESIS) as follower,
    ):
        with pytest.raises(CorruptionError):
            await follower.wait_for(1)
        assert follower.height == 0
        assert follower.state.account(BOB.address).balance == 1000 * FLK


@pytest.mark.parametrize(
    "status",
    [Status("00" * 32, 1, 0, "", ""), Status(NETWORK.hex(), 0, 0, "", "00" * 32)],
    ids=["another network", "another history"],
)
async def test_another_ledger_is_not_followed(status):
    async with (
        asyncio.timeout(20),
        impostor(status, []) as url,
        Follower(None, url, GENESIS) as follower,
    ):
        with pytest.raises(CorruptionError):
            await follower.wait_for(1)


def test_frames_come_out_whole_however_they_arrive():
    data = b"".join(varint.encode(len(frame)) + frame for frame in (b"a" * 300, b"", b"b"))
    frames = Frames()
    assert [frame for byte in data for frame in frames.feed(bytes([byte]))] == [b"a" * 300, b"b"]
    assert Frames().feed(data) == [b"a" * 300, b"b"]


async def test_a_follower_goes_on_once_its_disk_is_mended(url, tmp_path, monkeypatch):
    replica = Follower(tmp_path / "replica", url, GENESIS)
    async with asyncio.timeout(20), LedgerClient(url) as client, replica as follower:
        failed = asyncio.Event()
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as broken:

            def write(*_):
                loop.call_soon_threadsafe(failed.set)
                raise MachineError("the disk is full", hint="free some space")

            broken.setattr(follower.store, "write", write)
            await client.submit_one(pay(0))
            await failed.wait()
            assert follower.height == 0
        await follower.wait_for(1)


async def test_a_callback_that_fails_does_not_stop_a_follower(url):
    async with (
        asyncio.timeout(20),
        LedgerClient(url) as client,
        Follower(None, url, GENESIS) as follower,
    ):
        seen = []
        follower.on_block(lambda *_: 1 / 0)
        cancel = follower.on_block(lambda block, _: seen.append(block.header.height))
        await follower.wait_for((await client.submit_one(pay(0))).height)
        cancel()
        await follower.wait_for((await client.submit_one(pay(1))).height)
        assert seen == [1]
