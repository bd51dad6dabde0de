"""How fast content is added, beside what bounds it (SHA-256, writing the bytes) and beside Kubo.

Each round measures all in turn, so that ratios hold even on a busy machine; the first round warms
the page cache and is not counted. CPU time is that of the process and of those it runs.

All leave the content on disk: ours is written and synced (fsync of data and names, and of the index)
before `add_file` returns; Kubo's default repository (flatfs, "sync": true) does the same for each
block before `ipfs add` ends. Both import `unixfs-v1-2025` with a pin; Kubo runs offline, in an empty
repository each time, and its start (about 0.1 s) is part of its time.

Usage: python bench/content_add.py [--mib 256] [--rounds 3]
"""

import argparse
import hashlib
import io
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from lib.gateways import KUBO, find
from lichen.content import V0_2015, V1_2025, BlockStore, export_car

MIB = 1 << 20


def hash_only(source):
    with source.open("rb", buffering=0) as stream:
        buffer = bytearray(MIB)
        while stream.readinto(buffer):
            hashlib.sha256(buffer).digest()


def write_only(source, folder):
    with source.open("rb", buffering=0) as stream, (folder / "copy").open("wb", buffering=0) as out:
        buffer = bytearray(MIB)
        while size := stream.readinto(buffer):
            out.write(memoryview(buffer)[:size])
        os.fsync(out.fileno())
    (folder / "copy").unlink()


def add(source, folder, profile):
    with BlockStore.open(folder / "new", capacity_bytes=1 << 40) as store:
        return store.add_file(source, profile, pin=True)[0]


def import_car(car, folder):
    with BlockStore.open(folder / "new", capacity_bytes=1 << 40) as store, car.open("rb") as file:
        return store.import_car(file, pin=True)[0]


class Kubo:
    """Adds with `ipfs add`, each time into a fresh copy of an empty repository."""

    def __init__(self, program, folder):
        self._program = program
        self._empty = folder / "kubo-empty"
        self._home = folder / "new"
        self._run(self._empty, "init", "--empty-repo")
        self._run(self._empty, "config", "profile", "apply", "unixfs-v1-2025")

    def prepare(self):
        shutil.copytree(self._empty, self._home)

    def add(self, source):
        return self._run(self._home, "add", "--offline", "-Q", str(source)).strip()

    def _run(self, home, *arguments):
        environment = {**os.environ, "IPFS_PATH": str(home), "IPFS_TELEMETRY": "off"}
        command = [self._program, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout


def cpu_s():
    """Return the CPU seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def write_source(source, mib):
    with source.open("wb") as out:
        for _ in range(mib):
            out.write(os.urandom(MIB))


def prepare(folder, mib):
    source, car = folder / "source", folder / "source.car"
    write_source(source, mib)
    with BlockStore.open(folder / "store", capacity_bytes=1 << 40) as store, car.open("wb") as out:
        cid, _ = store.add_file(source)
        for piece in export_car(store, cid):
            out.write(piece)
    return source, car


def small_puts(folder, count=200):
    with BlockStore.open(folder / "store", capacity_bytes=1 << 40) as store:
        start = time.perf_counter()
        for i in range(count):
            store.add_file(io.BytesIO(b"%d" % i))
        each = (time.perf_counter() - start) / count
        start = time.perf_counter()
        with store.ingest() as ingest:
            for i in range(count * 20):
                ingest.add_file(io.BytesIO(b"batched %d" % i))
            ingest.commit()
        batched = (time.perf_counter() - start) / count / 20
        cid, _ = store.add_file(io.BytesIO(b"0"))
        start = time.perf_counter()
        for _ in range(20_000):
            store.get_block(cid)
        read = (time.perf_counter() - start) / 20_000
    print(
        f"small file: {each * 1e6:.0f} us durable, {batched * 1e6:.0f} us in a batch, {read * 1e6:.1f} us to read a block"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, car = prepare(folder, arguments.mib)
        tasks = {
            "sha256, one thread": lambda: hash_only(source),
            "read, write, fsync": lambda: write_only(source, folder),
            "add_file v1-2025": lambda: add(source, folder, V1_2025),
            "add_file v0-2015": lambda: add(source, folder, V0_2015),
            "import_car": lambda: import_car(car, folder),
        }
        program = find(KUBO)
        kubo = None if program is None else Kubo(program, folder)
        if kubo is None:
            print(f"without Kubo: {KUBO.how_to_get()}")
        else:
            tasks["ipfs add v1-2025"] = lambda: kubo.add(source)
            kubo.prepare()
            assert kubo.add(source) == str(add(source, folder, V1_2025))
            shutil.rmtree(folder / "new")
        seconds = {task: [] for task in tasks}
        cpu_seconds = {task: [] for task in tasks}
        for number in range(arguments.rounds + 1):
            for task, run in tasks.items():
                if task.startswith("ipfs"):
                    kubo.prepare()
                start, start_cpu = time.perf_counter(), cpu_s()
                run()
                if number:
                    seconds[task].append(time.perf_counter() - start)
                    cpu_seconds[task].append(cpu_s() - start_cpu)
                shutil.rmtree(folder / "new", ignore_errors=True)
        base = statistics.median(seconds["sha256, one thread"])
        base_cpu = statistics.median(cpu_seconds["sha256, one thread"])
        for task, values in seconds.items():
            middle, cpu = statistics.median(values), statistics.median(cpu_seconds[task])
            print(
                f"{task:20} {arguments.mib / middle:6.0f} MiB/s, {base / middle:5.2f} of sha256;"
                f" {arguments.mib / cpu:6.0f} MiB per CPU-second, {base_cpu / cpu:5.2f} of sha256"
            )
        small_puts(folder)


if __name__ == "__main__":
    main()
