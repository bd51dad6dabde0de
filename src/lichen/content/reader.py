"""Reading UnixFS: paths, listings and byte ranges over the blocks of any DAG.

A DAG may be hostile: its sizes and names are claims. Sizes are checked against the children they
describe, subtrees without bytes are not entered, and each entry of a HAMT has to stand where its
hash says; so the work done is bounded by the bytes or entries handed out.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from lichen.content import dag_pb, hamt, ipld, unixfs
from lichen.content.blocks import Blocks, need_block, read_part
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.murmur3 import murmur3_x64_64
from lichen.content.unixfs import Kind, Mtime, UnixFS
from lichen.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE_BYTES_MAX = 1 << 59  # more than exists; its length still is one in HTTP and in any database
FILE_DEPTH_MAX = 128
PATH_DEPTH_MAX = 256
PART_BYTES = 256 * 1024  # of a large leaf that a reader holds at once
SMALL_LEAVES_MAX = 64
SMALL_NODE_BYTES = 4096
_FILE_KINDS = (Kind.FILE, Kind.RAW)
_DIRECTORY_KINDS = (Kind.DIRECTORY, Kind.HAMT_SHARD)
_HEX = frozenset("0123456789ABCDEF")


class Entry(msgspec.Struct, frozen=True):
    """What a path leads to. `file_bytes` is the content's length; `target` a symlink's."""

    cid: CID
    kind: Kind
    file_bytes: int = 0
    target: str | None = None
    mode: int | None = None
    mtime: Mtime | None = None

    @property
    def is_file(self) -> bool:
        """Tell whether this has content to read."""
        return self.kind in _FILE_KINDS

    @property
    def is_directory(self) -> bool:
        """Tell whether this has entries to list."""
        return self.kind in _DIRECTORY_KINDS


class DirectoryEntry(msgspec.Struct, frozen=True):
    """A line of a listing; `total_bytes` (the link's claim) counts all blocks below the entry."""

    name: str
    cid: CID
    total_bytes: int | None


class Leaf(msgspec.Struct, frozen=True):
    """A run of a file's bytes that one block holds."""

    cid: CID
    offset: int
    length: int
    block: bytes


class Span(msgspec.Struct, frozen=True):
    """A run of a file's bytes and the block that holds it, not yet read."""

    cid: CID
    offset: int
    length: int


class FilePart(msgspec.Struct, frozen=True):
    """What one block of a file says: the bytes it holds itself, then its children and theirs."""

    own_bytes: int
    children: tuple[tuple[CID, int], ...] = ()


class _Node(msgspec.Struct, frozen=True):
    links: tuple[Link, ...]
    unixfs: UnixFS


def stat(blocks: Blocks, cid: CID) -> Entry:
    """Describe a UnixFS file, directory or symlink, or a raw block; raise UserError otherwise."""
    block = need_block(blocks, cid)
    if cid.codec == RAW:
        return Entry(cid, Kind.RAW, len(block))
    node = _decode(cid, block)
    message = node.unixfs
    if message.kind is Kind.METADATA:
        raise UserError(f"{cid} is UnixFS metadata, neither file nor directory")
    target = None
    if message.kind is Kind.SYMLINK:
        target = (message.data or b"").decode("utf-8", "surrogateescape")
    file_bytes = _file_bytes(node) if message.kind in _FILE_KINDS else 0
    return Entry(cid, message.kind, file_bytes, target, message.mode, message.mtime)


def resolve(blocks: Blocks, cid: CID, path: str | Sequence[str] = "") -> Entry:
    """Follow a path below `cid` as `follow` does, and describe what it leads to."""
    return stat(blocks, follow(blocks, cid, path)[-1])


def follow(blocks: Blocks, cid: CID, path: str | Sequence[str] = "") -> tuple[CID, ...]:
    """Return the CIDs along a path: `cid` itself, then one for each entry or link passed.

    Leads through UnixFS directories and through the links of dag-cbor and dag-json. Symlinks are
    not followed, empty segments are passed over. Raises NotFoundError where an entry is missing or
    a file stands in the middle of the path, MissingBlockError where a block is missing, and
    PartOfBlockError where the path ends inside a block.
    """
    segments = path.split("/") if isinstance(path, str) else path
    segments = [segment for segment in segments if segment]
    if len(segments) > PATH_DEPTH_MAX:
        raise UserError(f"a path of over {PATH_DEPTH_MAX} segments")
    trail = [cid]
    while segments:
        found, taken = _step(blocks, trail[-1], segments)
        segments = segments[taken:]
        trail.append(found)
        if len(trail) > PATH_DEPTH_MAX + 1:  # links that take no segment: blocks that are a link
            raise UserError(f"a path of over {PATH_DEPTH_MAX} blocks")
    return tuple(trail)


def _step(blocks: Blocks, cid: CID, segments: list[str]) -> tuple[CID, int]:
    if cid.codec in (DAG_CBOR, DAG_JSON):
        return ipld.next_link(cid, need_block(blocks, cid), segments)
    link = lookup(blocks, cid, segments[0])
    if link is None:
        raise NotFoundError(f"no entry {segments[0][:80]!r} in {cid}", hint="list the directory")
    return link.cid, 1


def lookup(blocks: Blocks, cid: CID, name: str) -> Link | None:
    """Find one entry of a directory; None when it has none of that name, or is none."""
    if cid.codec != DAG_PB:
        return None
    block = need_block(blocks, cid)
    data, link = dag_pb.find(block, name)
    kind = _unixfs(cid, data).kind
    if kind is Kind.HAMT_SHARD:
        return _lookup_in_hamt(blocks, _decode(cid, block), name)
    return link if kind is Kind.DIRECTORY else None


def _lookup_in_hamt(blocks: Blocks, node: _Node, name: str) -> Link | None:
    name_hash = murmur3_x64_64(name.encode("utf-8", "surrogatepass"))
    fanout = _check_shard(node)
    letters = hamt.prefix_letters(fanout)
    for depth in range(hamt.HASH_BITS):
        prefix = f"{hamt.position(name_hash, depth, fanout):0{letters}X}"
        found = [link for link in node.links if (link.name or "")[:letters] == prefix]
        for link in found:
            if link.name == prefix + name:
                return link
        if not found or found[0].name != prefix:
            return None
        node = _decode_shard(blocks, found[0].cid, fanout)
    return None


def list_directory(
    blocks: Blocks, cid: CID, start: int = 0, after: str | None = None
) -> Iterator[DirectoryEntry]:
    """Yield a directory's entries as its blocks have them, loading shards only when reached.

    From number `start` on. In a HAMT directory that needs all shards before; `after`, the name of
    the entry before, is found without them.
    """
    if cid.codec != DAG_PB:
        raise UserError(f"{cid} is not a directory")
    node = _decode(cid, need_block(blocks, cid))
    if node.unixfs.kind is Kind.HAMT_SHARD:
        found = _list_hamt(blocks, node, after)
        yield from itertools.islice(found, 0 if after else start, None)
        return
    if node.unixfs.kind is not Kind.DIRECTORY:
        raise UserError(f"{cid} is not a directory")
    for link in itertools.islice(node.links, start, None):
        yield DirectoryEntry(link.name or "", link.cid, link.total_bytes)


class _Behind:
    """The place of an entry in a HAMT, to pass over what is not behind it."""

    def __init__(self, name: str, fanout: int) -> None:
        self._hash = murmur3_x64_64(name.encode("utf-8", "surrogatepass"))
        self._fanout = fanout

    def passes(self, slots: tuple[int, ...], name: str) -> bool:
        """Tell whether a link may lead to something behind; `slots` is its place."""
        if name:
            return murmur3_x64_64(name.encode()) > self._hash
        bits = self._fanout.bit_length() - 1
        depth = min(len(slots), hamt.HASH_BITS // bits)
        place = tuple(hamt.position(self._hash, n, self._fanout) for n in range(depth))
        return slots >= place


def _list_hamt(blocks: Blocks, root: _Node, after: str | None) -> Iterator[DirectoryEntry]:
    fanout = _check_shard(root)
    letters = hamt.prefix_letters(fanout)
    behind = _Behind(after, fanout) if after else None
    stack: list[tuple[Link, tuple[int, ...]]] = [(link, ()) for link in reversed(root.links)]
    while stack:
        link, path = stack.pop()
        slots, name = _read_slot(link, path, letters)
        if behind is not None and not behind.passes(slots, name):
            continue
        if name:
            _check_place(name, slots, fanout)
            yield DirectoryEntry(name, link.cid, link.total_bytes)
            continue
        if (len(slots) + 1) * (fanout.bit_length() - 1) > hamt.HASH_BITS:
            raise UserError("a HAMT directory is deeper than its hash")
        shard = _decode_shard(blocks, link.cid, fanout)
        stack.extend((child, slots) for child in reversed(shard.links))


def _read_slot(link: Link, path: tuple[int, ...], letters: int) -> tuple[tuple[int, ...], str]:
    label = link.name or ""
    prefix = label[:letters]
    if len(prefix) != letters or not _HEX.issuperset(prefix):
        raise UserError(f"a HAMT link is named {label[:80]!r}, without a position")
    return (*path, int(prefix, 16)), label[letters:]


def _check_place(name: str, slots: tuple[int, ...], fanout: int) -> None:
    name_hash = murmur3_x64_64(name.encode())
    for depth, slot in enumerate(slots):
        if hamt.position(name_hash, depth, fanout) != slot:
            raise UserError(f"the HAMT entry {name[:80]!r} does not stand where its hash says")


def _decode_shard(blocks: Blocks, cid: CID, fanout: int) -> _Node:
    node = _decode(cid, need_block(blocks, cid))
    if node.unixfs.kind is not Kind.HAMT_SHARD or not node.links:
        raise UserError(f"{cid} is linked as a HAMT shard and is none, or is empty")
    if _check_shard(node) != fanout:
        raise UserError(f"the HAMT shard {cid} has another fanout than its parent")
    return node


def _check_shard(node: _Node) -> int:
    """Return a shard's fanout; raise UserError where it is not usable or a slot is taken twice.

    So each name stands at one place only, and a few blocks cannot stand for endless listings.
    """
    fanout = hamt.check_fanout(node.unixfs)
    letters = hamt.prefix_letters(fanout)
    if len({(link.name or "")[:letters] for link in node.links}) != len(node.links):
        raise UserError("a HAMT shard has two links in one slot")
    return fanout


def read_file(
    blocks: Blocks, cid: CID, start: int = 0, end: int | None = None
) -> Iterator[bytes | memoryview]:
    """Yield the bytes `start` .. `end` (exclusive; None is the file's end) of a file, in order."""
    if end is not None and end <= start:
        return
    for span in spans(blocks, cid, start, end):
        first = max(start - span.offset, 0)
        last = span.length if end is None else min(end - span.offset, span.length)
        if span.cid.codec == RAW and last - first > PART_BYTES:
            yield from _large_leaf(blocks, span, first, last)
        else:
            content = leaf_content(_leaf(blocks, span))
            yield content if (first, last) == (0, span.length) else memoryview(content)[first:last]


def _large_leaf(blocks: Blocks, span: Span, first: int, last: int) -> Iterator[bytes | memoryview]:
    """Yield a large block part by part, as far as its source can."""
    while first < last:
        end = min(first + PART_BYTES, last)
        found = read_part(blocks, span.cid, first, end)
        if found is None:
            yield memoryview(_leaf(blocks, span).block)[first:last]
            return
        part, length = found
        _check_size(span.cid, length, span.length)
        yield part
        first = end


def small_content(blocks: Blocks, cid: CID, bytes_max: int) -> bytes | None:
    """Return the content of a file of at most `bytes_max` in few blocks; None for all else.

    The work is bounded, so that it may be done where nothing else should wait for long.
    """
    block = blocks.get_block(cid) if cid.codec == DAG_PB else None
    if block is None or len(block) > bytes_max + SMALL_NODE_BYTES:
        return None
    try:
        node = _decode(cid, block)
        few = len(node.links) <= SMALL_LEAVES_MAX
        if node.unixfs.kind not in _FILE_KINDS or not few or _file_bytes(node) > bytes_max:
            return None
        if any(link.cid.codec != RAW for link in node.links):
            return None
        return b"".join(read_file(blocks, cid))
    except UserError:  # not UnixFS, contradictory, or not all of it is here
        return None


def leaf_content(leaf: Leaf) -> bytes:
    """Return the bytes of the file that a leaf's block holds."""
    if leaf.cid.codec == RAW:
        return leaf.block
    return _decode(leaf.cid, leaf.block).unixfs.data or b""


def leaves(blocks: Blocks, cid: CID, start: int = 0, end: int | None = None) -> Iterator[Leaf]:
    """Yield the blocks that hold the bytes `start` .. `end` of a file, in the order of the file.

    Raises UserError where the DAG is not a file or its sizes contradict each other.
    """
    for span in spans(blocks, cid, start, end):
        yield _leaf(blocks, span)


def _leaf(blocks: Blocks, span: Span) -> Leaf:
    block = need_block(blocks, span.cid)
    if span.cid.codec == RAW:
        _check_size(span.cid, len(block), span.length)
    return Leaf(span.cid, span.offset, span.length, block)


def spans(blocks: Blocks, cid: CID, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """Yield where the bytes `start` .. `end` of a file are, without reading its raw leaves.

    The length of a raw leaf is its parent's claim. Raises as `leaves`.
    """
    if cid.codec == RAW:
        size = len(need_block(blocks, cid))
        if start < size and end != 0:
            yield Span(cid, 0, size)
        return
    stack: list[tuple[CID, int, int | None, int]] = [(cid, 0, None, 0)]
    while stack:
        cid, offset, claimed, depth = stack.pop()
        if cid.codec == RAW and claimed is not None:
            yield Span(cid, offset, claimed)
            continue
        if depth > FILE_DEPTH_MAX:
            raise UserError(f"{cid} is too deep for a file")
        part = file_part(cid, need_block(blocks, cid), claimed)
        own = part.own_bytes
        if own and start < offset + own and (end is None or offset < end):
            yield Span(cid, offset, own)
        children = _children(part, offset + own, depth + 1)
        stack.extend(reversed([c for c in children if _overlaps(c, start, end)]))


def file_part(cid: CID, block: bytes, claimed: int | None = None) -> FilePart:
    """Read one block of a file, which holds the number of bytes that its parent claims.

    Raises UserError where it is no part of a file, or its sizes contradict each other.
    """
    if cid.codec == RAW:
        _check_size(cid, len(block), claimed)
        return FilePart(len(block))
    node = _decode(cid, block)
    if node.unixfs.kind not in _FILE_KINDS:
        raise UserError(f"{cid} is not a file")
    _check_size(cid, _file_bytes(node), claimed)
    cids = (link.cid for link in node.links)
    children = tuple(zip(cids, node.unixfs.child_bytes, strict=True))
    return FilePart(len(node.unixfs.data or b""), children)


def deeper_shards(cid: CID, block: bytes) -> list[CID]:
    """Return the shards that a HAMT directory's block links to, without its entries."""
    node = _decode(cid, block)
    letters = hamt.prefix_letters(hamt.check_fanout(node.unixfs))
    return [link.cid for link in node.links if len(link.name or "") == letters]


def _children(part: FilePart, offset: int, depth: int) -> Iterator[tuple[CID, int, int, int]]:
    for cid, size in part.children:
        yield cid, offset, size, depth
        offset += size


def _overlaps(child: tuple[CID, int, int, int], start: int, end: int | None) -> bool:
    _, offset, size, _ = child
    return size > 0 and offset + size > start and (end is None or offset < end)


def _check_size(cid: CID, actual: int, claimed: int | None) -> None:
    if claimed is not None and actual != claimed:
        raise UserError(f"{cid} holds {actual} bytes where its parent says {claimed}")


def _file_bytes(node: _Node) -> int:
    message = node.unixfs
    if len(node.links) != len(message.child_bytes):
        raise UserError("a UnixFS file has not one size for each child")
    actual = len(message.data or b"") + sum(message.child_bytes)
    if message.file_bytes is not None and message.file_bytes != actual:
        raise UserError(f"a UnixFS file of {actual} bytes says it has {message.file_bytes}")
    if actual > FILE_BYTES_MAX:
        raise UserError(f"a UnixFS file says it has {actual} bytes, over {FILE_BYTES_MAX}")
    return actual


def _decode(cid: CID, block: bytes) -> _Node:
    if cid.codec != DAG_PB:
        raise UserError(f"{cid} is not UnixFS", hint="ask for the raw block instead")
    node = dag_pb.decode(block)
    return _Node(node.links, _unixfs(cid, node.data))


def _unixfs(cid: CID, data: bytes | None) -> UnixFS:
    if data is None:
        raise UserError(f"{cid} is dag-pb without UnixFS data")
    return unixfs.decode(data)
