"""The wire alone beside nginx: what of a figure of `make bench` is HTTP, what the rest of us.

    python bench/wire.py [--seconds 1] [--rounds 5]

Content and a file as `make bench` measures them, but from a listener that does nothing else; and
two hops of ours, one multiplexed connection between them and the second one observing both bodies,
beside two of nginx, all without placement, metering, receipts and payment.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from content import (
    LARGE_CONNECTIONS,
    RECEIVER_CPU,
    SERVER_CPU,
    SIZES,
    SMALL_BOUND,
    SMALL_CONNECTIONS,
    large_figures,
    small_figures,
    write_files,
)
from invocation import CONNECTIONS, HOPS_BOUND, start_workerd
from lib import nginx, wrk
from lib.machine import Processes, describe, free_port, pin, tree_cpu_s, wait_for
from lib.rounds import Contender, alternate
from lib.table import Figure, show

# The servers of ours, each in a process of its own.


def run_content(port: int, www: Path) -> None:
    """Serve the same files as nginx: the small one from memory, the large one from its file."""
    from lichen.wire import ContentEntry, FlatFile, content_answer

    plain = b"content-type: application/octet-stream\r\n"
    small = (www / "small").read_bytes()
    large = os.open(www / "large", os.O_RDONLY)
    entries = {
        b"/small": ContentEntry(b'"%b"' % hashlib.sha256(small).hexdigest().encode(), plain, small),
        b"/large": ContentEntry(b'"large"', plain, file=FlatFile(large), size=SIZES["large"]),
    }

    def router(head):
        entry = entries.get(head.path)
        return None if entry is None else content_answer(entry, head)

    _serve(port, router)


def run_gateway(port: int, upstream: str) -> None:
    """Pass requests on as the gateway does: fields of its own to the node, bodies unseen."""
    from lichen.wire import Forward, MuxDialler, Pool, forward_head

    pool = Pool(upstream, dial=MuxDialler(upstream).dial)
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

    _serve(port, router, mux=True)


def _serve(port: int, router, *, mux: bool = False) -> None:
    import uvloop

    from lichen.wire import ListenerConfig, serve

    uvloop.run(serve(ListenerConfig(addresses=(f"127.0.0.1:{port}",), mux=mux), router))


# Measuring.


class Server:
    """One of the servers above, in a process of its own."""

    def __init__(self, processes: Processes, role: str, argument: str) -> None:
        self.port = free_port()
        self.pid = processes.start(
            sys.executable, str(Path(__file__).resolve()), "--role", role, str(self.port), argument
        )
        wait_for(self.port)


def contender(path, first, *others):
    """A chain of servers, asked at its first one."""
    pids = [server.pid for server in (first, *others)]
    return Contender(f"http://127.0.0.1:{first.port}{path}", lambda: sum(map(tree_cpu_s, pids)))


def measure(processes, folder, **load):
    www = folder / "www"
    write_files(www)
    static = nginx.static(processes, www)
    ours = Server(processes, "content", str(www))
    _, _, workerd = start_workerd(processes)
    inner = nginx.proxy(processes, "inner", workerd)
    outer = nginx.proxy(processes, "outer", f"127.0.0.1:{inner.port}")
    node = Server(processes, "node", workerd)
    gateway = Server(processes, "gateway", f"127.0.0.1:{node.port}")
    plain = folder / "plain.lua"

    def sides(path):
        return {"nginx": contender(path, static), "lichen": contender(path, ours)}

    hops = {"nginx": contender("/", outer, inner), "lichen": contender("/", gateway, node)}
    for server in (static, ours):
        pin(server.pid, SERVER_CPU)
    here = {**load, "cpu": RECEIVER_CPU}
    small = alternate(sides("/small"), plain, connections=SMALL_CONNECTIONS, **here)
    large = alternate(sides("/large"), plain, connections=LARGE_CONNECTIONS, cut_off=True, **here)
    chain = alternate(hops, plain, connections=CONNECTIONS, **load)
    mine, other = (
        chain.median(name, lambda one: one.us_per_request) for name in ("lichen", "nginx")
    )
    return [
        *small_figures("1 KB objects", small, SMALL_BOUND),
        *large_figures("500 MB file", large),
        Figure(
            "CPU of two bare hops : two nginx hops",
            chain.ratio("lichen", "nginx", lambda one: one.us_per_request),
            "x",
            ("<=", HOPS_BOUND),
            f"lichen {mine:.0f} us, nginx {other:.0f} us",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--role", nargs=3, metavar=("ROLE", "PORT", "ARGUMENT"), help="internal")
    options = parser.parse_args()
    if options.role:
        role, port, argument = options.role
        roles = {"content": run_content, "gateway": run_gateway, "node": run_node}
        roles[role](int(port), Path(argument) if role == "content" else argument)
        return
    with tempfile.TemporaryDirectory(prefix="lichen-bench-") as name:
        folder = Path(name)
        wrk.write_scripts(folder)
        with Processes(folder) as processes:
            figures = measure(processes, folder, rounds=options.rounds, seconds=options.seconds)
    print(f"{describe()}\n\n{show(figures)}")


if __name__ == "__main__":
    main()
