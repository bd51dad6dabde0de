"""One raw block: `application/vnd.ipld.raw`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.formats import block_headers
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_bytes
from lichen.content import Blocks, need_block, resolve

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted


def plan_block(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan the block that a path leads to."""
    del wanted
    cid = place.root
    if place.path.strip("/"):
        cid = resolve(blocks, cid, place.path).cid
    data = need_block(blocks, cid)
    return plan_bytes(b'"%b.raw"' % str(cid).encode(), block_headers(cid), data, conditions)
