"""DAGs of any codec: which blocks a block links to, and the walk over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.content import dag_cbor, dag_json, dag_pb
from lichen.content.blocks import Blocks, need_block
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB, IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterator


def links_of(cid: CID, block: bytes) -> list[CID]:
    """Return the CIDs that a dag-pb, DAG-CBOR or DAG-JSON block links to; others have none.

    In the order of the block; raises UserError where it is malformed.
    """
    if cid.codec == DAG_PB:
        return [link.cid for link in dag_pb.decode(block).links]
    if cid.codec == DAG_CBOR:
        return dag_cbor.links(block)
    if cid.codec == DAG_JSON:
        return dag_json.links(block)
    return []


def walk(blocks: Blocks, root: CID) -> Iterator[tuple[CID, bytes]]:
    """Yield each block below `root` once, depth first, parents before children.

    Blocks inside identity CIDs are followed, not yielded. Raises MissingBlockError.
    """
    seen: set[CID] = set()
    stack = [root]
    while stack:
        cid = stack.pop()
        if cid in seen:
            continue
        seen.add(cid)
        block = need_block(blocks, cid)
        if cid.hash_code != IDENTITY:
            yield cid, block
        stack.extend(reversed(links_of(cid, block)))
