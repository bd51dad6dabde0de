"""Proofs of entries of the ledger, for light clients and contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.ledger.proofs import read_key

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.ledger.results import ProofAnswer


async def show(context: ApiContext, request: Request) -> ProofAnswer:
    """Return an entry of the ledger by its key in hex, with the proof and the signed header."""
    return context.replica.state.prove(read_key(request.path_params["key"]))
