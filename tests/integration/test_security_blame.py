"""Neither a visitor nor a function can make a gateway believe that a node is broken."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from lichen.testing.network import LocalNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = "export default { fetch: () => new Response('good') };"
BAD = """
export default {
  async fetch(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname;
    if (path === "/stop") {
      const { readable, writable } = new TransformStream();
      const writer = writable.getWriter();
      const fill = async () => { for (;;) { await writer.write(new Uint8Array(1024)); } };
      fill();
      return new Response(readable);
    }
    if (path === "/headers") {
      const headers = new Headers();
      for (let i = 0; i < 60; i++) headers.set("x-" + i, "v".repeat(1050));
      return new Response("x", { headers });
    }
    if (path === "/forge") {
      return new Response("x", { headers: {
        "Lichen-Node": "0x0000000000000000000000000000000000000000",
        "LICHEN-RUN": "00000000-000000000000",
        "Lichen-Session": "s",
      } });
    }
    return new Response("fine");
  },
};
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("blame"), nodes=1) as network:
        network.deploy("good", GOOD)
        network.deploy("bad", BAD, timeout_ms=1000)
        network.wait("good answers", lambda: network.get("good").status == 200)
        network.wait("bad answers", lambda: network.get("bad").status == 200)
        yield network


def failures(network: LocalNetwork) -> int:
    """How often the gateway lately thought that the node failed."""
    (node,) = network.api("/nodes")["items"]
    return int(node["failures"])


def raw(network: LocalNetwork, request: bytes) -> bytes:
    """Send bytes to the gateway; return the beginning of its answer."""
    with socket.create_connection(("127.0.0.1", network.port), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize(
    "fields",
    [
        b"x-long: " + b"v" * 32_650 + b"\r\n",
        b"".join(b"x-%d: 1\r\n" % number for number in range(127)),
        b"content-length: 70000000\r\n",
    ],
    ids=["long", "many", "big"],
)
def test_a_request_at_the_gateways_bounds_does_not_rest_the_node(
    network: LocalNetwork, fields: bytes
) -> None:
    host = network.host("good").encode()
    answer = raw(network, b"POST / HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (host, fields))
    assert failures(network) == 0
    assert int(answer.split(b" ")[1]) < 500


@pytest.mark.parametrize("path", ["/stop", "/headers"])
def test_an_answer_that_breaks_off_does_not_rest_the_node(network: LocalNetwork, path: str) -> None:
    host = network.host("bad").encode()
    raw_request = b"GET %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (path.encode(), host)
    with socket.create_connection(("127.0.0.1", network.port), timeout=20) as connection:
        connection.sendall(raw_request)
        seen = b""
        while chunk := connection.recv(65536):
            seen += chunk
            if path != "/stop" and b"urn:lichen:problem" in seen:
                break
    assert failures(network) == 0
    assert network.get("good").body == b"good"


def test_a_function_cannot_speak_for_its_node_in_any_spelling(network: LocalNetwork) -> None:
    answer = raw(network, b"GET /forge HTTP/1.1\r\nhost: %b\r\n\r\n" % network.host("bad").encode())
    names = [line.split(b":")[0].lower() for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n")]
    assert names.count(b"lichen-node") == 1, answer
    assert names.count(b"lichen-run") == 1
    assert b"lichen-session" not in names
    assert b"0x0000000000000000000000000000000000000000" not in answer
    assert b"00000000-000000000000" not in answer
