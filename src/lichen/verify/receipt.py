"""Check a receipt offline, and say what was checked."""

from __future__ import annotations

import hashlib

import msgspec

from lichen.content.cid import CID
from lichen.encoding import canonical
from lichen.errors import VerificationError
from lichen.market.receipt import Receipt, check_batch_signature, read_receipt, receipt_id


class Report(msgspec.Struct, frozen=True):
    """What was found: the receipt, its id, and one line for each check that held."""

    receipt: Receipt
    id: CID
    checks: tuple[str, ...]


def verify_receipt(
    data: bytes, *, network: bytes | None = None, response: bytes | None = None
) -> Report:
    """Verify a receipt file; raise VerificationError at the first check that does not hold.

    `network` is the id of the network it has to belong to, `response` the payload it has to attest;
    each is checked when given. The signature proves what the node claims and that nothing was
    changed since; that the result is right is what the receipt's verification mode is about.
    """
    receipt = read_receipt(data)
    checks = ["form: the file is spelled as receipts are written"]
    if network is not None:
        if receipt.network != network:
            raise VerificationError(
                f"the receipt is of network {receipt.network}, not {network.hex()}",
                hint="use the genesis of the network that it comes from",
            )
        checks.append(f"network: {receipt.network}")
    if not receipt.signatures:
        raise VerificationError("nobody signed the receipt")
    for entry in receipt.signatures:
        check_batch_signature(receipt, entry)
        checks.append(
            f"signature: node {entry.key.address}, batch {entry.sequence}, "
            f"receipt {entry.index + 1} of {entry.count}"
        )
    checks.append(_check_price(receipt))
    if response is not None:
        checks.append(_check_response(receipt, response))
    return Report(receipt, receipt_id(canonical(receipt.body())), tuple(checks))


def _check_price(receipt: Receipt) -> str:
    if receipt.price.amount > receipt.price.quote:
        raise VerificationError(
            f"the bill of {receipt.price.amount} is above the agreed ceiling {receipt.price.quote}"
        )
    return "price: the bill is within the agreed ceiling"


def _check_response(receipt: Receipt, response: bytes) -> str:
    if (
        hashlib.sha256(response).digest() != receipt.response.hash
        or len(response) != receipt.response.bytes
    ):
        raise VerificationError("the response is not the one that the receipt attests")
    return "response: hash and size are those of the receipt"
