"""DAGs of any codec: which blocks a block links to, and the walk over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.content import dag_pb
from lichen.content.blocks import Blocks, need_block
from lichen.content.cid import CID, DAG_CBOR, DAG_PB, IDENTITY
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

CBOR_DEPTH_MAX = 256
_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7
_CID_TAG = 42
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}


def links_of(cid: CID, block: bytes) -> list[CID]:
    """Return the CIDs that a dag-pb or DAG-CBOR block links to, in order; others have none."""
    if cid.codec == DAG_PB:
        return [link.cid for link in dag_pb.decode(block).links]
    if cid.codec == DAG_CBOR:
        return cbor_links(block)
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


def cbor_links(block: bytes) -> list[CID]:
    """Return the links (tag 42) of a DAG-CBOR block in order; raise UserError when malformed."""
    links: list[CID] = []
    offset, expect_link = 0, False
    open_items = [1]
    while open_items:
        if not open_items[-1]:
            open_items.pop()
            continue
        open_items[-1] -= 1
        major, argument, offset = _cbor_head(block, offset)
        if expect_link and major != _BYTES:
            raise UserError("a DAG-CBOR link is not a byte string")
        if major in (_BYTES, _TEXT):
            if argument > len(block) - offset:
                raise UserError("a DAG-CBOR string is cut off")
            if expect_link:
                links.append(_cbor_link(block[offset : offset + argument]))
            offset += argument
        elif major in (_ARRAY, _MAP):
            _check_cbor_nesting(open_items, argument, len(block) - offset)
            open_items.append(argument * (2 if major == _MAP else 1))
        expect_link = major == _TAG
        if expect_link:
            if argument != _CID_TAG:
                raise UserError(f"DAG-CBOR has no tag {argument}")
            open_items[-1] += 1
    if offset != len(block):
        raise UserError("bytes follow a DAG-CBOR value")
    return links


def _cbor_head(block: bytes, offset: int) -> tuple[int, int, int]:
    if offset >= len(block):
        raise UserError("a DAG-CBOR value is cut off")
    major, low = block[offset] >> 5, block[offset] & 31
    offset += 1
    if low < 24:
        return major, low, offset
    size = _ARGUMENT_BYTES.get(low)
    if size is None or offset + size > len(block):
        raise UserError("a DAG-CBOR value is cut off or of indefinite length")
    argument = int.from_bytes(block[offset : offset + size], "big")
    if major != _SIMPLE and argument < (24 if size == 1 else 1 << (size * 4)):
        raise UserError("a DAG-CBOR number is not in its shortest form")
    return major, argument, offset + size


def _check_cbor_nesting(open_items: list[int], count: int, left: int) -> None:
    if len(open_items) > CBOR_DEPTH_MAX or count > left:
        raise UserError("a DAG-CBOR value is nested too deep or cut off")


def _cbor_link(data: bytes) -> CID:
    if data[:1] != b"\0":
        raise UserError("a DAG-CBOR link does not begin with the identity multibase")
    return CID.decode(data[1:])
