"""Mark and sweep: what no pin reaches may go.

A flat file stays as long as any block in it is needed, and then with its whole DAG, so that what
the index says of it stays true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.content.cid import CID, IDENTITY
from lichen.content.dag import links_of
from lichen.content.index import Form, Index, IndexWriter, Run
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable


def reachable(index: Index, roots: Iterable[CID], *, with_files: bool = True) -> set[bytes]:
    """Return the multihashes of all blocks here that are at or below `roots`.

    `with_files` adds the DAGs of all flat files that hold any of them. Missing blocks are passed
    over: a DAG may be here in part.
    """
    found: set[bytes] = set()
    pending = list(roots)
    while pending:
        cid = pending.pop()
        if cid.multihash in found:
            continue
        block = cid.digest if cid.hash_code == IDENTITY else index.get(cid.multihash)
        if block is None:
            continue
        found.add(cid.multihash)
        if not isinstance(block, Run):
            pending.extend(_links(cid, block))
        elif with_files:
            pending.append(CID.decode(block.file))
    return found


def _links(cid: CID, block: bytes) -> list[CID]:
    try:
        return links_of(cid, block)
    except UserError:  # stored by its hash although its codec cannot read it: nothing is below
        return []


def sweep(
    index: Index, writer: IndexWriter, live: set[bytes], doomed: set[bytes] | None = None
) -> list[bytes]:
    """Drop what is not live (and doomed, where given); return the roots of the files dropped.

    A run leaves the index only together with its flat file.
    """

    def goes(multihash: bytes) -> bool:
        return multihash not in live and (doomed is None or multihash in doomed)

    files = [file for file in index.files() if goes(CID.decode(file).multihash)]
    gone = set(files)
    blocks = [
        multihash
        for multihash, form, file in writer.blocks()
        if (goes(multihash) if form is Form.INLINE else file in gone)
    ]
    for multihash in blocks:
        writer.drop_block(multihash)
    for file in files:
        writer.drop_file(file)
    return files
