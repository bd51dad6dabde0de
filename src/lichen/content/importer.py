"""From files and directories to blocks: the balanced layout, plain and HAMT directories, symlinks.

Pure: blocks go to a `put` that the caller gives. A file's leaves are hashed by the caller, who
reads them anyway; `FileBuilder` makes the nodes above them in memory bounded by width x height.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import msgspec

from lichen.content import dag_pb, hamt, unixfs
from lichen.content.cid import CID, DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.profile import HAMT_THRESHOLD_BYTES, DirectoryMeasure, Profile
from lichen.errors import UserError

NAME_BYTES_MAX = 255
TARGET_BYTES_MAX = 4096
Put = Callable[[CID, bytes], None]


class Root(msgspec.Struct, frozen=True):
    """What was imported: its CID, the bytes of its content, and of all blocks (`Tsize`)."""

    cid: CID
    file_bytes: int
    total_bytes: int

    def link(self, name: str) -> Link:
        """Return the directory entry for this."""
        return Link(self.cid, name, self.total_bytes)


def leaf_digest(chunk: bytes | memoryview, profile: Profile) -> bytes:
    """Return the SHA-256 of the leaf block that holds a chunk of a file."""
    if profile.raw_leaves:
        return hashlib.sha256(chunk).digest()
    before, behind = unixfs.wrap_leaf(len(chunk))
    hasher = hashlib.sha256(before)
    hasher.update(chunk)
    hasher.update(behind)
    return hasher.digest()


def leaf_cid(digest: bytes, profile: Profile) -> CID:
    """Return the CID of a leaf with that digest."""
    if profile.raw_leaves:
        return CID(RAW, digest)
    return CID(DAG_PB, digest, version=profile.cid_version)


def leaf_block(chunk: bytes, profile: Profile) -> bytes:
    """Return the block that holds a chunk of a file."""
    if profile.raw_leaves:
        return chunk
    before, behind = unixfs.wrap_leaf(len(chunk))
    return before + chunk + behind


class FileBuilder:
    """Grows the nodes above a file's leaves, level by level, as leaves arrive in order."""

    def __init__(self, profile: Profile, put: Put) -> None:
        self._profile = profile
        self._put = put
        self._levels: list[list[Root]] = [[]]

    def leaf(self, digest: bytes, length: int) -> CID:
        """Take the next leaf: the digest of its block, the bytes of its chunk."""
        around = 0 if self._profile.raw_leaves else sum(map(len, unixfs.wrap_leaf(length)))
        cid = leaf_cid(digest, self._profile)
        self._add(0, Root(cid, length, length + around))
        return cid

    def finish(self) -> Root:
        """Return the file; at least one leaf (of an empty chunk, if need be) has been taken."""
        height = 0
        while height < len(self._levels) - 1 or len(self._levels[height]) > 1:
            if self._levels[height]:
                self._pack(height)
            height += 1
        return self._levels[height][0]

    def _add(self, height: int, child: Root) -> None:
        if height == len(self._levels):
            self._levels.append([])
        self._levels[height].append(child)
        if len(self._levels[height]) == self._profile.width:
            self._pack(height)

    def _pack(self, height: int) -> None:
        children = self._levels[height]
        self._levels[height] = []
        message = unixfs.UnixFS(
            unixfs.Kind.FILE,
            file_bytes=sum(child.file_bytes for child in children),
            child_bytes=tuple(child.file_bytes for child in children),
        )
        block = dag_pb.encode((child.link("") for child in children), unixfs.encode(message))
        cid = _put_dag_pb(block, self._profile, self._put)
        total_bytes = len(block) + sum(child.total_bytes for child in children)
        self._add(height + 1, Root(cid, message.file_bytes or 0, total_bytes))


def _put_dag_pb(block: bytes, profile: Profile, put: Put) -> CID:
    cid = CID(DAG_PB, hashlib.sha256(block).digest(), version=profile.cid_version)
    put(cid, block)
    return cid


def import_bytes(data: bytes, profile: Profile, put: Put) -> Root:
    """Import a file that is in memory."""
    builder = FileBuilder(profile, put)
    for offset in range(0, max(1, len(data)), profile.chunk_bytes):
        chunk = data[offset : offset + profile.chunk_bytes]
        cid = builder.leaf(leaf_digest(chunk, profile), len(chunk))
        put(cid, leaf_block(chunk, profile))
    return builder.finish()


def import_directory(entries: Iterable[Link], profile: Profile, put: Put) -> Root:
    """Write a directory of entries that have been imported: one block, or a HAMT when too large."""
    links = dag_pb.sort_links(_checked(entries))
    _check_distinct(links)
    block = dag_pb.encode(links, unixfs.encode(unixfs.UnixFS(unixfs.Kind.DIRECTORY)))
    if _measure(links, block, profile) > HAMT_THRESHOLD_BYTES:
        cid, total_bytes = hamt.build(links, lambda shard: _put_dag_pb(shard, profile, put))
        return Root(cid, 0, total_bytes)
    total_bytes = len(block) + sum(link.total_bytes or 0 for link in links)
    return Root(_put_dag_pb(block, profile, put), 0, total_bytes)


def _measure(links: list[Link], block: bytes, profile: Profile) -> int:
    if profile.measure is DirectoryMeasure.BLOCK_BYTES:
        return len(block)
    return sum(len((link.name or "").encode()) + len(link.cid.encode()) for link in links)


def _checked(links: Iterable[Link]) -> Iterator[Link]:
    for link in links:
        check_name(link.name or "")
        yield link


def _check_distinct(links: list[Link]) -> None:
    for before, behind in itertools.pairwise(links):
        if before.name == behind.name:
            raise UserError(f"a directory has two entries named {before.name!r}")


def check_name(name: str) -> None:
    """Raise UserError where a name cannot stand in a directory."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise UserError(f"the file name {name!r} is not UTF-8", hint="rename the file") from error
    if not 0 < size <= NAME_BYTES_MAX or "/" in name or "\0" in name or name in {".", ".."}:
        raise UserError(f"{name[:80]!r} cannot be a file name", hint="rename the file")


def import_symlink(target: str, profile: Profile, put: Put) -> Root:
    """Write a symlink to `target`, kept as it is and never followed."""
    data = target.encode("utf-8", "surrogateescape")
    if len(data) > TARGET_BYTES_MAX:
        raise UserError(f"a symlink's target is over {TARGET_BYTES_MAX} bytes")
    block = dag_pb.encode((), unixfs.encode(unixfs.UnixFS(unixfs.Kind.SYMLINK, data=data)))
    return Root(_put_dag_pb(block, profile, put), 0, len(block))
