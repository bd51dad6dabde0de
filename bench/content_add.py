"""How fast content is added, side by side with what bounds it: SHA-256, and writing the bytes.

Each round measures all in turn, so that ratios hold even on a busy machine; the first round warms
the page cache and is not counted. Usage: python bench/content_add.py [--mib 256] [--rounds 3]
"""

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

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
    with BlockStore.open(folder / "store", capacity_bytes=1 << 40) as store:
        cid, _ = store.add_file(source, profile)
        store.remove(cid)


def import_car(car, folder):
    with BlockStore.open(folder / "store", capacity_bytes=1 << 40) as store, car.open("rb") as file:
        (cid,) = store.import_car(file)
        store.remove(cid)


def prepare(folder, mib):
    source, car = folder / "source", folder / "source.car"
    with source.open("wb") as out:
        for _ in range(mib):
            out.write(os.urandom(MIB))
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
        seconds = {task: [] for task in tasks}
        cpu_seconds = {task: [] for task in tasks}
        for number in range(arguments.rounds + 1):
            for task, run in tasks.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                run()
                if number:
                    seconds[task].append(time.perf_counter() - start)
                    cpu_seconds[task].append(time.process_time() - start_cpu)
        base = statistics.median(seconds["sha256, one thread"])
        for task, values in seconds.items():
            middle = statistics.median(values)
            cpu = arguments.mib / statistics.median(cpu_seconds[task])
            print(
                f"{task:20} {arguments.mib / middle:7.0f} MiB/s  {base / middle:5.2f} of sha256"
                f"  {cpu:7.0f} MiB per CPU-second"
            )
        small_puts(folder)


if __name__ == "__main__":
    main()
