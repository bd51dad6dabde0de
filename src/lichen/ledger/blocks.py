"""Blocks: the accepted transactions in their order, chained by hash, with the state after them.

    hash = sha256("lichen/block/1" || 0x00 || network || canonical(header))

Block 1 follows the genesis, whose hash is the network id. `transactions_hash` is the SHA-256 of the
concatenated SHA-256 hashes of the transactions' bytes. The sequencer that the genesis names signs
the hash.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lichen.encoding import canonical, from_canonical, sha256
from lichen.errors import LimitError
from lichen.ledger.types import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

DOMAIN = b"lichen/block/1"
BLOCK_TRANSACTIONS_MAX = 2048
TRANSACTIONS_PER_REQUEST_MAX = 1024
BLOCK_TRANSACTION_BYTES_MAX = 4 << 20
BLOCK_BYTES_MAX = BLOCK_TRANSACTION_BYTES_MAX + 65_536


class Header(Record, frozen=True):
    """What a block's hash covers."""

    height: int
    previous: bytes
    time_ms: int
    transactions: int
    transactions_hash: bytes
    state_root: bytes


class Block(Record, frozen=True, omit_defaults=True):
    """A header, the bytes of its transactions, and the sequencer's signature of its hash."""

    header: Header
    transactions: tuple[bytes, ...]
    signature: bytes = b""


def block_hash(network: bytes, header: Header) -> bytes:
    """Return the 32-byte hash that the next block refers to."""
    return sha256(DOMAIN + b"\0" + network + canonical(header))


def transactions_hash(transactions: Iterable[bytes]) -> bytes:
    """Return the hash that binds a header to its transactions."""
    return sha256(b"".join(hashlib.sha256(raw).digest() for raw in transactions))


def encode_block(block: Block) -> bytes:
    """Return the bytes that are stored and streamed."""
    return canonical(block)


def decode_block(data: bytes) -> Block:
    """Read a block's bytes; LimitError over the bound, UserError when they are not canonical."""
    if len(data) > BLOCK_BYTES_MAX:
        raise LimitError(f"a block of {len(data)} bytes is over {BLOCK_BYTES_MAX}")
    return from_canonical(data, Block)
