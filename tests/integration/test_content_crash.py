"""The store after kill -9 and after real write failures: acknowledged is there, all else is not."""

import os
import random
import resource
import signal
import subprocess
import sys

import pytest

from lichen.content import (
    BlockStore,
    read_file,
    walk,
)
from lichen.content.cid import CID

GIB = 1 << 30
MIB = 1 << 20
KILLS = 12
CHILD_START_S_MAX = 20

# Collects without end, and pins and adds meanwhile; prints each pin once it is acknowledged.
COLLECTING = """
import io, random, sys, threading
from lichen.content import *
home, seed = sys.argv[1], int(sys.argv[3])
draw = random.Random(seed)
with BlockStore.open(home, capacity_bytes=1 << 40) as store:
    print("open", flush=True)
    def collect():
        while True:
            bytes_min = draw.choice([None, 1 << 20])
            with store.collecting(spare_recent=draw.randrange(2), bytes_min=bytes_min) as collection:
                while store.collect_step(collection, 0.0005):
                    pass
    threading.Thread(target=collect, daemon=True).start()
    while True:
        with store.ingest() as ingest:
            files = [io.BytesIO(draw.randbytes(draw.choice([10, 70_000, 2 << 20]))) for _ in range(9)]
            links = [ingest.add_file(file).link(f"{n}") for n, file in enumerate(files)]
            root = import_directory(links, V1_2025, ingest.stage_node).cid
            pins = draw.randrange(2)
            ingest.commit([root] if pins else [])
        print("pinned" if pins else "added", root, flush=True)
"""

# Adds more than fits, of which most is collected by itself, as in a gateway.
AUTOMATIC = """
import asyncio, io, random, sys
from lichen.cdn.upkeep import Upkeep
from lichen.content import *
home, seed = sys.argv[1], int(sys.argv[3])
draw = random.Random(seed)

async def main(store):
    async def look():
        upkeep = Upkeep(store)
        while True:
            await upkeep.look()
            await asyncio.sleep(0.001)
    looking = asyncio.ensure_future(look())
    for turn in range(10**9):
        data = io.BytesIO(draw.randbytes(draw.choice([10, 70_000, 1 << 20])))
        pins = turn % 16 == 0 and turn < 100
        try:
            root, _ = await asyncio.to_thread(store.add_file, data, pin=pins)
        except DiskFullError:
            await asyncio.sleep(0.01)
        else:
            print("pinned" if pins else "added", root, flush=True)
        if looking.done():
            looking.result()

with BlockStore.open(home, capacity_bytes=16 << 20) as store:
    print("open", flush=True)
    asyncio.run(main(store))
"""

# Adds files, trees and CARs without end; prints each root once it is acknowledged.
CHILD = """
import io, pathlib, random, sys
from lichen.content import *
home, folder, seed = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
with BlockStore.open(home, capacity_bytes=1 << 40) as store:
    print("open", flush=True)
    while True:
        data = draw.randbytes(draw.choice([10, 70_000, 3 << 20, 20 << 20]))
        kind = draw.randrange(4)
        if kind == 0:
            (root, _) = store.add_file(io.BytesIO(data), draw.choice([V0_2015, V1_2025]))
        elif kind == 1:
            (folder / f"{draw.random()}").write_bytes(data)
            root = store.add_tree(folder).cid
        elif kind == 2:
            blocks = {}
            files = [import_bytes(data[n:], V1_2025, blocks.__setitem__).link(f"{n}") for n in (0, 9)]
            root = import_directory(files, V1_2025, blocks.__setitem__).cid
            car = b"".join(write_car([root], reversed(blocks.items())))
            (root,) = store.import_car(io.BytesIO(car))
        else:
            root = store.add_file(io.BytesIO(data), pin=True)[0]
            print("pinned", root, flush=True)
            if draw.randrange(2):
                print("collecting", flush=True)
                store.collect()
        print("added", root, flush=True)
"""


