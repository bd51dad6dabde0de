"""One raw block: `application/vnd.ipld.raw`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.formats import block_headers, chosen_lines
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_bytes
from lichen.content import CID, Blocks, follow, need_block

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted

QUERY = "format=raw"


def plan_block(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan the block that a path leads to."""
    roots = follow(blocks, place.root, place.path)
    data = need_block(blocks, roots[-1])
    chosen = b"" if wanted.explicit else chosen_lines(place.prefix + place.path, QUERY)
    headers = block_headers(
        place.content_path, roots, place.cache, filename=wanted.filename, chosen=chosen
    )
    return plan_bytes(block_etag(roots[-1]), headers, data, conditions)


def block_etag(cid: CID) -> bytes:
    """Return the entity tag of a raw block."""
    return b'"%b.raw"' % str(cid).encode()
