"""The supervisor with real child processes: order, restarts, stopping, and its own sudden death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lichen.cli.network import processes, state
from lichen.cli.network.ports import choose_free

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

WAIT_S_MAX = 20.0

CHILD = """
import http.server, os, pathlib, signal, subprocess, sys
from lichen.cli.network import lifeline
fatal = pathlib.Path(__file__).with_name("fatal-" + sys.argv[1])
if fatal.exists():
    fatal.unlink()
    os.kill(os.getpid(), signal.SIGKILL)
lifeline.watch()
subprocess.Popen(["sleep", "600"])  # a grandchild in the same group, which must not outlive us
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

SUPERVISOR = """
import asyncio, json, os, sys
from pathlib import Path
from lichen.cli.network import processes, state
from lichen.cli.network.service import Service
from lichen.cli.network.supervisor import Supervisor
root = Path(sys.argv[1])
stages = [
    [
        Service(name, (sys.executable, str(root / "child.py"), str(port)),
                f"http://127.0.0.1:{port}", root / f"{name}.log", stop_s_max=2.0)
        for name, port in stage
    ]
    for stage in json.loads(sys.argv[2])
]
lock = state.RunLock(root / "lock")
assert lock.acquire()
supervisor = Supervisor(
    stages, me=processes.identify("supervisor", os.getpid()), state_path=root / "state.json",
    urls={}, report=lambda text, seconds: print(text, flush=True),
)
asyncio.run(supervisor.run(lambda: print("serving", flush=True)))
"""


class Network:
    def __init__(self, root: Path, stages: list[list[tuple[str, int]]]) -> None:
        (root / "child.py").write_text(CHILD)
        (root / "supervisor.py").write_text(SUPERVISOR)
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, str(root / "supervisor.py"), str(root), json.dumps(stages)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def lines_until(self, text: str) -> list[str]:
        lines = []
        for line in self.process.stdout:
            lines.append(line.strip())
            if text in line:
                return lines
        raise AssertionError(f"{text!r} never came; got {lines}")

    def running(self) -> state.Running:
        running = state.read(self.root / "state.json")
        assert running is not None
        return running


@pytest.fixture
def network(tmp_path):
    ledger, first, second, gateway = choose_free(4)
    stages = [[("ledger", ledger)], [("node-1", first), ("node-2", second)], [("gateway", gateway)]]
    network = Network(tmp_path, stages)
    yield network
    if network.process.poll() is None:
        network.process.terminate()
        network.process.wait(WAIT_S_MAX)
    network.process.stdout.close()


def group_members(leaders: list[int]) -> list[int]:
    output = subprocess.run(
        ["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in output.stdout.splitlines()]
    return [int(pid) for pid, group, stat in rows if int(group) in leaders and stat[0] != "Z"]


def wait_until_empty(leaders: list[int]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while left := group_members(leaders):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def test_stages_start_in_order_and_stop_in_reverse(network):
    lines = network.lines_until("serving")
    names = [line.split()[0] for line in lines[:-1]]
    assert names[0] == "ledger"
    assert set(names[1:3]) == {"node-1", "node-2"}
    assert names[3] == "gateway"
    leaders = [process.pid for process in network.running().processes]
    network.process.send_signal(signal.SIGINT)
    rest = network.process.stdout.read().splitlines()
    assert [line.split()[1].rstrip(",") for line in rest] == ["gateway", "node-1", "ledger"]
    assert network.process.wait(WAIT_S_MAX) == 0
    assert group_members(leaders) == []
    assert not (network.root / "state.json").exists()


def test_a_crashed_child_is_started_again_and_its_own_children_are_cleared(network):
    network.lines_until("serving")
    before = {process.name: process for process in network.running().processes}
    os.kill(before["node-1"].pid, signal.SIGKILL)
    lines = network.lines_until("node-1 ended")
    assert "signal 9" in lines[-1]
    deadline = time.monotonic() + WAIT_S_MAX
    while {p.name: p for p in network.running().processes}["node-1"] == before["node-1"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    wait_until_empty([before["node-1"].pid])


def test_no_process_outlives_a_supervisor_killed_at_once(network):
    network.lines_until("serving")
    leaders = [process.pid for process in network.running().processes]
    assert state.is_running(network.root / "lock")
    network.process.kill()
    network.process.wait(WAIT_S_MAX)
    for process in network.running().processes:
        assert processes.wait_gone([process], WAIT_S_MAX) == []
    assert not state.is_running(network.root / "lock")
    for process in network.running().processes:  # the grandchildren here ignore their parent's end
        processes.sweep_group(process)
    wait_until_empty(leaders)


def test_a_recycled_pid_is_not_taken_for_the_old_process():
    me = processes.identify("me", os.getpid())
    other = processes.ProcessId("me", me.pid, "another start time")
    assert processes.is_alive(me)
    assert not processes.is_alive(other)
    processes.send(other, signal.SIGKILL)
    processes.kill_group(other)
    processes.sweep_group(other)


def test_a_child_that_fails_while_starting_ends_the_start_with_its_last_words(tmp_path):
    (port,) = choose_free(1)
    network = Network(tmp_path, [[("ledger", port)]])
    (tmp_path / "child.py").write_text("raise SystemExit('no disk left')")
    output, _ = network.process.communicate(timeout=WAIT_S_MAX)
    assert network.process.returncode != 0
    assert "serving" not in output
    assert "no disk left" in (tmp_path / "ledger.log").read_text()


def test_a_process_that_is_killed_while_it_starts_is_started_once_more(tmp_path):
    ledger, node = choose_free(2)
    (tmp_path / f"fatal-{node}").touch()
    network = Network(tmp_path, [[("ledger", ledger)], [("node-1", node)]])
    try:
        lines = network.lines_until("serving")
        assert any("node-1 signal 9; starting it again" in line for line in lines)
    finally:
        network.process.terminate()
        network.process.wait(WAIT_S_MAX)
        network.process.stdout.close()
