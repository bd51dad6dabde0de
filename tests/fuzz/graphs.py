"""DAGs of hostile blocks: every claim may be a lie, every block may be linked many times."""

from __future__ import annotations

import contextlib
import itertools

from lichen.content import CID, dag_pb, hamt, reader, unixfs, walk
from lichen.content.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW
from lichen.content.dag_pb import Link
from lichen.content.murmur3 import murmur3_x64_64
from lichen.content.unixfs import HAMT_MURMUR3, Kind, UnixFS
from lichen.errors import UserError
from tests.fuzz.kit import Counted, Dice, outcome, refusals, require, target

BLOCKS_MAX = 24
BYTES_MAX = 4096
ENTRIES_MAX = 500
NAMES = ("a", "b", "index.html", "_redirects", "_headers", "404.html", "..", "", "a/b", "ä")
READS_MAX = 30_000


class Graph:
    """Blocks made from the bottom up: each may link to all before it."""

    def __init__(self, dice: Dice, blocks: Counted) -> None:
        self.dice = dice
        self.blocks = blocks
        self.cids: list[CID] = [blocks.put(RAW, b"leaf")]
        self.sizes: dict[CID, int] = {self.cids[0]: 4}
        while dice and len(self.cids) < BLOCKS_MAX:
            make = dice.choose((self._file, self._shard, self._folder, self._raw, self._other))
            self.cids.append(make())
        self.root = self.cids[-1]

    def _some(self) -> list[CID]:
        return [self.dice.choose(self.cids[-8:]) for _ in range(self.dice.below(5))]

    def _node(self, links: list[Link], message: UnixFS) -> CID:
        return self.blocks.put(DAG_PB, dag_pb.encode(links, unixfs.encode(message)))

    def _raw(self) -> CID:
        data = self.dice.run()
        is_inline = self.dice.byte() > 200
        cid = CID(RAW, data, IDENTITY) if is_inline else self.blocks.put(RAW, data)
        self.sizes[cid] = len(data)
        return cid

    def _file(self) -> CID:
        dice, below = self.dice, self._some()
        sizes = [self.sizes.get(cid, 0) for cid in below]
        if dice.byte() > 200 and sizes:
            sizes[dice.below(len(sizes))] = dice.number()
        if dice.byte() > 240:
            sizes.append(dice.number())
        data = dice.run() if dice.byte() > 128 else None
        total = len(data or b"") + sum(sizes)
        claim = dice.choose((total, total, None, total & (2**64 - 1), dice.number()))
        kind = dice.choose((Kind.FILE, Kind.FILE, Kind.RAW))
        sizes = [size & (2**64 - 1) for size in sizes]
        message = UnixFS(kind, data, claim and claim & (2**64 - 1), tuple(sizes))
        cid = self._node(
            [Link(link, "", size) for link, size in zip(below, sizes, strict=False)], message
        )
        self.sizes[cid] = total
        return cid

    def _folder(self) -> CID:
        links = [Link(cid, self._name(), self.dice.number()) for cid in self._some()]
        return self._node(links, UnixFS(Kind.DIRECTORY))

    def _name(self) -> str:
        return self.dice.choose((*NAMES, None)) or self.dice.text()

    def _shard(self) -> CID:
        dice = self.dice
        fanout = dice.choose((8, 256, 16, 1024, 8, 7, dice.byte()))
        kind = dice.choose((HAMT_MURMUR3, HAMT_MURMUR3, HAMT_MURMUR3, 0x12))
        links = [Link(cid, self._label(fanout), 1) for cid in self._some()]
        return self._node(links, UnixFS(Kind.HAMT_SHARD, b"\xff", hash_type=kind, fanout=fanout))

    def _label(self, fanout: int) -> str:
        dice = self.dice
        letters = hamt.prefix_letters(max(2, fanout))
        name = self._name()
        how = dice.byte()
        if how > 230:
            return name
        if how > 100:  # where it belongs, at some depth
            with contextlib.suppress(UserError):
                slot = hamt.position(murmur3_x64_64(name.encode()), how % 3, max(2, fanout))
                return f"{slot:0{letters}X}{name}"
        return f"{how % max(1, fanout):0{letters}X}" + (name if how > 60 else "")

    def _other(self) -> CID:
        dice = self.dice
        kind = dice.byte() % 4
        if kind == 0:
            target_text = dice.choose((b"../../etc/passwd", b"a", b"/a", b"\xff"))
            return self._node([], UnixFS(Kind.SYMLINK, target_text))
        if kind == 1:
            link = b"\xd8\x2a" + b"\x58\x25\0" + self.cids[0].encode()
            return self.blocks.put(DAG_CBOR, b"\xa1\x61a" + link)
        if kind == 2:
            return self.blocks.put(DAG_PB, dice.run())
        return CID.of(RAW, dice.run())  # nobody has it


