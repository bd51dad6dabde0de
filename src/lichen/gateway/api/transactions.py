"""Transactions on their way to the ledger. They carry their own signatures: this only passes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libipld

from lichen.errors import LimitError
from lichen.gateway.api.bodies import BODIES
from lichen.gateway.api.errors import MediaTypeError
from lichen.gateway.api.views import TransactionResults
from lichen.ledger.errors import BadTransactionError
from lichen.ledger.transactions import TRANSACTION_BYTES_MAX

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext

MEDIA_TYPE = "application/vnd.ipld.dag-cbor"
TRANSACTIONS_MAX = 256
BODY_BYTES_MAX = 4 * 2**20


async def submit(context: ApiContext, request: Request) -> TransactionResults:
    """Submit a DAG-CBOR list of signed transactions; answers when they stand on disk.

    A transaction that the ledger refuses is a result with its error, not a failed request.
    """
    if request.headers.get("content-type") != MEDIA_TYPE:
        raise MediaTypeError(f"transactions are sent as {MEDIA_TYPE}")
    async with BODIES.whole(request, BODY_BYTES_MAX) as body:
        transactions = _decode(body)
        return TransactionResults(tuple(await context.submit(transactions)))


def _decode(body: bytes) -> list[bytes]:
    try:
        found = libipld.decode_dag_cbor(body)
    except (ValueError, RecursionError) as error:
        raise BadTransactionError(f"the body is not DAG-CBOR: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, bytes) for entry in found):
        raise BadTransactionError("the body is not a list of byte strings")
    if not 1 <= len(found) <= TRANSACTIONS_MAX:
        raise LimitError(f"a request has 1 to {TRANSACTIONS_MAX} transactions, not {len(found)}")
    if any(len(entry) > TRANSACTION_BYTES_MAX for entry in found):
        raise BadTransactionError(f"a transaction is over {TRANSACTION_BYTES_MAX} bytes")
    return found
