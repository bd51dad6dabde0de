"""The whole story in one run: a network, three apps, calls, receipts, and who paid whom.

`make demo` runs this. It drives the `lichen` command, as a person would, and reads the ledger
through the client library for the table at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lichen.cli import console
from lichen.cli.connect import flk
from lichen.cli.network.folder import NetworkFolder, read_genesis
from lichen.errors import LichenError, PeerError
from lichen.identity.vault import Vault
from lichen.ledger.types import network_id
from lichen.market.receipt import Receipt, write_receipt
from lichen.sdk.client import Client
from lichen.verify.receipt import verify_receipt

if TYPE_CHECKING:
    from lichen.identity import Address

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
NETWORK = REPOSITORY / ".lichen"
BURST_RUNS = 20
SETTLE_S_MAX = 90.0
SNAPSHOT_TRIES_MAX = 100
POLL_S = 0.2


class Standing(msgspec.Struct, frozen=True):
    """What an account owns, wherever it is: its balance, its stake, and what its channels hold."""

    worth: int
    nonce: int


class Books(msgspec.Struct, frozen=True):
    """The standing of everybody in one block."""

    height: int
    accounts: dict[str, Standing]
    treasury: int
    receipts: int


class Demo:
    """The steps, each timed; `runs` are the receipts that were kept."""

    def __init__(self, port: str) -> None:
        self.port = port
        self.runs: list[Receipt] = []
        self.times: list[tuple[str, float]] = []

    def timed(self, title: str) -> _Timer:
        """Measure a part of the demo."""
        return _Timer(self, title)


class _Timer:
    def __init__(self, demo: Demo, title: str) -> None:
        self._demo, self._title = demo, title

    def __enter__(self) -> None:
        print(f"\n{self._title}", flush=True)
        self._started_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._demo.times.append((self._title, time.monotonic() - self._started_s))


def main() -> int:
    """Run the demo; 0 when everything held, the books included."""
    demo = Demo(os.environ.get("PORT", ""))
    with demo.timed("Start the network"):
        arguments = ["--port", demo.port] if demo.port else []
        lichen("up", "--detach", "--dir", str(NETWORK), *arguments)
    folder = NetworkFolder(NETWORK)
    gateway = f"http://localhost:{folder.listen('gateway')[1]}"
    with Client(gateway) as client:
        before = take_books(client, folder)
        with demo.timed("Deploy the examples"):
            flags = sandbox_flags(client)
            names = ("hello", "ssr")
            deployed = [lichen_json("deploy", str(EXAMPLES / name), *flags) for name in names]
            site = lichen_json("deploy", str(EXAMPLES / "site"))
        with demo.timed("Call them"):
            call_everything(demo, client, gateway, site)
        with demo.timed("Verify every receipt, offline"):
            verify_everything(demo)
        with demo.timed("Wait until the epoch is settled"):
            after = wait_settled(demo, client, folder, before)
        balanced = print_books(demo, client, before, after)
    print_links([*deployed, site], gateway)
    console.table(("step", ">seconds"), [(name, f"{s:.1f}") for name, s in demo.times])
    return 0 if balanced else 1


def sandbox_flags(client: Client) -> list[str]:
    """Return what deploying takes here: without a sandbox only code of one's own runs, loudly."""
    if any("process" in view.node.tiers for view in client.nodes()):
        return []
    console.say("! this machine has no sandbox (see: lichen doctor), so these nodes run nobody's")
    console.say("! code but their owner's; the examples are deployed to run without one")
    return ["--min-tier", "none"]


def lichen(*arguments: str) -> None:
    """Run a command as a person would type it; stop the demo when it fails."""
    print(f"$ lichen {' '.join(arguments)}".replace(f"{REPOSITORY}/", ""), flush=True)
    subprocess.run(_command(*arguments), check=True, cwd=REPOSITORY)


