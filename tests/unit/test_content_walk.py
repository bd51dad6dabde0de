"""Walks over DAGs: order, duplicates, ranges of files, and DAGs that repeat themselves for ever."""

import gc
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.content import (
    CID,
    DAG_CBOR,
    DAG_PB,
    RAW,
    V0_2015,
    V1_2025,
    Link,
    MissingBlockError,
    dag_pb,
    import_directory,
    unixfs,
    walk,
)
from lichen.content import walk as walks
from lichen.content.cid import IDENTITY
from lichen.content.importer import FileBuilder, leaf_block, leaf_digest
from lichen.content.unixfs import Kind, UnixFS
from lichen.content.walk import (
    FREE_BYTES,
    SEEN_BYTES,
    Memory,
    nothing_below,
    range_below,
    shards_below,
)
from lichen.encoding import canonical
from lichen.errors import LimitError, UserError
from lichen.wire.errors import BusyError


class Blocks(dict):
    def __init__(self):
        super().__init__()
        self.read = []

    def get_block(self, cid):
        self.read.append(cid)
        return self.get(cid.multihash)

    def put(self, codec, data):
        cid = CID.of(codec, data)
        self[cid.multihash] = data
        return cid

    def node(self, links, data=None):
        return self.put(DAG_PB, dag_pb.encode([Link(cid, "", 0) for cid in links], data))


def cids(found):
    return [cid for cid, _ in found]


def branch(blocks, children, own=b""):
    """Put a file's inner node that has bytes of its own, too, as trickle layouts do."""
    sizes = tuple(size for _, size in children)
    message = UnixFS(Kind.FILE, own or None, len(own) + sum(sizes), sizes)
    return blocks.node([cid for cid, _ in children], unixfs.encode(message)), message.file_bytes


def balanced(blocks, data, profile, chunk, width):
    """Put a file of any chunk size and width of nodes."""
    level = []
    for start in range(0, len(data), chunk):
        part = data[start : start + chunk]
        block = leaf_block(part, profile)
        level.append((blocks.put(RAW if profile.raw_leaves else DAG_PB, block), len(part)))
    while len(level) > 1:
        level = [branch(blocks, level[at : at + width]) for at in range(0, len(level), width)]
    return level[0][0]


def trickle(blocks, data, chunk):
    """Put a file as a chain: each node holds bytes, a leaf, and the rest of the file."""
    if len(data) <= 2 * chunk:
        return blocks.put(RAW, data), len(data)
    own, leaf, rest = data[:chunk], data[chunk : 2 * chunk], data[2 * chunk :]
    return branch(blocks, [(blocks.put(RAW, leaf), len(leaf)), trickle(blocks, rest, chunk)], own)


def test_a_walk_is_depth_first_in_the_order_of_links_each_block_once():
    blocks = Blocks()
    a, b = blocks.put(RAW, b"a"), blocks.put(RAW, b"b")
    inner = blocks.node([a, b])
    other = blocks.put(DAG_CBOR, canonical({"x": 1}))
    root = blocks.node([b, inner, other, inner])
    assert cids(walk(blocks, root)) == [root, b, inner, a, other]
    twice = cids(walk(blocks, root, dups=True))
    assert twice == [root, b, inner, a, b, other, inner, a, b]
    assert cids(walk(blocks, root, nothing_below)) == [root]


def test_identity_cids_are_followed_and_not_yielded():
    blocks = Blocks()
    leaf = blocks.put(RAW, b"leaf")
    inline = CID(DAG_PB, dag_pb.encode([Link(leaf)], None), IDENTITY)
    root = blocks.node([inline, CID(RAW, b"text", IDENTITY), inline])
    assert cids(walk(blocks, root)) == [root, leaf]
    assert cids(walk(blocks, root, dups=True)) == [root, leaf, leaf]
    assert cids(walk(blocks, inline)) == [leaf]
    assert IDENTITY not in {cid.hash_code for cid in blocks.read}


def test_the_same_bytes_under_another_codec_are_sent_once_and_followed():
    blocks = Blocks()
    leaf = blocks.put(RAW, b"leaf")
    node = blocks.node([leaf])
    as_raw = CID(RAW, node.digest)
    root = blocks.node([as_raw, node, as_raw, node])
    assert cids(walk(blocks, root)) == [root, as_raw, leaf]


def test_what_is_missing_is_named():
    blocks = Blocks()
    missing = CID.of(RAW, b"nobody has this")
    root = blocks.node([blocks.put(RAW, b"a"), missing])
    found = walk(blocks, root)
    assert len([next(found), next(found)]) == 2
    with pytest.raises(MissingBlockError) as caught:
        next(found)
    assert caught.value.cid == missing


def test_a_hamt_is_listed_without_its_entries():
    blocks = Blocks()
    file = blocks.put(RAW, b"file")
    links = [Link(file, f"a name that is long {number}", 4) for number in range(5000)]
    root = import_directory(links, V1_2025, lambda cid, data: blocks.update({cid.multihash: data}))
    shards = cids(walk(blocks, root.cid, shards_below))
    assert len(shards) == len(set(shards)) == len(blocks) - 1
    assert file not in shards
    everything = [cid for cid in cids(walk(blocks, root.cid)) if cid != file]
    assert shards == everything


