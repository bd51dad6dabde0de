"""How fast a gateway fetches what only a node has, over loopback and over a round trip of 20 ms.

A node and the delayed line are processes of their own, the gateway is this one: its CPU time is
what is shown. Each row is measured with reading ahead and, for comparison, block by block.

Usage: python bench/content_fetch.py [--mib 64] [--files 300] [--rtt-ms 20]
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from lichen.cdn.delivery import Delivery
from lichen.cdn.retrieval import ahead
from lichen.cdn.retrieval.fetch import Fetcher
from lichen.cdn.serve import ContentRouter
from lichen.content import BlockStore
from lichen.wire import ListenerConfig, listening

CAPACITY = 1 << 34
PIECE = 1 << 18


@contextlib.asynccontextmanager
async def serving(folder, peers=None):
    """Serve a store; one that has peers fetches from them what it lacks."""
    with BlockStore.open(folder, capacity_bytes=CAPACITY) as store:
        fetcher = None if peers is None else Fetcher(store, lambda: peers)
        delivery = Delivery(store, fetcher)
        router = ContentRouter(store, can_fetch=peers is not None)
        config = ListenerConfig(addresses=("127.0.0.1:0",))
        async with listening(config, router.answer, delivery.app) as listener:
            yield listener.port
        if fetcher is not None:
            await fetcher.close()
        delivery.close()


async def be_node(folder, mib, files):
    home = Path(folder)
    (home / "file").write_bytes(os.urandom(mib << 20))
    (home / "tree").mkdir()
    for number in range(files):
        (home / "tree" / f"file-{number:05}").write_bytes(b"the content of %d" % number)
    with BlockStore.open(home / "node", capacity_bytes=CAPACITY) as store:
        roots = [store.add_tree(home / name).cid for name in ("file", "tree")]
    async with serving(home / "node") as port:
        print(port, *roots, flush=True)
        await asyncio.Event().wait()


async def be_line(port, rtt_s):
    """Pass bytes on half a round trip later, either way, as many at a time as there are."""

    async def pass_on(reader, writer):
        line = asyncio.Queue()

        async def deliver():
            while True:
                due, data = await line.get()
                await asyncio.sleep(max(due - time.monotonic(), 0))
                if not data:
                    writer.close()
                    return
                writer.write(data)

        delivering = asyncio.ensure_future(deliver())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(PIECE):
                line.put_nowait((time.monotonic() + rtt_s / 2, data))
        line.put_nowait((0.0, b""))
        await delivering

    async def connect(reader, writer):
        node_reader, node_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, node_writer), pass_on(node_reader, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def measure(folder, port, path):
    """Fetch through a new gateway: seconds, and CPU seconds of the gateway."""
    async with serving(folder, [f"http://127.0.0.1:{port}"]) as own:
        command = ["curl", "-sf", "-o", os.devnull, f"http://127.0.0.1:{own}/ipfs/{path}"]
        started, cpu = time.monotonic(), time.process_time()
        client = await asyncio.create_subprocess_exec(*command)
        if await client.wait() != 0:
            raise SystemExit(f"{path} could not be fetched")
        return time.monotonic() - started, time.process_time() - cpu


def start(stack, *arguments):
    command = [sys.executable, __file__, *map(str, arguments)]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    return process.stdout.readline().split()


async def compare(arguments, folder):
    with contextlib.ExitStack() as stack:
        port, file, tree = start(stack, "--node", folder, arguments.mib, arguments.files)
        (far,) = start(stack, "--line", port, arguments.rtt_ms / 1000)
        wanted = {
            f"file of {arguments.mib} MiB": file,
            f"CAR of {arguments.files} small files": f"{tree}?format=car",
        }
        window = ahead.WINDOW_MAX, ahead.NODES_MAX
        print(f"{'':32} {'ahead':>8} {'CPU':>7} {'block by block':>16} {'ratio':>7}")
        for label, line in (("loopback", port), (f"{arguments.rtt_ms} ms", far)):
            for number, (name, path) in enumerate(wanted.items()):
                runs = []
                for kind, (ahead.WINDOW_MAX, ahead.NODES_MAX) in enumerate((window, (0, 0))):
                    home = Path(folder, f"gateway-{line}-{number}-{kind}")
                    runs.append(await measure(home, line, path))
                (took, cpu), (alone, _) = runs
                row = f"{took:6.2f} s {cpu:5.2f} s {alone:14.2f} s {alone / took:6.1f}x"
                print(f"{name + ', ' + label:32} {row}", flush=True)


def main():
    if sys.argv[1:2] == ["--node"]:
        uvloop.run(be_node(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    elif sys.argv[1:2] == ["--line"]:
        uvloop.run(be_line(int(sys.argv[2]), float(sys.argv[3])))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--mib", type=int, default=64)
        parser.add_argument("--files", type=int, default=300)
        parser.add_argument("--rtt-ms", type=int, default=20)
        with tempfile.TemporaryDirectory() as folder:
            uvloop.run(compare(parser.parse_args(), folder))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
