"""Settled epochs: the nodes' batches of receipts, by their Merkle roots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.gateway.api import parameters
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import EpochView, Page
from lichen.identity import Digest

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.types import EpochRecord


async def index(context: ApiContext, request: Request) -> Page[EpochView]:
    """Return settled batches of receipts, of one node or of all, of one epoch or of all."""
    node = parameters.address_query(request, "node")
    epoch = parameters.number(request, "epoch", -1)
    nodes = [node] if node else [entry.address for entry in context.replica.state.nodes()]
    records = [
        record
        for address in nodes
        for record in context.replica.state.epoch_records(address, None if epoch < 0 else epoch)
    ]
    found = page(request, records, _key)
    return Page(tuple(_view(record) for record in found.items), found.cursor)


def _key(record: EpochRecord) -> str:
    return f"{record.node.hex()}-{record.epoch:020d}-{record.sequence:010d}"


def _view(record: EpochRecord) -> EpochView:
    return EpochView(
        node=record.node,
        epoch=record.epoch,
        sequence=record.sequence,
        first=record.first,
        receipts=record.receipts,
        receipts_root=Digest(record.receipts_root),
    )