def _graph(data: bytes) -> tuple[Graph, Counted, Dice]:
    dice = Dice(data)
    blocks = Counted({}, READS_MAX)
    return Graph(dice, blocks), blocks, dice


BEGIN = (
    bytes(64),
    b"\x00\x02\0\0\0\0\0\0" * 8,
    b"\x01\x01\0\0\x80\0\x50" * 10,
    b"\x02\x03\0\0\1\0\2\0" * 9,
)


@target("file-dag", *BEGIN)
def file_dag(data: bytes) -> None:
    graph, blocks, dice = _graph(data)
    root = graph.root
    size = outcome(lambda: reader.stat(blocks, root).file_bytes)
    blocks.reads = 0
    content = outcome(lambda: _content(blocks, root))
    depth = len(graph.cids) + 2
    require(blocks.reads <= depth * (BYTES_MAX + 2), "more reads than bytes")
    if isinstance(content, bytes) and isinstance(size, int):
        if len(content) < BYTES_MAX:
            require(len(content) == size or not reader.stat(blocks, root).is_file)
        _check_ranges(blocks, root, content, dice)
    small = reader.small_content(blocks, root, 64)
    if small is not None:
        require(small == content, "small_content says something else")


def _content(blocks: Counted, root: CID, start: int = 0, end: int | None = None) -> bytes:
    found = bytearray()
    for part in reader.read_file(blocks, root, start, end):
        require(part, "an empty part")
        found += part
        if len(found) >= BYTES_MAX:
            break
    return bytes(found[:BYTES_MAX])


def _check_ranges(blocks: Counted, root: CID, content: bytes, dice: Dice) -> None:
    """A part is what the whole has there, and takes no more reads than its bytes."""
    start = dice.below(len(content) + 2)
    end = start + dice.below(40)
    blocks.reads = 0
    part = _content(blocks, root, start, end)
    if end <= len(content):
        require(part == content[start:end], "a range has other bytes")
    require(blocks.reads <= (BLOCKS_MAX + 2) * (len(part) + 2), "more reads than bytes")


@target("folder-dag", *BEGIN)
def folder_dag(data: bytes) -> None:
    graph, blocks, dice = _graph(data)
    root = graph.root
    listed: list[reader.DirectoryEntry] = []
    with refusals():
        listed.extend(itertools.islice(reader.list_directory(blocks, root), ENTRIES_MAX))
        _check_listing(blocks, root, listed)
    require(blocks.reads <= 23 * (len(listed) + 4) * 2, f"{blocks.reads} reads for {len(listed)}")
    blocks.reads = 0
    path = [dice.choose(NAMES) for _ in range(dice.below(6))]
    trail = outcome(lambda: reader.follow(blocks, root, path))
    require(blocks.reads <= 70 * (len(path) + 1))
    if isinstance(trail, tuple):
        require(trail[0] == root)
        require(len(trail) == 1 + sum(map(bool, path)))
        outcome(lambda: reader.stat(blocks, trail[-1]))


def _check_listing(blocks: Counted, root: CID, listed: list[reader.DirectoryEntry]) -> None:
    """What is listed is what is found by its name; of equal names the first."""
    first: dict[str, CID] = {}
    for entry in listed:
        first.setdefault(entry.name, entry.cid)
    for name, cid in itertools.islice(first.items(), 8):
        link = reader.lookup(blocks, root, name)
        require(link is not None, f"{name!r} is listed, but not found")
        require(link.cid == cid, f"{name!r} is found elsewhere than listed")


@target("walk", *BEGIN)
def walk_dag(data: bytes) -> None:
    graph, blocks, _ = _graph(data)
    seen: set[CID] = set()
    with refusals():
        for cid, block in walk(blocks, graph.root):
            require(cid not in seen, "a block twice")
            seen.add(cid)
            require(cid.matches(block))
    require(blocks.reads <= len(graph.cids) + 1)
