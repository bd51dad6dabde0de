"""Blocks of the ledger, from a height on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread

from lichen.encoding import to_builtins
from lichen.gateway.api import parameters
from lichen.gateway.api.views import BlockView, Page, TransactionView
from lichen.identity import Digest
from lichen.ledger.blocks import block_hash
from lichen.ledger.transactions import decode_transaction

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.blocks import Block

BLOCKS_MAX = 100
TRANSACTIONS_MAX = 512


async def recent(context: ApiContext, request: Request) -> Page[BlockView]:
    """Return blocks from a height on; a page ends early when it holds many transactions."""
    start = parameters.number(request, "from", 1)
    start = parameters.number(request, "cursor", start)
    limit = min(parameters.limit(request), BLOCKS_MAX)
    found: list[Block] = []
    count = 0
    height = max(start, 1)
    while len(found) < limit and count < TRANSACTIONS_MAX:
        block = context.replica.state.block(height)
        if block is None:
            break
        found.append(block)
        count += len(block.transactions)
        height += 1
    more = found and height <= context.replica.height
    items = await anyio.to_thread.run_sync(_views, context.replica.network, found)
    return Page(items, str(height) if more else None)


def kind_of(body: object) -> str:
    """Return the name of a transaction's kind, as on the wire."""
    return str(to_builtins(body)["kind"])


def plain(value: Any) -> Any:
    """Turn bytes in plain data into lower-case hex, as the API shows them."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _views(network: bytes, blocks: list[Block]) -> tuple[BlockView, ...]:
    return tuple(_view(network, block) for block in blocks)


def _view(network: bytes, block: Block) -> BlockView:
    header = block.header
    return BlockView(
        height=header.height,
        hash=Digest(block_hash(network, header)),
        time_ms=header.time_ms,
        state_root=Digest(header.state_root),
        transactions=tuple(_transaction(raw) for raw in block.transactions),
    )


def _transaction(raw: bytes) -> TransactionView:
    received = decode_transaction(raw)
    signed = received.signed
    return TransactionView(
        id=Digest(received.id),
        signer=signed.signer.address,
        nonce=signed.nonce,
        body=plain(to_builtins(signed.body)),
    )