def start(home, folder, seed, script=CHILD):
    folder.mkdir(exist_ok=True)
    child = subprocess.Popen(
        [sys.executable, "-c", script, home, folder, str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "open\n"
    return child


def acknowledged(lines):
    """Return the roots that must be there: what is pinned, and what no collection came after."""
    pinned, added = [], []
    for line in lines:
        word, _, root = line.partition(" ")
        if word == "pinned":
            pinned.append(CID.parse(root))
        elif word == "added":
            added.append(CID.parse(root))
        else:
            added = []
    return [*pinned, *added]


def check_whole(store, root):
    """Every block of the DAG verifies; where there is a flat file, it is the DAG's content."""
    for cid, block in walk(store, root):
        assert cid.matches(block)
        flat = store.flat_file(cid)
        if flat is not None:
            assert b"".join(map(bytes, read_file(store, cid))) == flat.pread(flat.size)


def test_after_kill_9_everything_acknowledged_is_whole_and_nothing_is_left_over(tmp_path):
    draw = random.Random(2)
    home = tmp_path / "store"
    seen = 0
    for kill in range(KILLS):
        child = start(home, tmp_path / f"tree{kill}", kill)
        try:
            child.wait(timeout=draw.uniform(0.01, 0.6))
        except subprocess.TimeoutExpired:
            child.kill()
        lines = child.communicate(timeout=CHILD_START_S_MAX)[0].splitlines()
        assert child.returncode == -signal.SIGKILL
        with BlockStore.open(home, capacity_bytes=1 << 40) as store:
            roots = acknowledged(lines)
            for root in roots[-8:]:
                check_whole(store, root)
            seen += len(roots)
            assert os.listdir(store.temporary_folder) == []
            files = {str(CID.decode(file)) for file in store._index.files()}
            found = {name for _, _, names in os.walk(home / "flat") for name in names}
            assert found == files
            store.collect()
    assert seen > KILLS  # the kills came while there was something to lose


def check_sound(store):
    """Whatever is here is what it is called, and the index and the folder agree."""
    assert os.listdir(store.temporary_folder) == []
    files = {str(CID.decode(file)) for file in store._index.files()}
    found = {
        name
        for _, _, names in os.walk(os.path.dirname(store.temporary_folder) + "/flat")
        for name in names
    }
    assert found == files
    with store._index.read() as reader:
        known = [multihash for multihash, _ in reader.blocks(b"")]
    for multihash in known:
        cid = CID.decode(b"\x01\x55" + multihash)
        block = store.get_block(cid)
        assert block is None or cid.matches(block)
        assert (block is not None) == store.has(cid) == (store.size(cid) is not None)
    for file in store._index.files():
        check_whole(store, CID.decode(file))
    assert store.usage_bytes >= sum(
        store.flat_file(CID.decode(f)).size for f in store._index.files()
    )


@pytest.mark.parametrize("script", [COLLECTING, AUTOMATIC], ids=["at once", "automatic"])
def test_after_kill_9_during_collections_what_is_pinned_is_whole_and_all_is_sound(tmp_path, script):
    draw = random.Random(3)
    home = tmp_path / "store"
    pinned = collected = 0
    for kill in range(KILLS * 2):
        if kill >= KILLS // 2 and min(pinned, collected) > 2:
            break  # the kills came while there was something to lose
        child = start(home, tmp_path, kill, script)
        try:
            child.wait(timeout=draw.uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            child.kill()
        lines = child.communicate(timeout=CHILD_START_S_MAX)[0].splitlines()
        assert child.returncode == -signal.SIGKILL
        with BlockStore.open(home, capacity_bytes=1 << 40) as store:
            check_sound(store)
            words = [line.split(" ") for line in lines if line.startswith(("pinned", "added"))]
            roots = [CID.parse(root) for word, root in words if word == "pinned"]
            for root in roots:
                check_whole(store, root)
                store.unpin(root)
            pinned += len(roots)
            others = [CID.parse(root) for word, root in words if word == "added"]
            collected += sum(not store.has(root) for root in others)
            for pin in store.pins():  # of what was not acknowledged any more
                check_whole(store, pin)
                store.unpin(pin)
            if kill % 2:
                store.collect()
                assert (store.usage_bytes, store._index.dropped) == (0, frozenset())
            check_sound(store)
    assert min(pinned, collected) > 2


def write_limit(size):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


FULL = """
import io, sys
from lichen.content import *
with BlockStore.open(sys.argv[1], capacity_bytes=1 << 40, map_bytes=1 << 30) as store:
    kept = store.add_file(io.BytesIO(b"kept" * 30_000), pin=True)[0]
    small = store.add_file(io.BytesIO(b"small"), pin=True)[0]
    used = store.usage_bytes
    refused = 0
    for attempt in range(3):
        try:
            store.add_file(io.BytesIO(bytes([attempt]) * (20 << 20)))
        except DiskFullError:
            refused += 1
    try:
        with store.ingest() as ingest:
            for n in range(400):
                ingest.add_file(io.BytesIO(n.to_bytes(4, "big") * 16_000))
            ingest.commit()
    except DiskFullError:
        refused += 1
    assert refused == 4, refused
    assert store.usage_bytes == used
    assert store.flat_file(kept).pread(10) == b"keptkeptke"
    assert store.small_file(small) == b"small"
    for n in range(400):  # until the index itself cannot grow
        try:
            store.add_file(io.BytesIO(n.to_bytes(4, "big") * 16_000), pin=True)
        except DiskFullError:
            break
    assert 50 < n < 200, n
    assert len(store.pins()) == 2 + n
    assert store.small_file(small) == b"small"
    if "collect" in sys.argv:
        for pin in store.pins()[: n // 2]:
            if pin not in (kept, small):
                store.unpin(pin)
        before = store.usage_bytes
        assert store.collect() > 1_000_000
        assert store.usage_bytes < before
        again = store.add_file(io.BytesIO(b"room" * 16_000), pin=True)[0]
        assert store.small_file(again) == b"room" * 16_000
    print("whole", len(store.pins()) - 2)
"""


@pytest.mark.parametrize("then", ["stop", "collect"])
def test_a_disk_that_fills_up_while_writing_leaves_the_store_whole(tmp_path, then):
    """And a collection, for which there is no room either, makes some."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "store", then],
        preexec_fn=write_limit(8 * MIB),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.startswith("whole"), ended.stderr
    added = int(ended.stdout.split()[1])
    with BlockStore.open(tmp_path / "store", capacity_bytes=GIB) as store:
        pins = store.pins()
        assert len(pins) == 2 + added
        for pin in pins:
            check_whole(store, pin)
        assert os.listdir(store.temporary_folder) == []
        assert (
            len([name for _, _, names in os.walk(tmp_path / "store/flat") for name in names]) == 1
        )
