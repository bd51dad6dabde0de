"""Streams and WebSockets through gateway, node and workerd: as they come, and bounded."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lichen.testing.network import LocalNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

MIB = 2**20
UPLOAD_BYTES = 32 * MIB
# What sockets of this machine may hold on the way, client to gateway to node to workerd.
BUFFERED_BYTES_MAX = 24 * MIB
# What a process may grow by while somebody does not read; a stream held whole would be 32 MiB.
GROWTH_BYTES_MAX = 8 * MIB
SLOW_S = 1.5

FUNCTION = """
const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

function socketPair(use: (server: WebSocket) => void): Response {
  const [client, server] = Object.values(new WebSocketPair());
  server.accept();
  use(server);
  return new Response(null, { status: 101, webSocket: client });
}

const routes: Record<string, (request: Request, url: URL) => Response | Promise<Response>> = {
  "/ws": () => socketPair((server) => {
    server.addEventListener("message", (event) => server.send(event.data));
    server.addEventListener("close", (event) => {
      console.log("closed", event.code, event.reason);
      server.close(event.code, event.reason);
    });
  }),
  "/ws-close": () => socketPair((server) => {
    server.addEventListener("message", () => server.close(4321, "enough"));
  }),
  "/ws-flood": () => socketPair(async (server) => {
    for (let count = 0; count < 1000; count++) {
      try { server.send(new Uint8Array(65536)); } catch { return; }
      await sleep(1);
    }
  }),
  "/ticks": () => {
    const { readable, writable } = new TransformStream();
    (async () => {
      const writer = writable.getWriter();
      for (let count = 0; count < 5; count++) {
        await writer.write(new TextEncoder().encode(`tick ${count}\\n`));
        await sleep(200);
      }
      await writer.close();
    })();
    return new Response(readable);
  },
  "/endless": () => new Response(new ReadableStream({
    pull(controller) { controller.enqueue(new Uint8Array(65536)); },
  })),
  "/drain": async (request, url) => {
    await sleep(Number(url.searchParams.get("wait") ?? "0"));
    let size = 0;
    for await (const chunk of request.body!) size += chunk.byteLength;
    return new Response(String(size));
  },
  "/pipe": (request) => new Response(request.body),
  "/range": (request) => new Response("4567", {
    status: 206,
    headers: { "content-range": "bytes 4-7/10", "x-asked": request.headers.get("range") ?? "" },
  }),
  "/method": (request) => new Response("body", { headers: { "x-method": request.method } }),
};

export default {
  fetch(request: Request): Response | Promise<Response> {
    const url = new URL(request.url);
    return routes[url.pathname](request, url);
  },
};
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("streams"), nodes=1) as network:
        network.deploy("flow", FUNCTION, timeout_ms=60_000)
        network.wait("the app answers", lambda: network.get("flow", "/method").status == 200)
        yield network


def open_socket(network: LocalNetwork) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), timeout=30)


def open_websocket(network: LocalNetwork, path: str, **options: object) -> ClientConnection:
    uri = f"ws://{network.host('flow')}{path}"
    return connect(uri, sock=open_socket(network), max_size=16 * MIB, proxy=None, **options)


def resident_bytes(network: LocalNetwork) -> int:
    """Return the resident memory of gateway and node together."""
    pids = network.pids()
    total = 0
    for name in ("gateway", "node-1"):
        pages = Path(f"/proc/{pids[name]}/statm").read_text().split()[1]
        total += int(pages) * 4096
    return total


def in_flight(network: LocalNetwork) -> int:
    connection = http.client.HTTPConnection(network.url("node-1").removeprefix("http://"))
    try:
        connection.request("GET", "/v1/status")
        return json.loads(connection.getresponse().read())["in_flight"]
    finally:
        connection.close()


def send_head(network: LocalNetwork, line: str, *fields: str) -> socket.socket:
    """Open a connection and send a request's head; the body is the test's business."""
    raw = open_socket(network)
    lines = [line, f"host: {network.host('flow')}", *fields, "", ""]
    raw.sendall("\r\n".join(lines).encode())
    return raw


def read_until(raw: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        part = raw.recv(65536)
        assert part, f"ended before {mark!r}: {data[-500:]!r}"
        data += part
    return data


def test_a_websocket_echoes_text_binary_and_large_messages(network):
    with open_websocket(network, "/ws") as websocket:
        for message in ("hello", "", b"\x00\x01", "x" * 100_000, bytes(900_000)):
            websocket.send(message)
            assert websocket.recv(timeout=20) == message


def test_many_messages_come_back_in_order(network):
    with open_websocket(network, "/ws") as websocket:
        for number in range(500):
            websocket.send(str(number))
        assert [websocket.recv(timeout=20) for _ in range(500)] == [str(n) for n in range(500)]


def test_close_codes_pass_in_both_directions(network):
    with open_websocket(network, "/ws-close") as websocket:
        websocket.send("go")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=20)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough")
    with open_websocket(network, "/ws") as websocket:
        websocket.send("x")
        assert websocket.recv(timeout=20) == "x"
        websocket.close(4567, "mine")
        assert websocket.close_code == 4567
    network.wait(
        "the function sees the code",
        lambda: "closed 4567 mine" in network.command("logs", "flow").stdout,
    )


