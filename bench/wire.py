"""The wire against nginx, side by side in one run, judged by CPU time.

    python bench/wire.py [--seconds 1] [--rounds 5] [--workerd PATH] [--json]

Prints for each workload what a second of the server's own CPU is worth (requests or megabytes) and
the ratio to nginx on the same bytes, the median of alternating rounds. `forward` compares a chain of
our gateway and node (the node observing both bodies) with two nginx proxy_pass hops, both in front
of the same workerd on a unix socket. Needs nginx and wrk on the path, and a workerd binary.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL_BYTES = 1024
LARGE_BYTES = 500_000_000
RANGE_BYTES = 1024 * 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

NGINX = """
{user}daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 75;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
  default_type application/octet-stream;
  client_body_temp_path {dir}/{name}-b; proxy_temp_path {dir}/{name}-p;
  fastcgi_temp_path {dir}/{name}-f; uwsgi_temp_path {dir}/{name}-u; scgi_temp_path {dir}/{name}-s;
  upstream next {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ root {dir}/www; }}
    location /fn/ {{ proxy_pass http://next; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host; }}
  }}
}}
"""
WORKERD = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .w) ],
  sockets = [ (name = "s", http = (), service = "main") ],
);
const w :Workerd.Worker = (
  modules = [ (name = "w.js", esModule = embed "w.js") ], compatibilityDate = "2025-01-01" );
"""
WORKER_JS = "export default { fetch() { return new Response('hello'); } }"
WRK_LUA = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n#%d %d %d %d %d\\n', summary.requests, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
RANGES_LUA = """
local at = 0
request = function()
  at = (at + 7) % 400
  return wrk.format("GET", nil, {["Range"] = string.format("bytes=%d-%d", at * SIZE, at * SIZE + SIZE - 1)})
end
""".replace("SIZE", str(RANGE_BYTES))


# The servers of ours, each in a process of its own.


def run_content(port: int, www: Path) -> None:
    """Serve the same files as nginx: the small one from memory, the large one from its file."""
    from lichen.wire import ContentEntry, FlatFile, content_answer

    plain = b"content-type: application/octet-stream\r\n"
    small = (www / "small").read_bytes()
    large = os.open(www / "large", os.O_RDONLY)
    entries = {
        b"/small": ContentEntry(b'"%b"' % hashlib.sha256(small).hexdigest().encode(), plain, small),
        b"/large": ContentEntry(b'"large"', plain, file=FlatFile(large), size=LARGE_BYTES),
    }

    def router(head):
        entry = entries.get(head.path)
        return None if entry is None else content_answer(entry, head)

    _serve(port, router)


def run_gateway(port: int, upstream: str) -> None:
    """Pass requests on as the gateway does: fields of its own to the node, bodies unseen."""
    from lichen.wire import Forward, Pool, forward_head

    pool = Pool(upstream)
    added = ((b"lichen-session", b"0" * 32), (b"lichen-run", b"0" * 52))

    def router(head):
        return Forward(forward_head(head, add=added), pool)

    _serve(port, router)


def run_node(port: int, upstream: str) -> None:
    """Pass requests on as the node does: observing both bodies, adding to the response head."""
    from lichen.wire import Forward, Pool, forward_head

    pool = Pool(upstream)
    private = frozenset({b"lichen-session", b"lichen-run"})

    class Run(Forward):
        seen = 0

        def on_response_head(self, head):  # noqa: ARG002 (a hook)
            return b"lichen-run: " + b"0" * 52 + b"\r\nlichen-node: 0x" + b"0" * 40 + b"\r\n"

        def on_request_body(self, payload):
            Run.seen += len(payload)

        def on_response_body(self, payload):
            Run.seen += len(payload)

        def on_done(self, outcome):
            Run.seen += outcome.response_bytes

    def router(head):
        return Run(forward_head(head, remove=private), pool)

    _serve(port, router)


def _serve(port: int, router) -> None:
    import uvloop

    from lichen.wire import ListenerConfig, serve

    uvloop.run(serve(ListenerConfig(addresses=(f"127.0.0.1:{port}",)), router))


