"""What is imported by several tools to compare root CIDs: entries, their content, and our answer.

A case is a list of entries `{path, seed, bytes}`, `{path, directory: true}` or `{path, link}` below
one top name.
"""

import hashlib
import os

from lichen.content.importer import (
    FileBuilder,
    import_bytes,
    import_directory,
    import_symlink,
    leaf_digest,
)

MIB = 1 << 20
CHUNK_MAX = 8 * MIB
ODD_NAMES = ["a b", "ünï çødé", "日本語", "%20", "emoji 🌱.txt", "dot.", "-rf", "q?x=1#y", "A", "a", "'\"<&", "ﬀ", "a\u0301", "á"]  # fmt: skip
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


def file(path, size, seed=7):
    return {"path": path, "seed": seed, "bytes": size}


def entries_at_threshold(excess):
    """A directory whose links' names and CIDv0s have just 256 KiB, and `excess` bytes more."""
    count = 2048
    lengths = [94] * count  # and 34 bytes of CID are 128 each
    lengths[-1] += excess
    return [file(f"d/{n:04}{'n' * (length - 4)}", 1, n) for n, length in enumerate(lengths)]


def block_at_threshold(excess):
    """A directory whose block has just 256 KiB, and `excess` bytes more.

    A link takes 2 bytes, the CID 38, the name 2 more than its length and the size 2; the UnixFS
    data 4.
    """
    count = 2048
    lengths = [84] * count  # 128 for each link
    lengths[-1] += excess - 4
    return [file(f"d/{n:04}{'n' * (length - 4)}", 1, n) for n, length in enumerate(lengths)]


CASES = {f"file of {size}": [file("f", size)] for size in SIZES} | {
    "just over the legacy width": [file("f", 174 * (MIB // 4) + 1)],
    "small directory": [file("d/a", 10), file("d/b", 300), file("d/c", 2 * MIB)],
    "empty directory": [{"path": "d", "directory": True}],
    "nested": [file("d/x/y/z/deep", 5), file("d/x/top", 6), file("d/w", 7), {"path": "d/e", "directory": True}],
    "deep": [file("d/" + "/".join(f"{n}" for n in range(60)) + "/f", 9)],
    "odd names": [file(f"d/{name}", 3, seed) for seed, name in enumerate(ODD_NAMES)],
    "long names": [file(f"d/{'x' * length}", 3, length) for length in (1, 127, 128, 255)],
    "symlink": [file("d/a", 10), {"path": "d/l", "link": "../somewhere/a"}],
    "3000 entries": [file(f"d/entry-{i:05}-with-a-name-of-ordinary-length.txt", i % 50, i) for i in range(3000)],
    "6000 entries": [file(f"d/{i}-{'n' * (i % 90)}", i % 5, i) for i in range(6000)],
    "links of 256 KiB": entries_at_threshold(0),
    "links of 256 KiB and a byte": entries_at_threshold(1),
    "a block of 256 KiB": block_at_threshold(0),
    "a block of 256 KiB and a byte": block_at_threshold(1),
    "large directory in a directory": [file(f"d/sub/{i}-{'n' * 60}", 1, i) for i in range(4000)] + [file("d/z", 1)],
}  # fmt: skip

LARGE_CASES = {
    "file of 300 MB": [file("f", 300_000_000)],
    "100,000 entries": [file(f"d/{i:06}.txt", i % 7, i) for i in range(100_000)],
}

ROWS = [bytes((first + i) & 255 for i in range(251)) for first in range(256)]


def content(seed, size):
    """Byte i is (seed + i + i // 251) mod 256: row n, of 251 bytes, begins with seed + 252 n."""
    return b"".join(pieces(seed, size))


def pieces(seed, size):
    """Yield the content in pieces of 64 rows, which repeat, at most CHUNK_MAX each."""
    period = b"".join(ROWS[seed + 252 * n & 255] for n in range(64))
    whole = period * (min(size, CHUNK_MAX) // len(period) + 1)
    step = len(whole)
    for start in range(0, size, step):
        yield whole[: min(step, size - start)]


def answer(entries, profile, put=None):
    """Return what we make of a case: its root CID and the bytes of all its blocks."""
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
        if node["bytes"] > CHUNK_MAX:
            return build_long(node, profile, put)
        return import_bytes(content(node["seed"], node["bytes"]), profile, put)
    links = [build(child, profile, put).link(name) for name, child in node.items()]
    return import_directory(links, profile, put)


def build_long(node, profile, put):
    builder = FileBuilder(profile, put)
    rest = b""
    for piece in pieces(node["seed"], node["bytes"]):
        rest += piece
        whole = len(rest) - len(rest) % profile.chunk_bytes
        for start in range(0, whole, profile.chunk_bytes):
            chunk = memoryview(rest)[start : start + profile.chunk_bytes]
            builder.leaf(leaf_digest(chunk, profile), len(chunk))
        rest = rest[whole:]
    if rest:
        builder.leaf(leaf_digest(rest, profile), len(rest))
    return builder.finish()


def discard(cid, block):
    assert len(block) < 2 * MIB, cid
    assert hashlib.sha256(block).digest() == cid.digest


def write(entries, folder):
    """Write a case to disk; return the path of its top."""
    for entry in entries:
        path = os.path.join(folder, entry["path"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if "link" in entry:
            os.symlink(entry["link"], path)
        elif entry.get("directory"):
            os.makedirs(path, exist_ok=True)
        else:
            with open(path, "wb") as out:
                out.writelines(pieces(entry["seed"], entry["bytes"]))
    return os.path.join(folder, entries[0]["path"].split("/")[0])