def test_a_websocket_client_that_vanishes_ends_the_run(network):
    with open_websocket(network, "/ws") as websocket:
        websocket.send("x")
        assert websocket.recv(timeout=20) == "x"
        assert in_flight(network) == 1
        websocket.socket.shutdown(socket.SHUT_RDWR)
        network.wait("the run is over", lambda: in_flight(network) == 0)


def test_a_websocket_run_has_a_receipt(network):
    with open_websocket(network, "/ws") as websocket:
        run = websocket.response.headers["lichen-run"]
        websocket.send("x")
        assert websocket.recv(timeout=20) == "x"
    network.wait("the run is over", lambda: in_flight(network) == 0)
    network.wait("it is recorded", lambda: has_run(network, run))
    assert network.api(f"/runs/{run}")["status"] == 101
    assert network.api(f"/runs/{run}/receipt")["response"]["status"] == 101


def has_run(network: LocalNetwork, run: str) -> bool:
    connection = network.connect()
    try:
        connection.request("GET", f"/api/v1/runs/{run}")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def test_a_client_that_reads_slowly_does_not_cost_memory(network):
    before = resident_bytes(network)
    raw = send_head(network, "GET /endless HTTP/1.1")
    read_until(raw, b"\r\n\r\n")
    time.sleep(SLOW_S)
    assert resident_bytes(network) - before < GROWTH_BYTES_MAX
    raw.close()
    network.wait("the run is over", lambda: in_flight(network) == 0)


def test_a_websocket_client_that_reads_slowly_does_not_cost_memory(network):
    before = resident_bytes(network)
    with open_websocket(network, "/ws-flood", max_queue=1) as websocket:
        time.sleep(SLOW_S)
        assert resident_bytes(network) - before < GROWTH_BYTES_MAX
        assert len(websocket.recv(timeout=20)) == 65536
        websocket.socket.shutdown(socket.SHUT_RDWR)
    network.wait("the run is over", lambda: in_flight(network) == 0)


def test_chunks_arrive_as_they_are_produced(network):
    connection = network.connect()
    connection.request("GET", "/ticks", headers={"host": network.host("flow")})
    response = connection.getresponse()
    came = []
    for number in range(5):
        assert response.readline() == f"tick {number}\n".encode()
        came.append(time.monotonic())
    assert response.read() == b""
    connection.close()
    assert came[4] - came[0] > 0.5


def test_a_client_that_leaves_ends_the_exchange(network):
    raw = send_head(network, "GET /endless HTTP/1.1")
    read_until(raw, b"\r\n\r\n")
    assert in_flight(network) == 1
    raw.close()
    network.wait("the run is over", lambda: in_flight(network) == 0)


def test_an_upload_waits_for_the_function_in_bounded_memory(network):
    before = resident_bytes(network)
    raw = send_head(network, "POST /drain?wait=1500 HTTP/1.1", f"content-length: {UPLOAD_BYTES}")
    sent = [0]

    def upload() -> None:
        part = bytes(65536)
        while sent[0] < UPLOAD_BYTES:
            raw.sendall(part)
            sent[0] += len(part)

    sender = threading.Thread(target=upload)
    sender.start()
    time.sleep(1.0)
    held, grown = sent[0], resident_bytes(network) - before
    answer = read_until(raw, str(UPLOAD_BYTES).encode())
    sender.join(30)
    raw.close()
    assert b" 200 " in answer.split(b"\r\n")[0]
    assert held < BUFFERED_BYTES_MAX
    assert grown < GROWTH_BYTES_MAX
    assert resident_bytes(network) - before < GROWTH_BYTES_MAX


def test_request_and_response_stream_at_the_same_time(network):
    raw = send_head(network, "POST /pipe HTTP/1.1", "transfer-encoding: chunked")
    for number in range(5):
        text = f"part {number}".encode()
        raw.sendall(b"%x\r\n%b\r\n" % (len(text), text))
        read_until(raw, text)
    raw.sendall(b"0\r\n\r\n")
    assert read_until(raw, b"0\r\n\r\n")
    raw.close()


def test_a_large_body_goes_through_whole_in_both_directions(network):
    body = bytes(range(256)) * 4096 * 4
    answer = network.request("flow", "/pipe", method="POST", body=body)
    assert answer.body == body


def test_a_client_that_expects_100_continue_is_told_to_go_on(network):
    raw = send_head(network, "POST /drain HTTP/1.1", "content-length: 5", "expect: 100-continue")
    assert read_until(raw, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
    raw.sendall(b"hello")
    answer = read_until(raw, b"\r\n\r\n5")
    assert answer.startswith(b"HTTP/1.1 200 ")
    raw.close()


def test_head_has_no_body_and_the_connection_goes_on(network):
    connection = network.connect()
    for _ in range(3):
        head = network.request("flow", "/method", method="HEAD", connection=connection)
        assert (head.status, head.body, head.headers["x-method"]) == (200, b"", "HEAD")
        got = network.request("flow", "/method", connection=connection)
        assert (got.body, got.headers["x-method"]) == (b"body", "GET")
    connection.close()


def test_ranges_are_the_functions_business(network):
    answer = network.request("flow", "/range", headers={"range": "bytes=4-7"})
    assert (answer.status, answer.body) == (206, b"4567")
    assert answer.headers["content-range"] == "bytes 4-7/10"
    assert answer.headers["x-asked"] == "bytes=4-7"