def lichen_json(*arguments: str) -> dict[str, object]:
    """Run a command with --json and return its data; its steps are shown."""
    print(f"$ lichen {' '.join(arguments)}".replace(f"{REPOSITORY}/", ""), flush=True)
    done = subprocess.run(
        _command(*arguments, "--json"), check=True, cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lichen", *arguments]


def call_everything(demo: Demo, client: Client, gateway: str, site: dict[str, object]) -> None:
    """Call each function and page, and check what comes back."""
    port = gateway.rpartition(":")[2]
    hello, ssr = f"http://hello.app.localhost:{port}", f"http://ssr.app.localhost:{port}"
    pages = f"http://site.app.localhost:{port}"
    expect(demo, client, f"{hello}/", b"Hello from Lichen!")
    expect(demo, client, f"{hello}/hello/world", b'{"hello":"world"}')
    expect(demo, client, f"{hello}/sum", b'{"sum":6}', data=b'{"numbers": [1, 2, 3]}')
    expect(demo, client, f"{ssr}/?name=Ada", b"<strong>rendered on the network</strong>")
    expect(demo, client, f"{ssr}/style.css", b"font:")
    expect(demo, client, f"{pages}/", b"A site on Lichen")
    expect(demo, client, f"{pages}/about/", b"About")
    expect(demo, client, f"{pages}/nothing-here", b"Not here", status=404)
    expect(demo, client, f"{gateway}/ipfs/{site['site']}/index.html", b"A site on Lichen")
    with console.step(f"{BURST_RUNS} more runs") as step:
        for number in range(BURST_RUNS):
            answer = client.call(f"{hello}/hello/{number}")
            demo.runs.append(client.receipt(answer.run))
        step.done(f"{BURST_RUNS} more runs of hello")


def expect(
    demo: Demo, client: Client, url: str, text: bytes, *, data: bytes = b"", status: int = 200
) -> None:
    """Fetch a URL; raise PeerError when the answer is not the expected one; keep its receipt."""
    method = "POST" if data else "GET"
    with console.step(f"{method} {url}"):
        answer = client.call(
            url, method, data, {"content-type": "application/json"} if data else {}
        )
        if answer.status != status or text not in answer.body:
            raise PeerError(
                f"{url} answered {answer.status}: {answer.body[:200]!r}",
                hint=f"see: lichen why {answer.run}" if answer.run else "see .lichen/logs",
            )
        if answer.run:
            demo.runs.append(client.receipt(answer.run))


def verify_everything(demo: Demo) -> None:
    """Verify the receipts with the command; then show that a changed one does not pass."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "receipt.json")
        with console.step(f"{len(demo.runs)} receipts") as step:
            for receipt in demo.runs[:3]:
                path.write_bytes(write_receipt(receipt))
                subprocess.run(_command("verify", str(path)), check=True, stdout=subprocess.DEVNULL)
            network = client_network()
            for receipt in demo.runs:
                verify_receipt(write_receipt(receipt), network=network)
            step.done(f"{len(demo.runs)} receipts hold")
        with console.step("a receipt with one byte changed"):
            data = write_receipt(demo.runs[0])
            path.write_bytes(data.replace(b'"status": 200', b'"status": 201', 1))
            done = subprocess.run(_command("verify", str(path)), check=False, capture_output=True)
            if done.returncode != 4:
                raise PeerError(f"lichen verify ended with {done.returncode}, not 4")


def client_network() -> bytes:
    """Return the network's id, from the genesis on disk."""
    return network_id(read_genesis(NetworkFolder(NETWORK).genesis))


def take_books(client: Client, folder: NetworkFolder) -> Books:
    """Read what everybody owns, all of it in the same block."""
    for _ in range(SNAPSHOT_TRIES_MAX):
        height = client.status().height
        stakes = {view.node.address: int(view.node.stake) for view in client.nodes()}
        accounts = {
            entry.name: _standing(client, entry.address, stakes.get(entry.address, 0))
            for entry in Vault(folder.keys).list()
        }
        treasury = client.account(client.genesis().params.treasury).balance
        receipts = sum(batch.receipts for batch in client.epochs())
        if client.status().height == height:
            return Books(height, accounts, int(treasury), receipts)
        time.sleep(POLL_S)
    raise PeerError("the ledger does not come to rest", hint="is somebody else using the network?")


def _standing(client: Client, address: Address, stake: int) -> Standing:
    account = client.account(address)
    held = sum(
        channel.deposit - channel.redeemed
        for channel in client.channels(address)
        if channel.payer == address
    )
    return Standing(account.balance + stake + held, account.nonce)


def wait_settled(demo: Demo, client: Client, folder: NetworkFolder, before: Books) -> Books:
    """Wait until every run of the demo is redeemed and its receipt stands under an epoch's root."""
    billed = sum(receipt.price.amount for receipt in demo.runs)
    deadline = time.monotonic() + SETTLE_S_MAX
    with console.step(f"{len(demo.runs)} runs, {flk(billed)}") as step:
        while True:
            books = take_books(client, folder)
            paid = paid_for_runs(client, before, books)
            if paid >= billed and books.receipts >= before.receipts + len(demo.runs):
                step.done(f"{len(demo.runs)} runs settled, {flk(paid)}, in block {books.height}")
                return books
            if time.monotonic() > deadline:
                raise PeerError(
                    f"{flk(paid)} of {flk(billed)} settled after {SETTLE_S_MAX:.0f} s",
                    hint="see .lichen/logs/gateway.log and the nodes'",
                )
            time.sleep(POLL_S)


def paid_for_runs(client: Client, before: Books, after: Books) -> int:
    """Return what left the developer beyond the fees of its own transactions."""
    return -_change(before, after, "developer") - _fees(client, before, after, "developer")


def _change(before: Books, after: Books, name: str) -> int:
    return after.accounts[name].worth - before.accounts[name].worth


def _fees(client: Client, before: Books, after: Books, name: str) -> int:
    """Return an account's transaction fees: each transaction takes one nonce and pays one fee."""
    count = after.accounts[name].nonce - before.accounts[name].nonce
    return count * client.genesis().params.transaction_fee


def print_books(demo: Demo, client: Client, before: Books, after: Books) -> bool:
    """Print who paid whom; tell whether it adds up to the last unit."""
    names = sorted(after.accounts, key=lambda name: (name.startswith("node"), name))
    fees = {name: _fees(client, before, after, name) for name in names}
    runs = {name: _change(before, after, name) + fees[name] for name in names}
    treasury = after.treasury - before.treasury
    settlement = treasury - sum(fees.values())
    rows = [
        (name, signed(runs[name]), signed(-fees[name]), signed(_change(before, after, name)))
        for name in names
    ]
    rows.append(("treasury", signed(settlement), signed(sum(fees.values())), signed(treasury)))
    total = sum(_change(before, after, name) for name in names) + treasury
    rows.append(("sum", signed(sum(runs.values()) + settlement), "0", signed(total)))
    title = f"\nWho paid whom, blocks {before.height} to {after.height} (FLK)"
    console.table(("", ">for runs", ">transaction fees", ">together"), rows, title=title)
    earned = sum(runs[name] for name in names if name.startswith("node"))
    billed = sum(receipt.price.amount for receipt in demo.runs)
    paid = -runs["developer"]
    balanced = total == 0 and paid == earned + settlement and runs["gateway"] == 0 and paid > 0
    others = f"   ({flk(billed)} in these receipts, the rest is for earlier runs)"
    print(f"the developer paid for runs       {flk(paid)}{others if paid != billed else ''}")
    print(f"the nodes earned                  {flk(earned)}")
    print(f"the treasury got settlement fees  {flk(settlement)}")
    mark = "✓ the books balance" if balanced else "✗ the books DO NOT balance"
    print(f"{mark}: {paid} = {earned} + {settlement} units of 10^-18 FLK")
    return balanced


def signed(amount: int) -> str:
    """Write an amount with its sign."""
    text = flk(amount).removesuffix(" FLK")
    return f"+{text}" if amount > 0 else text


def print_links(deployed: list[dict[str, object]], gateway: str) -> None:
    """Say what to open and how to stop."""
    print("\nOpen in a browser, or with curl:")
    for app in deployed:
        print(f"  {app['url']}")
        if app["site"]:
            print(f"  {gateway}/ipfs/{app['site']}/")
    print(f"  {gateway}/")
    print("\nStop it with: lichen down   (or: make down). `lichen up` resumes with all data.\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except LichenError as error:
        console.say(f"error: {error.what}\n   do: {error.hint}")
        sys.exit(error.exit_code)
