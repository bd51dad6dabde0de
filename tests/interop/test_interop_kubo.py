"""Kubo and Lichen fetch from each other: over HTTP/2 and TLS, by a delegated router and beside it."""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

from lichen.cdn.routing.multiaddr import parse_origin
from lichen.cli.network.ports import choose_free
from lichen.content import CID, RAW
from tests.interop.world import (
    Kubo,
    add_content,
    fetched_from,
    find_kubo,
    find_nginx,
    get,
    make_network,
    spoil,
    tls_front,
)

MEBIBYTES = 100
ENTRIES = 10_000
SPOILT_BYTES = 3_000_001
PEER_ID = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


class Stranger(http.server.ThreadingHTTPServer):
    """A router that names whom the test says, and a gateway that changes what it passes on."""

    daemon_threads = True

    def __init__(self, kubo):
        super().__init__(("127.0.0.1", 0), _StrangerHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.kubo = kubo
        self.providers = {}


class _StrangerHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        kind, cid = path.split("/")[1], path.rsplit("/", 1)[1]
        if kind == "routing":
            url = self.server.providers.get(cid)
            addresses = [parse_origin(url).multiaddr] if url else []
            record = {"Schema": "peer", "ID": PEER_ID, "Addrs": addresses, "Protocols": []}
            self._send(json.dumps({"Providers": [record]}).encode(), "application/json")
            return
        with urllib.request.urlopen(f"{self.server.kubo}{self.path}", timeout=10) as answer:
            block = bytearray(answer.read())
        block[len(block) // 2] ^= 1
        self._send(bytes(block), "application/vnd.ipld.raw")

    def _send(self, body, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a network behind nginx, a Kubo whose router it is, and a stranger that is its own."""
    find_kubo(), find_nginx()
    root = tmp_path_factory.mktemp("kubo")
    port = choose_free(1)[0]
    with (
        tls_front(root / "nginx", port) as tls_port,
        Kubo(root / "kubo", f"http://127.0.0.1:{port}") as kubo,
        running(Stranger(kubo.gateway)) as stranger,
        make_network(
            root,
            port,
            public_url=f"https://127.0.0.1:{tls_port}",
            routers=[stranger.url],
            kubo=kubo.gateway,
        ) as network,
    ):
        yield network, kubo, stranger


def add_to_kubo(kubo, size):
    data = os.urandom(size)
    cid = kubo.ipfs("add", "--quieter", "--cid-version=1", stdin=data).decode().strip()
    return cid, data


def test_kubo_finds_fetches_and_verifies_a_large_file_and_a_large_directory(world):
    network, kubo, _ = world
    big, big_hash, many, many_hash = add_content(network, MEBIBYTES, ENTRIES)
    assert hashlib.sha256(kubo.ipfs("cat", big)).hexdigest() == big_hash
    kubo.ipfs("pin", "add", many)  # fetches all of it, many blocks at once
    folder = kubo.home / "many"
    kubo.ipfs("get", many, "--output", folder)
    tree = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        tree.update(f"{file.name} {content}\n".encode())
    assert tree.hexdigest() == many_hash
    sent = (network.root / "nginx/access.log").read_text().splitlines()
    assert len(sent) > ENTRIES + MEBIBYTES  # each block once at least, all of them over HTTP/2
    assert all(' HTTP/2.0" ' in line for line in sent)


def test_lichen_fetches_what_only_the_kubo_beside_it_has(world):
    network, kubo, _ = world
    cid, data = add_to_kubo(kubo, 10_000_000)
    before = fetched_from(network)
    assert get(network, f"/ipfs/{cid}") == (200, data)
    after = fetched_from(network)
    assert after["kubo"] - before["kubo"] >= 10
    assert after["providers"] == before["providers"]


def test_lichen_fetches_from_a_kubo_that_a_router_names(world):
    network, kubo, stranger = world
    cid, data = add_to_kubo(kubo, 10_000_000)
    stranger.providers[cid] = kubo.gateway
    before = fetched_from(network)
    assert get(network, f"/ipfs/{cid}") == (200, data)
    assert fetched_from(network)["providers"] - before["providers"] >= 10


def test_a_provider_that_changes_blocks_is_found_out_and_passed_over(world):
    network, kubo, stranger = world
    cid, data = add_to_kubo(kubo, 3_000_000)
    stranger.providers[cid] = stranger.url
    assert get(network, f"/ipfs/{cid}") == (200, data)
    assert fetched_from(network)["wrong"] == 1


def test_a_block_that_nobody_has_is_no_error_of_the_provider(world):
    network, _, _ = world
    missing = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    assert get(network, f"/ipfs/{missing}?format=raw")[0] == 404


def test_kubo_takes_no_block_that_was_changed(world):
    network, kubo, _ = world
    data = os.urandom(SPOILT_BYTES)
    (network.root / "spoilt").write_bytes(data)
    cid = network.lichen("storage", "add", "spoilt")["cid"]
    spoil(network, SPOILT_BYTES)
    spoilt = CID.of(RAW, data[1 << 20 : 2 << 20])
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        kubo.ipfs("--timeout=3s", "cat", cid)
    sent = (network.root / "nginx/access.log").read_text()
    assert f'"GET /ipfs/{spoilt}?format=raw HTTP/2.0" 200' in sent
    assert kubo.ipfs("cat", "--length=1000", cid) == data[:1000]
