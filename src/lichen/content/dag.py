"""DAGs of any codec: which blocks a block links to."""

from __future__ import annotations

from lichen.content import dag_cbor, dag_json, dag_pb
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB

LINKED_CODECS = (DAG_PB, DAG_CBOR, DAG_JSON)


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
