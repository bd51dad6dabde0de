"""How long an addition and a reader wait while a large store is collected.

A store of 200,000 blocks, half of them below one pin, is collected while one thread adds small
files and another reads pinned blocks; each wait is taken, and the same without a collection for
comparison. Usage: python bench/content_collect.py [--blocks 200000]
"""

import argparse
import io
import statistics
import tempfile
import threading
import time
from pathlib import Path

from lichen.content import V1_2025, BlockStore, import_directory

QUIET_S = 2.0


def fill(store, count):
    """Add `count` small files, half of them in a pinned directory; return their CIDs."""
    kept = []
    with store.ingest() as ingest:
        for number in range(count // 2):
            kept.append(ingest.add_file(io.BytesIO(b"kept %d" % number)))
            ingest.add_file(io.BytesIO(b"doomed %d" % number))
        links = [root.link(f"file-{number}") for number, root in enumerate(kept)]
        folder = import_directory(links, V1_2025, ingest.stage_node)
        ingest.commit([folder.cid])
    return [root.cid for root in kept]


class Waits:
    """Does something again and again in a thread, and takes how long each time took."""

    def __init__(self, work):
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds = []

    def _run(self):
        number = 0
        while not self._stop.is_set():
            start = time.perf_counter()
            self._work(number)
            self.seconds.append(time.perf_counter() - start)
            number += 1
            time.sleep(0.001)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def tell(self, name):
        ordered = sorted(self.seconds)
        print(
            f"{name:28} {len(ordered):6} times, median {statistics.median(ordered) * 1e3:7.2f} ms, "
            f"99th percentile {ordered[len(ordered) * 99 // 100] * 1e3:7.2f} ms, "
            f"longest {ordered[-1] * 1e3:8.2f} ms"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        BlockStore.open(Path(name, "store"), capacity_bytes=1 << 40) as store,
    ):
        kept = fill(store, arguments.blocks)
        for when, work in (
            ("quiet", lambda: time.sleep(QUIET_S)),
            ("while collecting", store.collect),
        ):
            with (
                Waits(
                    lambda n, when=when: store.add_file(io.BytesIO(f"{when} {n}".encode()))
                ) as adds,
                Waits(lambda n: store.get_block(kept[n * 7919 % len(kept)])) as reads,
            ):
                start = time.perf_counter()
                work()
                took = time.perf_counter() - start
            print(f"{when}: {took:.1f} s")
            adds.tell("  add a small file, durably")
            reads.tell("  read a block")


if __name__ == "__main__":
    main()
