"""Where blocks come from, as the readers see it, and the bounds that every block keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lichen.content.cid import CID, IDENTITY
from lichen.errors import LimitError, NotFoundError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_BYTES_MAX = 4 << 20  # twice what IPFS peers exchange: room for a wrapped 2 MiB chunk


class Blocks(Protocol):
    """A source of blocks whose hashes have been verified (at ingest, or by `CheckedBlocks`)."""

    def get_block(self, cid: CID) -> bytes | None:
        """Return the block, or None when it is not here."""
        ...


class MissingBlockError(NotFoundError):
    """A block that a DAG links to is not here; `cid` names it, so that it can be fetched."""

    code = "block-missing"

    def __init__(self, cid: CID) -> None:
        super().__init__(
            f"block {cid} is not in this store", hint="fetch it from a node that provides it"
        )
        self.cid = cid


def need_block(blocks: Blocks, cid: CID) -> bytes:
    """Return a block; an identity CID carries its own. Raise MissingBlockError."""
    if cid.hash_code == IDENTITY:
        return cid.digest
    block = blocks.get_block(cid)
    if block is None:
        raise MissingBlockError(cid)
    return block


def read_part(blocks: Blocks, cid: CID, start: int, end: int) -> tuple[bytes, int] | None:
    """Return the bytes `start` .. `end` (exclusive) of a block, and how many it has in all.

    None where the block is not here, or this source has whole blocks only. So a reader that is slow
    holds a part of a large block, not all of it.
    """
    get_part = getattr(blocks, "get_part", None)
    return None if get_part is None else get_part(cid, start, end)


def check_block(cid: CID, data: bytes | memoryview) -> None:
    """Raise LimitError or VerificationError unless `data` is the block of that CID."""
    if len(data) > BLOCK_BYTES_MAX:
        raise LimitError(
            f"a block of {len(data)} bytes is over {BLOCK_BYTES_MAX}",
            hint="import the content with smaller chunks",
        )
    if not cid.matches(data):
        raise VerificationError(
            f"the bytes received are not block {cid}", hint="fetch it from another provider"
        )


class CheckedBlocks:
    """Verifies what an untrusted source returns before anyone reads it."""

    def __init__(self, get: Callable[[CID], bytes | None]) -> None:
        self._get = get

    def get_block(self, cid: CID) -> bytes | None:
        """Return the verified block, or None; raise VerificationError on wrong bytes."""
        block = self._get(cid)
        if block is not None:
            check_block(cid, block)
        return block
