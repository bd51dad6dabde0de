"""A whole network driven by the `lichen` command, as its users drive it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lichen.cli.network import processes, state
from lichen.cli.network.folder import NetworkFolder
from lichen.cli.network.ports import choose_free

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_S_MAX = 120
WAIT_S_MAX = 30.0
FUNCTION = """
export default {
  async fetch(request: Request): Promise<Response> {
    console.log("asked for", new URL(request.url).pathname);
    return new Response(`${request.method} ${await request.text()}VERSION`);
  },
};
"""
MANIFEST = """
manifest_version = 1
name = "NAME"
[[functions]]
name = "api"
main = "index.ts"
routes = ["/*"]
"""


class Network:
    """A folder with a network in it, and the command line seen from there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = NetworkFolder(root / ".lichen")
        (self.port,) = choose_free(1)

    def run(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LICHEN_P")}
        return subprocess.run(
            [sys.executable, "-m", "lichen", *arguments],
            cwd=self.root,
            env={**clean, "XDG_CONFIG_HOME": str(self.root / "config"), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def json(self, *arguments: str, **environment: str) -> object:
        done = self.run(*arguments, "--json", **environment)
        assert done.returncode == 0, done.stderr + self.logs()
        return json.loads(done.stdout)

    def up(self) -> subprocess.CompletedProcess:
        done = self.run("up", "--detach", "--nodes", "2", "--port", str(self.port))
        assert done.returncode == 0, done.stderr + self.logs()
        return done

    def logs(self) -> str:
        return "".join(path.read_text()[-2000:] for path in self.root.glob(".lichen/logs/*"))

    def project(self, name: str, version: str = "1") -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "lichen.toml").write_text(MANIFEST.replace("NAME", name))
        (folder / "index.ts").write_text(FUNCTION.replace("VERSION", version))
        return folder

    def poor_profile(self, name: str) -> dict[str, str]:
        """Make an account without money; return the flags to use it."""
        assert self.run("account", "new", name).returncode == 0
        config = self.root / f"{name}.toml"
        config.write_text(
            f'[profiles.{name}]\ngateway = "http://localhost:{self.port}"\naccount = "{name}"\n'
            'keys = ".lichen/keys"\npassword_file = ".lichen/password"\n'
        )
        return {"config": str(config), "profile": name}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = Network(tmp_path_factory.mktemp("cli"))
    network.up()
    yield network
    network.run("down")


def everything(network: Network) -> list[processes.ProcessId]:
    running = state.read(network.folder.state)
    assert running is not None
    return [*running.processes, running.supervisor]


def test_a_second_up_says_that_it_runs_and_where(network):
    done = network.run("up", "--detach")
    assert done.returncode == 0
    assert "already running" in done.stderr
    assert f"http://localhost:{network.port}" in done.stdout


def test_up_in_a_folder_below_means_the_network_above(network):
    below = network.root / "deep" / "er"
    below.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "lichen", "up", "--detach"],
        cwd=below,
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )
    assert "already running" in done.stderr
    assert not (below / ".lichen").exists()


def test_deploying_twice_makes_one_release_and_changing_makes_another(network):
    network.project("twice")
    first = network.json("deploy", "twice")
    again = network.json("deploy", "twice")
    assert (first["release"], first["changed"]) == (1, True)
    assert (again["release"], again["changed"]) == (1, False)
    network.project("twice", version="2")
    assert network.json("deploy", "twice")["release"] == 2
    assert network.json("call", "twice/")["body"] == "GET 2"
    assert network.run("rollback", "twice", "v1").returncode == 0
    deadline = time.monotonic() + WAIT_S_MAX
    while network.json("call", "twice/")["body"] != "GET 1":
        assert time.monotonic() < deadline
    releases = network.json("releases", "twice")
    assert releases["active"] == 1
    assert [release["number"] for release in releases["releases"]] == [2, 1]
    assert "twice" in {app["name"] for app in network.json("ls")}


