"""An exact function on a whole network: deployed, called, metered in fuel, verified."""

import json

import pytest

from lichen.testing.network import CommandError, LocalNetwork

CODE = """
export default {
  async fetch(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname;
    if (path === "/throw") throw new Error("for the owner only");
    if (path === "/loop") for (;;);
    if (path === "/memory") { const kept = []; for (;;) kept.push(new Uint8Array(1 << 20)); }
    console.log("asked for", path);
    return Response.json({ path, body: await request.text() });
  },
};
"""


def test_an_exact_function_is_deployed_called_metered_and_verified(tmp_path):
    with LocalNetwork(tmp_path, nodes=1) as network:
        network.deploy("sums", CODE, runtime="exact", memory_mb=32, timeout_ms=5000)
        answers = [network.request("sums", "/a", method="POST", body=b"hello") for _ in range(3)]
        for answer in answers:
            assert (answer.status, answer.json()) == (200, {"path": "/a", "body": "hello"})
            assert not [name for name in answer.headers if name == "lichen-exact"]
        kinds = {
            path: network.get("sums", path).json()["type"].rpartition(":")[2]
            for path in ("/throw", "/loop", "/memory")
        }
        assert kinds == {
            "/throw": "function-failed",
            "/loop": "function-out-of-fuel",
            "/memory": "function-out-of-memory",
        }
        fuels = {meter_of(network, n)["fuel"] for n in range(2)}
        assert len(fuels) == 1
        assert fuels.pop() > 100_000
        with pytest.raises(CommandError, match="no default export"):
            network.deploy("broken", "export const nothing = 1;", runtime="exact")


def meter_of(network, number):
    file = network.root / f"receipt-{number}.json"
    network.lichen("call", "sums/a", "--data", "{}", "--receipt", str(file))
    assert network.lichen("verify", str(file))["valid"]
    receipt = json.loads(file.read_text())
    assert receipt["profile"].startswith("exact-")
    assert receipt["tier"] == "wasm"
    return receipt["meter"]
