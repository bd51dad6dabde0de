"""One raw block: `application/vnd.ipld.raw`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.formats import block_headers
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_bytes
from lichen.content import Blocks, follow, need_block

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted


def plan_block(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan the block that a path leads to."""
    del wanted
    roots = follow(blocks, place.root, place.path)
    data = need_block(blocks, roots[-1])
    headers = block_headers(place.content_path, roots, place.cache)
    return plan_bytes(b'"%b.raw"' % str(roots[-1]).encode(), headers, data, conditions)
