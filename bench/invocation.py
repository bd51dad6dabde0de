"""A call through gateway and node, beside two nginx hops and workerd called directly.

All three serve the same function on workerd; wrk keeps its connections alive. What counts is the
CPU time of the proxies per request; the tenant's own CPU is counted apart. Latency comes from a run
of its own on one connection, where nothing queues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib import nginx
from lib.machine import Processes, children, free_port, own_cpu_s, tree_cpu_s, wait_for
from lib.rounds import Contender, Results, alternate
from lib.table import Figure
from lichen.runtime.engines import ensure

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.testing.network import LocalNetwork

APP = "bench-call"
SOURCE = "export default { fetch() { return new Response('Hello from Lichen!\\n'); } };\n"
CONNECTIONS = 32
HOPS_BOUND = 1.0  # of the CPU that two nginx hops take
_CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .w) ],
  sockets = [ (name = "s", http = (), service = "main"), (name = "t", http = (), service = "main") ],
);
const w :Workerd.Worker = (
  modules = [ (name = "w.js", esModule = embed "w.js") ], compatibilityDate = "2025-01-01" );
"""


def start_workerd(processes: Processes) -> tuple[int, int, str]:
    """Run the function on a workerd of its own; return pid, TCP port and unix address."""
    folder = processes.folder
    (folder / "w.js").write_text(SOURCE)
    (folder / "w.capnp").write_text(_CONFIG)
    path, port = folder / "w.sock", free_port()
    pid = processes.start(
        ensure().workerd, "serve", "w.capnp", "-s", f"s=unix:{path}", "-s", f"t=127.0.0.1:{port}"
    )
    processes.wait_for_file(path)
    wait_for(port)
    return pid, port, f"unix:{path}"


def contenders(network: LocalNetwork, processes: Processes) -> dict[str, Contender]:
    """Start what the network is compared with."""
    workerd, port, address = start_workerd(processes)
    inner = nginx.proxy(processes, "inner", address)
    outer = nginx.proxy(processes, "outer", f"127.0.0.1:{inner.port}")
    pids = network.pids()
    proxies = [pid for name, pid in pids.items() if name == "gateway" or name.startswith("node")]
    node_pids = [pid for name, pid in pids.items() if name.startswith("node")]
    return {
        "workerd": Contender(f"http://127.0.0.1:{port}/", lambda: 0.0, lambda: tree_cpu_s(workerd)),
        "nginx": Contender(
            f"http://127.0.0.1:{outer.port}/",
            lambda: tree_cpu_s(outer.pid) + tree_cpu_s(inner.pid),
            lambda: tree_cpu_s(workerd),
        ),
        "lichen": Contender(
            f"http://127.0.0.1:{network.port}/",
            lambda: sum(map(own_cpu_s, proxies)),
            lambda: sum(own_cpu_s(pid) for node in node_pids for pid in children(node)),
            {"Host": network.host(APP)},
        ),
    }


def measure(network: LocalNetwork, folder: Path, *, rounds: int, seconds: int) -> list[Figure]:
    """Deploy, load in alternating rounds, and compare."""
    network.deploy(APP, SOURCE)
    network.get(APP)
    with Processes(folder) as processes:
        sides = contenders(network, processes)
        script = folder / "plain.lua"
        busy = alternate(sides, script, rounds=rounds, seconds=seconds, connections=CONNECTIONS)
        calm = alternate(sides, script, rounds=rounds, seconds=1, connections=1)
    return [*_cpu(busy), *_latency(busy, calm)]


def _cpu(busy: Results) -> list[Figure]:
    nginx_us = busy.median("nginx", lambda one: one.us_per_request)
    lichen_us = busy.median("lichen", lambda one: one.us_per_request)
    ratio = busy.ratio("lichen", "nginx", lambda one: one.us_per_request)
    figures = [
        Figure("proxy CPU of a call: two nginx hops", nginx_us, "us"),
        Figure("proxy CPU of a call: gateway + node", lichen_us, "us"),
        Figure("gateway + node : two nginx hops", ratio, "x", ("<=", HOPS_BOUND)),
    ]
    for name in busy:
        work = busy.median(name, lambda one: one.work_us_per_request)
        each = busy.median(name, lambda one: one.load.requests / (one.cpu_s + one.work_s))
        figures.append(
            Figure(f"calls per CPU-second, {name}", each, "", note=f"workerd {work:.0f} us of each")
        )
    return figures


def _latency(busy: Results, calm: Results) -> list[Figure]:
    direct = calm.median("workerd", lambda one: one.load.p50_us)
    figures = []
    for name in calm:
        p50 = calm.median(name, lambda one: one.load.p50_us)
        p99 = calm.median(name, lambda one: one.load.p99_us)
        full50 = busy.median(name, lambda one: one.load.p50_us)
        full99 = busy.median(name, lambda one: one.load.p99_us)
        rate = busy.median(name, lambda one: one.requests_per_s)
        note = f"p99 {p99:.0f} us, adds {p50 - direct:.0f} us"
        figures.append(Figure(f"latency p50 of one caller, {name}", p50, "us", note=note))
        note = f"p50 {full50:.0f} us, p99 {full99:.0f} us"
        figures.append(Figure(f"calls/s of {CONNECTIONS} callers, {name}", rate, "", note=note))
    return figures
