"""Content from a gateway that is not trusted: each block is checked before it is used."""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING

from lichen.cli.project.stream import StreamedBlocks
from lichen.content import ipld, reader
from lichen.content.blocks import CheckedBlocks, need_block
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, RAW
from lichen.errors import LimitError, NotFoundError, PeerError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lichen.content.blocks import Blocks
    from lichen.content.reader import Entry
    from lichen.sdk.client import Client

RAW_BLOCK = "application/vnd.ipld.raw"
FOLDER_DEPTH_MAX = 128  # what can be added can be fetched
FILES_MAX = 1 << 20


def blocks_of(
    client: Client, progress: Callable[[int], None] | None = None, *, scope: str = "all"
) -> StreamedBlocks:
    """Return a gateway's blocks, verified; `progress` hears how many bytes have come.

    `scope` says what will be followed: `all` below a root, or a directory's `entity` alone.
    """

    def get(cid: CID) -> bytes | None:
        answer = client.call(f"/ipfs/{cid}?format=raw", headers={"accept": RAW_BLOCK})
        if answer.status in {404, 410}:
            raise NotFoundError(
                f"neither the gateway nor its nodes have block {cid}",
                hint="ask who added it, or another gateway",
            )
        if answer.status != 200:
            raise PeerError(f"the gateway answered {answer.status} for {cid}", hint="try again")
        return answer.body

    return StreamedBlocks(CheckedBlocks(get), lambda cid: client.car(cid, scope), progress)


def locate(blocks: Blocks, text: str) -> Entry:
    """Find what `CID[/path]` or `/ipfs/CID[/path]` leads to."""
    cid = _follow(blocks, text)
    if cid.codec in (DAG_CBOR, DAG_JSON):
        raise UserError(f"{cid} is neither file nor folder", hint="show it: --format dag-json")
    return reader.stat(blocks, cid)


def _follow(blocks: Blocks, text: str) -> CID:
    name, _, path = text.removeprefix("/ipfs/").partition("/")
    return reader.follow(blocks, CID.parse(name), path)[-1]


def read_block(blocks: Blocks, text: str, form: str) -> tuple[CID, bytes]:
    """Return the one block that a path leads to, in the codec named; raise UserError."""
    codec = ipld.CODEC_NAMES.get(form)
    if codec is None:
        raise UserError(f"there is no form {form!r}", hint=f"one of {', '.join(ipld.CODEC_NAMES)}")
    cid = _follow(blocks, text)
    block = need_block(blocks, cid)
    return cid, block if codec == RAW else ipld.convert(block, cid.codec, codec)


def write_bytes(data: bytes, target: Path | None) -> None:
    """Write bytes to a file, or to stdout without one."""
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _write_parts((data,), target)


def write(blocks: Blocks, entry: Entry, target: Path | None) -> int:
    """Write a file (to stdout without a target) or a whole folder; return the number of files."""
    if entry.target is not None:
        shown = ascii(entry.target[:80])
        raise UserError(f"this is a symlink to {shown}", hint="fetch what it leads to")
    if target is None:
        if not entry.is_file:
            raise UserError("this is a folder", hint="say where it goes: -o FOLDER")
        for part in reader.read_file(blocks, entry.cid):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return 1
    if entry.is_file:
        return _write_file(blocks, entry, target)
    return _write_folder(blocks, entry, target, 0, itertools.count(1))


def _write_file(blocks: Blocks, entry: Entry, target: Path, *, sync: bool = True) -> int:
    _write_parts(reader.read_file(blocks, entry.cid), target, sync=sync)
    return 1


def _write_parts(parts: Iterable[bytes | memoryview], target: Path, *, sync: bool = True) -> None:
    """Write to a neighbour first, so that a broken transfer never looks like the file.

    The many files of a folder are not synced one by one: that took longer than all the rest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with open(_open_new(partial), "wb") as stream:
        stream.writelines(parts)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())
    partial.replace(target)


def _write_folder(
    blocks: Blocks, entry: Entry, target: Path, depth: int, entries: Iterator[int]
) -> int:
    """Write a folder; `entries` counts all that is written, so that folders in folders end too."""
    if depth > FOLDER_DEPTH_MAX:
        raise LimitError(f"nested over {FOLDER_DEPTH_MAX} folders deep", hint="fetch a part of it")
    if not entry.is_directory:
        raise UserError(f"{target.name} is neither file nor folder", hint="it is left out upstream")
    if target.is_symlink():  # made by this very content, perhaps, to have us write elsewhere
        raise UserError(f"{target} is a symlink here", hint="write to another folder")
    target.mkdir(parents=True, exist_ok=True)
    count = 0
    for child in reader.list_directory(blocks, entry.cid):
        if next(entries) > FILES_MAX:
            raise LimitError(f"over {FILES_MAX} entries", hint="fetch a part of it")
        _check_name(child.name)
        inner = reader.stat(blocks, child.cid)
        place = target / child.name
        if inner.target is not None:
            _write_link(inner.target, place)
            count += 1
        elif inner.is_file:
            count += _write_file(blocks, inner, place, sync=False)
        else:
            count += _write_folder(blocks, inner, place, depth + 1, entries)
    return count


def _open_new(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise UserError(f"{path} is a symlink", hint="write to another folder") from error
        raise


def _write_link(target: str, place: Path) -> None:
    """Write a symlink as it was; nothing is written through it."""
    if place.is_symlink():
        place.unlink()
    try:
        place.symlink_to(target)
    except (FileExistsError, ValueError) as error:
        raise UserError(f"{place} cannot become a symlink", hint="write to a new folder") from error


def _check_name(name: str) -> None:
    """Refuse a name that would leave the folder: whoever made the content chose it."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name or "\\" in name:
        raise UserError(f"the entry {name[:80]!r} cannot be a file name", hint="fetch other parts")