def test_a_receipt_verifies_offline_and_no_changed_byte_does(network):
    network.project("paid")
    network.json("deploy", "paid")
    called = network.json("call", "paid/x", "--data", "hello ", "--receipt", "r.json")
    assert called["body"] == "POST hello 1"
    assert network.run("verify", "r.json").returncode == 0
    (network.root / "body").write_text(called["body"])
    assert network.run("verify", "r.json", "--response", "body").returncode == 0
    data = (network.root / "r.json").read_bytes()
    for position in range(0, len(data), max(1, len(data) // 8)):
        changed = bytes([data[position] ^ 1])
        path = network.root / "changed.json"
        path.write_bytes(data[:position] + changed + data[position + 1 :])
        done = network.run("verify", "changed.json")
        assert done.returncode == 4, f"byte {position}: {done.stdout}{done.stderr}"
    why = network.run("why", called["run"])
    assert why.returncode == 0
    assert called["node"].lower() in why.stdout.lower()


def test_what_a_function_wrote_is_in_its_logs(network):
    network.project("chatty")
    network.json("deploy", "chatty")
    network.json("call", "chatty/a-path")
    deadline = time.monotonic() + WAIT_S_MAX
    while "asked for /a-path" not in (shown := network.run("logs", "chatty").stdout):
        assert time.monotonic() < deadline, shown


def test_a_site_is_served_by_name_and_by_hash(network):
    assert network.run("init", "pages", "--template", "static").returncode == 0
    deployed = network.json("deploy", "pages")
    by_hash = network.json("call", f"/ipfs/{deployed['site']}/about/index.html")
    assert by_hash["status"] == 200
    by_name = network.json("call", f"http://pages.app.localhost:{network.port}/about/")
    assert by_name["body"] == by_hash["body"]
    missing = network.run("call", f"http://pages.app.localhost:{network.port}/nope", "--json")
    assert missing.returncode == 1
    assert "Not here" in json.loads(missing.stdout)["body"]


def test_content_comes_back_as_it_was_added(network):
    (network.root / "folder").mkdir()
    (network.root / "folder" / "a.bin").write_bytes(os.urandom(3_000_000))
    added = network.json("storage", "add", "folder")
    assert added["files"] == 1
    listed = network.json("storage", "ls", added["cid"])
    assert [entry["name"] for entry in listed] == ["a.bin"]
    done = network.run("storage", "get", added["cid"], "-o", "back")
    assert done.returncode == 0, done.stderr
    same = (network.root / "folder" / "a.bin").read_bytes()
    assert (network.root / "back" / "a.bin").read_bytes() == same


def test_pins_are_listed_and_let_go_of_unless_a_release_needs_them(network):
    (network.root / "mine").mkdir()
    (network.root / "mine" / "a").write_text("mine")
    (network.root / "mine" / "link").symlink_to("a")
    cid = network.json("storage", "add", "mine")["cid"]
    pinned = network.json("storage", "ls")
    assert cid in [pin["cid"] for pin in pinned["pins"]]
    assert 0 < pinned["pinned_bytes"] < pinned["pinned_bytes_max"]
    assert network.json("storage", "status", cid)["pinned"]
    assert network.run("storage", "get", cid, "-o", "mine2").returncode == 0
    assert (network.root / "mine2" / "link").readlink().name == "a"
    assert network.json("storage", "rm", cid)["cid"] == cid
    assert not network.json("storage", "status", cid)["pinned"]
    assert network.run("storage", "rm", cid).returncode == 1
    assert network.json("storage", "pin", cid)["bytes"] > 0
    again = network.run("storage", "add", "mine")
    assert (again.stdout.strip(), "0 bytes were sent" in again.stderr) == (cid, True)
    assert network.run("init", "needed", "--template", "static").returncode == 0
    site = network.json("deploy", "needed")["site"]
    assert site in [pin["cid"] for pin in network.json("storage", "ls")["pins"]]
    refused = network.run("storage", "rm", site)
    assert (refused.returncode, "needed v1" in refused.stderr) == (1, True)


def test_stdin_can_be_stored_and_sent(network):
    stored = network.run("storage", "add", "-", stdin="from a pipe\n")
    assert stored.returncode == 0, stored.stderr
    back = network.run("storage", "get", stored.stdout.strip())
    assert back.stdout == "from a pipe\n"
    network.project("piped")
    network.json("deploy", "piped")
    assert network.run("call", "piped/", "--data", "-", stdin="body ").stdout == "POST body 1"


def test_following_a_log_ends_with_ctrl_c(network):
    network.project("followed")
    network.json("deploy", "followed")
    process = subprocess.Popen(
        [sys.executable, "-m", "lichen", "logs", "followed", "-f"],
        cwd=network.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        network.json("call", "followed/first")
        assert "asked for /first" in process.stdout.readline()
        network.json("call", "followed/second")
        assert "asked for /second" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S_MAX) == 130
        assert "interrupted" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_keys_are_shown_while_no_network_answers(tmp_path):
    network = Network(tmp_path)
    network.up()
    network.run("down")
    done = network.run("account", "show", "--json")
    assert done.returncode == 0
    assert "balances are unknown" in done.stderr
    assert {entry["balance"] for entry in json.loads(done.stdout)} == {None}


def test_a_name_that_somebody_owns_is_refused(network):
    network.project("mine")
    network.json("deploy", "mine")
    flags = network.poor_profile("other")
    done = network.run("deploy", "mine", "--config", flags["config"], "--profile", "other")
    assert done.returncode == 1
    assert "'mine' is taken" in done.stderr


def test_an_account_without_money_is_told_how_much_is_missing(network):
    network.project("broke")
    flags = network.poor_profile("broke")
    done = network.run("deploy", "broke", "--config", flags["config"], "--profile", "broke")
    assert done.returncode == 1
    assert "are missing" in done.stderr


def test_code_that_does_not_compile_names_file_and_line(network):
    folder = network.project("wrong")
    (folder / "index.ts").write_text("const x: number = 1;\nconst y = ;\nexport default {};\n")
    done = network.run("deploy", "wrong")
    assert done.returncode == 1
    assert "index.ts:2:" in done.stderr


def test_a_missing_site_folder_is_named(network):
    folder = network.root / "siteless"
    folder.mkdir()
    (folder / "lichen.toml").write_text(
        'manifest_version = 1\nname = "siteless"\n[site]\ndir = "out"\n'
    )
    done = network.run("deploy", "siteless")
    assert done.returncode == 1
    assert "out is missing" in done.stderr


def test_a_wrong_password_is_a_clear_error(network):
    done = network.run("account", "transfer", "node-1", "1", LICHEN_PASSWORD="wrong password")
    assert done.returncode == 1
    assert "password" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_transfer_arrives_and_stands_in_the_history(network):
    before = int(network.json("account", "show", "node-1")[0]["balance"])
    sent = network.json("account", "transfer", "node-1", "1.5")
    assert sent["height"] > 0
    assert int(network.json("account", "show", "node-1")[0]["balance"]) - before >= 10**18
    history = network.json("account", "history", "developer", "--limit", "5")
    assert history[0]["kind"] == "transfer"


def test_a_call_to_nothing_ends_with_the_network_code():
    (port,) = choose_free(1)
    config = {"XDG_CONFIG_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-m", "lichen", "call", f"http://127.0.0.1:{port}/"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **config},
        cwd="/",
    )
    assert done.returncode in {1, 3}
    assert "error: " in done.stderr


def test_a_taken_port_is_named_together_with_the_flag(tmp_path):
    network = Network(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", network.port))
        listener.listen()
        done = network.run("up", "--detach", "--nodes", "1", "--port", str(network.port))
    assert done.returncode == 1
    assert f"port {network.port} is taken" in done.stderr
    assert "--port" in done.stderr


def test_down_leaves_no_process_and_up_resumes_with_all_data(network):
    network.project("kept")
    network.json("deploy", "kept")
    known = everything(network)
    done = network.run("down")
    assert done.returncode == 0, done.stderr
    assert "no process is left" in done.stderr
    assert not any(processes.is_alive(process) for process in known)
    assert network.run("down").returncode == 0
    network.up()
    assert network.json("call", "kept/")["body"] == "GET 1"


def test_a_killed_supervisor_leaves_nothing_behind_and_up_resumes(network):
    network.project("survives")
    network.json("deploy", "survives")
    *children, supervisor = everything(network)
    os.kill(supervisor.pid, signal.SIGKILL)
    network.up()
    assert not any(processes.is_alive(process) for process in children)
    assert network.json("call", "survives/")["body"] == "GET 1"


def test_a_killed_node_is_started_again(network):
    victim = next(process for process in everything(network) if process.name == "node-1")
    os.kill(victim.pid, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S_MAX
    while not any(
        process.name == "node-1" and process != victim and processes.is_alive(process)
        for process in everything(network)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_budget_is_what_the_gateway_may_spend_from_now_on(network):
    network.project("frugal")
    done = network.run("deploy", "frugal", "--budget", "5")
    assert "may spend up to 5 FLK on frugal" in done.stderr
    assert "may spend" not in network.run("deploy", "frugal").stderr
    assert "may spend up to 7 FLK" in network.run("deploy", "frugal", "--budget", "7").stderr


def test_a_bundle_over_the_limit_names_its_largest_input(network):
    folder = network.project("huge")
    (folder / "large.ts").write_text(f"export const text = '{'x' * 11_000_000}';\n")
    (folder / "index.ts").write_text(
        "import { text } from './large';\nexport default { fetch: () => new Response(text) };\n"
    )
    done = network.run("deploy", "huge")
    assert done.returncode == 1
    assert "bundle_bytes_max" in done.stderr
    assert "large.ts" in done.stderr


def test_without_a_suitable_node_the_reasons_are_counted_and_the_code_is_the_networks(network):
    folder = network.project("stingy")
    text = (folder / "lichen.toml").read_text() + 'max_price = "0.000000000000000001"\n'
    (folder / "lichen.toml").write_text(text)
    network.json("deploy", "stingy")
    done = network.run("call", "stingy/")
    assert done.returncode == 3
    assert "no suitable node: 2 " in done.stderr
    assert done.stdout == ""


def test_a_node_sees_what_it_earned_and_which_receipts_stand_behind_it(network):
    network.project("earning")
    network.json("deploy", "earning")
    called = network.json("call", "earning/")
    deadline = time.monotonic() + WAIT_S_MAX
    while True:
        (earned,) = network.json("node", "earnings", called["node"])
        if earned["total"] > 0 and earned["receipts"] > 0:
            break
        assert time.monotonic() < deadline, earned
        time.sleep(0.2)
    assert earned["day"] == earned["week"] == earned["total"]


def test_prices_are_known_before_a_run(network):
    network.project("priced")
    network.json("deploy", "priced")
    quote = network.json("quote", "priced/api")
    assert network.json("quote", "priced/some/path")["function"] == quote["function"]
    assert len(quote["nodes"]) == 2
    for node in quote["nodes"]:
        assert 0 < int(node["typical"]) <= int(node["ceiling"]) <= 10**16
    offers = network.json("market", "nodes")
    assert {offer["address"] for offer in offers} == {node["node"] for node in quote["nodes"]}
    assert network.json("market", "prices")["nodes"] == 2


def test_the_doctor_looks_at_engines_tiers_and_the_network(network):
    found = {finding["name"]: finding for finding in network.json("doctor")}
    assert found["engines"]["works"]
    assert found["network"]["works"]
    assert found["clock"]["works"]
    assert found["tier process"]["works"] or found["tier process"]["mend"]