def _range_of_file(blocks, root, data, start, end):
    """Walk a range, and read it back from just the blocks that came."""
    from lichen.content import read_file

    came = Blocks()
    for cid, block in walk(blocks, root, range_below(start, end)):
        assert cid.multihash not in came
        came[cid.multihash] = block
    assert b"".join(read_file(came, root, start, end)) == data[start:end]
    return came


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400), st.integers(3, 40), st.integers(2, 4), st.sampled_from([V1_2025, V0_2015]),
    st.integers(0, 400), st.integers(0, 400), st.booleans(),
)  # fmt: skip
def test_a_range_has_just_the_blocks_that_reading_it_takes(
    size, chunk, width, profile, start, end, repeats
):
    unique = b"".join(number.to_bytes(2, "big") for number in range(size))[:size]
    data = bytes(size) if repeats else unique
    start, end = sorted((start % size, end % size + 1))
    if start == end:
        return
    blocks = Blocks()
    root = balanced(blocks, data, profile, chunk, width)
    came = _range_of_file(blocks, root, data, start, end)
    if not repeats:
        inner = [block for block in came.values() if len(dag_links(block)) > 0]
        leaves = len(came) - len(inner)
        assert leaves == (end - 1) // chunk - start // chunk + 1
    deep, _ = trickle(blocks, data, chunk)
    _range_of_file(blocks, deep, data, start, end)


def dag_links(block):
    try:
        return dag_pb.decode(block).links
    except UserError:
        return ()


def test_a_range_reads_nothing_outside_of_it():
    blocks = Blocks()
    data = bytes(number % 251 for number in range(1000))
    root = balanced(blocks, data, V1_2025, 100, 4)
    whole = set(blocks)
    came = {cid.multihash for cid, _ in walk(blocks, root, range_below(450, 460))}
    for multihash in whole - came:
        del blocks[multihash]
    blocks.read.clear()
    assert {cid.multihash for cid, _ in walk(blocks, root, range_below(450, 460))} == came
    assert {cid.multihash for cid in blocks.read} == came


def test_sizes_that_contradict_each_other_end_a_range():
    blocks = Blocks()
    leaf = blocks.put(RAW, b"leaf")
    for children in ([(leaf, 5)], [(branch(blocks, [(leaf, 4)])[0], 3)]):
        root, size = branch(blocks, children)
        with pytest.raises(UserError):
            list(walk(blocks, root, range_below(0, size)))


def zeros(blocks, levels):
    """Put a file of 4 << levels zeros in so many blocks."""
    cid, size = blocks.put(RAW, bytes(4)), 4
    for _ in range(levels):
        cid, size = branch(blocks, [(cid, size), (cid, size)])
    return cid, size


def test_a_file_that_repeats_itself_is_walked_in_the_time_of_its_blocks():
    blocks = Blocks()
    root, size = zeros(blocks, 50)
    assert len(cids(walk(blocks, root))) == 51
    for start, end in ((0, size), (1, size - 1), (size // 3, size // 3 * 2)):
        blocks.read.clear()
        found = cids(walk(blocks, root, range_below(start, end)))
        assert len(found) == len(set(found)) <= 51
        assert len(blocks.read) < 4 * 51


def test_a_walk_has_a_bound_on_its_blocks(monkeypatch):
    monkeypatch.setattr(walks_module(), "BLOCKS_MAX", 1000)
    blocks = Blocks()
    root, _ = zeros(blocks, 50)
    with pytest.raises(LimitError):
        list(walk(blocks, root, dups=True))
    assert len(blocks.read) <= 1001


def walks_module():
    import sys

    assert walks is walk
    return sys.modules["lichen.content.walk"]


def test_all_walks_share_what_they_may_remember_and_give_it_back():
    blocks = Blocks()
    leaves = [blocks.put(RAW, b"%d" % number) for number in range(12_000)]
    parts = [blocks.node(leaves[at : at + 100]) for at in range(0, 12_000, 100)]
    root = blocks.node(parts)
    memory = Memory(FREE_BYTES * 3 // 2)
    first = walk(blocks, root, memory=memory)
    for _ in range(12_000):
        next(first)
    assert 12_000 * SEEN_BYTES > memory.used_bytes >= FREE_BYTES
    with pytest.raises(BusyError):
        list(walk(blocks, root, memory=memory))
    assert memory.used_bytes >= FREE_BYTES
    first.close()
    assert memory.used_bytes == 0
    assert len(list(walk(blocks, root, memory=memory))) == 12_121
    assert memory.used_bytes == 0


def test_a_walk_keeps_no_blocks():
    class Made:
        """A DAG of 2,000 leaves of 256 KiB, made when they are read."""

        def __init__(self):
            self.leaves = {}
            for number in range(2000):
                cid = CID.of(RAW, b"%d" % number)  # stands for a block nobody could keep
                self.leaves[cid.multihash] = number
            self.root_block = dag_pb.encode(
                [Link(CID(RAW, m[2:]), "", 0) for m in self.leaves], None
            )
            self.root = CID.of(DAG_PB, self.root_block)

        def get_block(self, cid):
            return self.root_block if cid == self.root else bytes(256 * 1024)

    made = Made()
    gc.collect()
    tracemalloc.start()
    total = sum(len(block) for _, block in walk(made, made.root))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > 500 << 20
    assert peak < 4 << 20


def test_a_file_of_the_importer_is_walked_in_the_order_of_its_bytes():
    blocks = Blocks()
    builder = FileBuilder(V1_2025, lambda cid, block: blocks.update({cid.multihash: block}))
    leaves = []
    for number in range(5):
        part = b"%d" % number * 10
        leaves.append(builder.leaf(leaf_digest(part, V1_2025), len(part)))
        blocks[leaves[-1].multihash] = leaf_block(part, V1_2025)
    root = builder.finish().cid
    assert cids(walk(blocks, root)) == [root, *leaves]
