"""Clients that read slowly, write slowly, send too much, or in two ways at once."""

from __future__ import annotations

import contextlib
import http.client
import random
import resource
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from lichen.content import V1_2025, import_bytes
from tests.hostile.network.world import (
    Dag,
    Neighbour,
    Process,
    ask,
    bounded,
    connected,
    read_answer,
    stream_of,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.content import CID
    from lichen.testing.network import LocalNetwork
    from tests.hostile.network.world import Truth

CONNECTIONS = 10_000
SOURCES = 8  # addresses to come from: each has some 28,000 ports
FILES_RESERVED = 500
CONNECTION_KB_MAX = 16
READERS = 300  # more than there are streams for what is put together from blocks
READERS_MB_MAX = 600
FLAT_BYTES = 24 << 20
LEAF_BYTES = 4 << 20  # as large as a block may be


@pytest.fixture(scope="module")
def large(network: LocalNetwork) -> tuple[CID, bytes]:
    """A file that is sent by sendfile."""
    dag = Dag()
    data = random.Random(7).randbytes(FLAT_BYTES)
    root = import_bytes(data, V1_2025, dag.blocks.__setitem__).cid
    with network.client(network.key("developer")) as client:
        client.upload_car(stream_of(dag.car(root)))
    return root, data


@pytest.fixture(scope="module")
def endless(network: LocalNetwork) -> CID:
    """A file that is put together from blocks, for as long as anybody reads."""
    dag = Dag()
    cid, size = dag.raw(bytes(LEAF_BYTES)), LEAF_BYTES
    for _ in range(4):
        cid, size = dag.file([(cid, size)] * 100), size * 100
    with network.client(network.key("developer")) as client:
        client.upload_car(stream_of(dag.car(cid)))
    return cid


@contextlib.contextmanager
def crowd(port: int, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open many connections, from several addresses, and say something on each."""
    with contextlib.ExitStack() as stack:
        wires = []
        for number in range(count):
            wire = stack.enter_context(socket.socket())
            wire.settimeout(30)
            wire.bind((f"127.0.0.{2 + number % SOURCES}", 0))
            wire.connect(("127.0.0.1", port))
            if first:
                wire.sendall(first)
            wires.append(wire)
        yield wires


@pytest.fixture
def many_files() -> Iterator[int]:
    """Raise this process's bound on descriptors as far as it may go; return how many are left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard - FILES_RESERVED
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


# Many connections.


def test_ten_thousand_connections_are_held_while_others_are_served(
    network: LocalNetwork, gateway: Process, truth: Truth, many_files: int
) -> None:
    count = min(CONNECTIONS, many_files)
    before = gateway.rss_bytes
    mb_max = count * CONNECTION_KB_MAX / 1024 + 32
    with (
        Neighbour(truth) as neighbour,
        bounded(gateway, mb_max=mb_max, what=f"{count} connections"),
        crowd(network.port, count, get("/healthz")) as wires,
    ):
        for wire in wires:
            assert read_answer(wire).status == 200
        print(f"\n{(gateway.rss_bytes - before) / count / 1024:.1f} KB each of {count}")
        assert gateway.files >= count
        neighbour.wait_for_visits()
        for wire in wires[:: count // 100]:  # still good, each of them
            wire.sendall(get("/healthz"))
            assert read_answer(wire).status == 200


def test_clients_that_never_finish_a_head_or_a_body_shut_nobody_out(
    network: LocalNetwork, gateway: Process, truth: Truth
) -> None:
    body = b"POST /api/v1/transactions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n"
    body += b"content-type: application/vnd.ipld.dag-cbor\r\n\r\n\x81"
    with (
        Neighbour(truth) as neighbour,
        bounded(gateway, mb_max=48, what="slow writers"),
        crowd(network.port, 500, b"GET /x HTTP/1.1\r\nx: ") as heads,
        crowd(network.port, 100, body) as bodies,
    ):
        for _ in range(20):
            for wire in heads:
                wire.sendall(b"y" * 100)
            for wire in bodies:
                wire.sendall(bytes(1000))
        neighbour.wait_for_visits()


def test_bodies_that_nearly_end_share_one_bound(
    network: LocalNetwork, gateway: Process, truth: Truth
) -> None:
    """Anybody may send transactions, so anybody could have 4 MB kept for him, often."""
    head = b"POST /api/v1/transactions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n"
    head += b"content-type: application/vnd.ipld.dag-cbor\r\n\r\n"
    with (
        Neighbour(truth) as neighbour,
        bounded(gateway, mb_max=220, what="80 bodies of 4 MB"),
        crowd(network.port, 80, head) as wires,
    ):
        for wire in wires:
            with contextlib.suppress(ConnectionError):  # told that there are too many
                wire.sendall(bytes(3_999_999))
        neighbour.wait_for_visits()
        assert read_answer(wires[-1]).problem().type == "urn:lichen:problem:busy"


@pytest.mark.parametrize("kind", ["flat", "blocks", "car"])
def test_readers_that_never_read_cost_little_and_stop_nobody(
    network: LocalNetwork,
    gateway: Process,
    truth: Truth,
    large: tuple[CID, bytes],
    endless: CID,
    kind: str,
) -> None:
    targets = {
        "flat": f"/ipfs/{large[0]}",
        "blocks": f"/ipfs/{endless}",
        "car": f"/ipfs/{large[0]}?format=car",
    }
    with (
        Neighbour(truth) as neighbour,
        bounded(gateway, mb_max=READERS_MB_MAX, what=f"{READERS} lazy readers, {kind}"),
        crowd(network.port, READERS, get(targets[kind])) as wires,
    ):
        for wire in wires:
            assert wire.recv(1) == b"H"
        neighbour.wait_for_visits()
    whole = ask(network.port, targets["flat"])
    assert whole.body == large[1]


# Ranges.

RANGES = (
    "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 20_000, 5)),
    "bytes=" + ",".join("0-" for _ in range(5000)),
    "bytes=0-99999999999999999999999999", "bytes=-99999999999999999999", "bytes=99999999999999999999-",
    "bytes=5-4", "bytes=0-0,-1", "bytes=0-0,0-0,0-0", "bytes=-0", "bytes=", "bytes=a-b", "items=0-1",
    "bytes = 0-1", "bytes=0x1-2", "bytes=٣-٤", "bytes=0--1", "bytes=1-2-3", "bytes=" + " " * 1000 + "0-1",
)  # fmt: skip


def test_ranges_of_any_kind_are_answered_with_true_bytes_or_refused(
    network: LocalNetwork, gateway: Process, truth: Truth, large: tuple[CID, bytes]
) -> None:
    files = [*truth.files.values(), large]
    with bounded(gateway, mb_max=64, what="odd ranges"):
        for cid, data in files:
            for value in RANGES:
                answer = ask(network.port, f"/ipfs/{cid}".encode(), range=value)
                if answer.status == 206:
                    first, last = map(
                        int, answer.headers["content-range"][6:].split("/")[0].split("-")
                    )
                    assert answer.body == data[first : last + 1], value
                elif answer.status == 200:
                    assert answer.body == data, value
                else:
                    assert answer.status in {400, 416, 431}, (value, answer)


# Two ways to read one request.

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
START = b"POST /api/v1/transactions HTTP/1.1\r\nhost: localhost\r\n"
BROKEN = {
    "length and chunked": START + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and length": START + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": START + b"content-length: 0\r\ncontent-length: 44\r\n\r\n" + SMUGGLED,
    "a list of lengths": START + b"content-length: 0, 44\r\n\r\n" + SMUGGLED,
    "a coded length": START + b"content-length: +0\r\n\r\n" + SMUGGLED,
    "a length of 2^64": START + b"content-length: 18446744073709551616\r\n\r\n" + SMUGGLED,
    "xchunked": START + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": START + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "identity": START + b"transfer-encoding: identity\r\n\r\n" + SMUGGLED,
    "a space before the colon": START + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a folded coding": START + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "bare line feeds": START + b"content-length: 0\nx: y\r\n\r\n" + SMUGGLED,
    "a bare return": START + b"x: y\rcontent-length: 44\r\n\r\n" + SMUGGLED,
    "a NUL": START + b"content-length: 0\0\r\n\r\n" + SMUGGLED,
    "a chunk of -1": START + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
    "a chunk of 2^64": START + b"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n" + SMUGGLED,
    "a chunk with a bare feed": START + b"transfer-encoding: chunked\r\n\r\n0\n\n" + SMUGGLED,
    "a chunk longer than it says": START + b"transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + SMUGGLED,
    "an endless chunk line": START + b"transfer-encoding: chunked\r\n\r\n0;" + b"x" * 5000 + b"\r\n\r\n" + SMUGGLED,
    "two hosts": b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: a\r\n\r\n" + SMUGGLED,
    "no host": b"GET / HTTP/1.1\r\n\r\n" + SMUGGLED,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /\r\n\r\n" + SMUGGLED,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    "a foreign proxy target": b"GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n" + SMUGGLED,
    "a foreign tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n" + SMUGGLED,
    "a tunnel to the metadata": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: localhost\r\n\r\n" + SMUGGLED,
    "a user in the target": b"GET http://localhost@evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n" + SMUGGLED,
    "200 fields": b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 200 + b"\r\n" + SMUGGLED,
    "a field of 60 KB": b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 60_000 + b"\r\n\r\n" + SMUGGLED,
    "a target of 60 KB": b"GET /" + b"y" * 60_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n" + SMUGGLED,
}  # fmt: skip
OWN_HOSTS_ONLY = {"a foreign proxy target", "a user in the target"}


@pytest.mark.parametrize("name", ["gateway", "node-1"])
@pytest.mark.parametrize("what", BROKEN)
def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(
    network: LocalNetwork, name: str, what: str
) -> None:
    data = BROKEN[what]
    if name == "node-1" and what in OWN_HOSTS_ONLY:
        data = data.replace(b"http://", b"ftp://")  # a node has no hosts to tell from others
    with connected(urlsplit(network.url(name)).port or 0) as wire:
        wire.sendall(data)
        answers = []
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            while True:
                answers.append(read_answer(wire))
        assert len(answers) == 1, answers
        assert answers[0].headers["content-type"].startswith("application/problem+json")
        assert 400 <= answers[0].status < 600
        assert answers[0].status not in {404, 500, 502}
        assert b"smuggled" not in answers[0].body


def test_a_flood_of_pipelined_requests_gets_all_its_answers_in_order(
    network: LocalNetwork, gateway: Process, truth: Truth
) -> None:
    cid, data = truth.files["small"]
    one = get(f"/ipfs/{cid}") + get(f"/ipfs/{cid}/none") + get("/healthz")
    count = 1500
    with (
        Neighbour(truth),
        bounded(gateway, mb_max=64, what="pipelined floods"),
        connected(network.port) as wire,
    ):
        stream = wire.makefile("rb")
        wire.settimeout(30)
        with crowd(network.port, 20, one * 200):  # these never read
            for _ in range(count // 50):
                wire.sendall(one * 50)
                for _ in range(50):
                    assert _read(stream) == (200, data)
                    assert _read(stream)[0] == 404
                    assert _read(stream) == (200, b"ok\n")


def _read(stream) -> tuple[int, bytes]:
    status, length = int(stream.readline()[9:12]), 0
    while (line := stream.readline().lower()) != b"\r\n":
        if line.startswith(b"content-length:"):
            length = int(line[15:])
    return status, stream.read(length)


def test_connections_that_come_and_go_leave_nothing_behind(
    network: LocalNetwork, gateway: Process, truth: Truth
) -> None:
    cid, _ = truth.files["large"]
    with bounded(gateway, mb_max=48, what="clients that leave"):
        for _ in range(10):
            with (
                crowd(network.port, 50, get(f"/ipfs/{cid}")),
                crowd(network.port, 50, get("/healthz")[:-3]),
            ):
                pass
        wait(lambda: ask(network.port, "/healthz").status == 200, "the gateway is well")