# Measuring.


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    pids, total = [pid], 0.0
    while pids:
        current = pids.pop()
        fields = Path(f"/proc/{current}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        children = Path(f"/proc/{current}/task/{current}/children").read_text()
        pids += [int(child) for child in children.split()]
    return total


def wrk(url: str, seconds: int, connections: int, script: Path) -> tuple[int, int, int, int, int]:
    """Return requests, bytes, p50 and p99 in microseconds, and errors."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    line = next(line for line in out.splitlines() if line.startswith("#"))
    requests, size, p50, p99, errors = (int(word) for word in line[1:].split())
    return requests, size, p50, p99, errors


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > until:
            raise SystemExit(f"nothing answers on port {port}")
        time.sleep(0.02)


class Bench:
    """Starts everything in one folder, stops everything at the end."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "www").mkdir()
        (folder / "www/small").write_bytes(os.urandom(SMALL_BYTES))
        block = os.urandom(1_000_000)
        with (folder / "www/large").open("wb") as file:
            for _ in range(LARGE_BYTES // len(block)):
                file.write(block)
        (folder / "plain.lua").write_text(WRK_LUA)
        (folder / "ranges.lua").write_text(WRK_LUA + RANGES_LUA)

    def start(self, *command: str) -> int:
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        return process.pid

    def nginx(self, name: str, upstream: str) -> tuple[int, int]:
        port = free_port()
        user = "user root; " if os.getuid() == 0 else ""  # else its workers cannot read the folder
        config = NGINX.format(dir=self.folder, name=name, upstream=upstream, port=port, user=user)
        path = self.folder / f"{name}.conf"
        path.write_text(config)
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        pid = self.start(binary, "-p", str(self.folder), "-c", str(path))
        wait_for(port)
        return port, pid

    def ours(self, role: str, argument: str) -> tuple[int, int]:
        port = free_port()
        pid = self.start(sys.executable, __file__, "--role", role, str(port), argument)
        wait_for(port)
        return port, pid

    def workerd(self) -> str:
        (self.folder / "w.js").write_text(WORKER_JS)
        (self.folder / "wd.capnp").write_text(WORKERD)
        path = self.folder / "wd.sock"
        self.start(self.options.workerd, "serve", "wd.capnp", "-s", f"s=unix:{path}")
        until = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > until:
                raise SystemExit("workerd did not start: " + (self.folder / "log").read_text())
            time.sleep(0.02)
        return f"unix:{path}"

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()

    def compare(self, name, sides, path, *, connections=32, script="plain.lua", by_bytes=False):
        """Alternate the two sides; return the medians of worth per CPU second and of the ratios."""
        worth = {side: [] for side in sides}
        latency = dict.fromkeys(sides, (0, 0))
        for number in range(self.options.rounds):
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            for side in order:
                port, pids = sides[side]
                before = sum(map(cpu_s, pids))
                requests, size, p50, p99, errors = wrk(
                    f"http://127.0.0.1:{port}{path}",
                    self.options.seconds,
                    connections,
                    self.folder / script,
                )
                used = sum(map(cpu_s, pids)) - before
                if errors and not by_bytes:
                    raise SystemExit(f"{name}: {side} made {errors} errors")
                worth[side].append((size / 1e6 if by_bytes else requests) / used)
                latency[side] = (p50, p99)
        ratios = [a / b for a, b in zip(worth["lichen"], worth["nginx"], strict=True)]
        result = {side: round(statistics.median(values), 1) for side, values in worth.items()}
        unit = "MB" if by_bytes else "requests"
        return {
            "workload": name,
            "unit": f"{unit} per CPU second",
            **result,
            "ratio": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "p50_p99_us": latency,
        }


def measure(bench: Bench) -> list[dict]:
    static = bench.nginx("static", "127.0.0.1:1")
    content = bench.ours("content", str(bench.folder / "www"))
    sides = {"nginx": (static[0], [static[1]]), "lichen": (content[0], [content[1]])}
    results = [
        bench.compare("content 1 KB", sides, "/small"),
        bench.compare("file 500 MB", sides, "/large", connections=2, by_bytes=True),
        bench.compare(
            "ranges 1 MiB", sides, "/large", connections=8, script="ranges.lua", by_bytes=True
        ),
    ]
    if bench.options.workerd:
        socket_path = bench.workerd()
        inner = bench.nginx("inner", socket_path)
        outer = bench.nginx("outer", f"127.0.0.1:{inner[0]}")
        node = bench.ours("node", socket_path)
        gateway = bench.ours("gateway", f"127.0.0.1:{node[0]}")
        chain = {
            "nginx": (outer[0], [outer[1], inner[1]]),
            "lichen": (gateway[0], [gateway[1], node[1]]),
        }
        forward = bench.compare("forward, 2 hops", chain, "/fn/hello")
        hops = {side: round(1e6 / forward[side] / 2, 1) for side in ("nginx", "lichen")}
        results.append({**forward, "us_per_hop": hops})
    return results


def find_workerd() -> str:
    for folder in ("node_modules", ".lichen-npm/node_modules"):
        path = Path(folder) / "@cloudflare/workerd-linux-64/bin/workerd"
        if path.exists():
            return str(path.resolve())
    return os.environ.get("WORKERD", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workerd", default=find_workerd())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", nargs=3, metavar=("ROLE", "PORT", "ARGUMENT"), help="internal")
    options = parser.parse_args()
    if options.role:
        role, port, argument = options.role
        roles = {"content": run_content, "gateway": run_gateway, "node": run_node}
        roles[role](int(port), Path(argument) if role == "content" else argument)
        return
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: install your distribution's wrk and nginx packages")
    with tempfile.TemporaryDirectory(prefix="lichen-bench-") as name:
        bench = Bench(Path(name), options)
        try:
            results = measure(bench)
        finally:
            bench.stop()
    if options.json:
        print(json.dumps(results))
        return
    for row in results:
        print(
            f"{row['workload']:<18} nginx {row['nginx']:>10}  lichen {row['lichen']:>10} {row['unit']}"
            f"  ratio {row['ratio']} ({row['ratio_min']}-{row['ratio_max']})"
            + (f"  us/hop {row['us_per_hop']}" if "us_per_hop" in row else "")
        )
    if not options.workerd:
        print("forward            skipped: no workerd; give --workerd PATH")


if __name__ == "__main__":
    main()
