r"""Run receipts: what ran, what it was given and gave, what it used and cost, and who says so.

A receipt's body (everything but `signatures`) in canonical DAG-CBOR is what is signed; the CID of
those bytes is the receipt's id. A node signs receipts in batches: the Merkle root over the bodies,
chained to the batch before. Each receipt carries its own path to that root.

Everything a caller knows can be compared: `response.hash` is the SHA-256 of the payload, and
`request.hash` of `METHOD HOST TARGET\n` followed by the request's payload.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import libipld
import msgspec

from lichen.content.cid import CID, DAG_CBOR
from lichen.encoding import canonical, from_json, to_pretty_json
from lichen.errors import VerificationError
from lichen.identity import Address, PublicKey
from lichen.identity.digest import Digest, signing_digest
from lichen.market import merkle
from lichen.market.pricing import Meter
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.identity import PrivateKey

RECEIPT_BYTES_MAX = 64 * 1024
BATCH_MAX = 4096
BATCH_DOMAIN = "lichen/receipts/1"
NO_BATCH = bytes(32)


class FunctionRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which code ran: its CID, and where the ledger names it."""

    cid: CID
    app: str
    release: int
    name: str


class RequestDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the function was given: hash of request line and payload, payload size."""

    hash: Digest
    bytes: int


class ResponseDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the function gave: hash and size of the payload, HTTP status."""

    hash: Digest
    bytes: int
    status: int


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ceiling agreed before the run, the amount charged, and the channel that pays."""

    quote: Amount
    amount: Amount
    channel: Digest
    currency: Literal["FLK"] = "FLK"


class Verification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the result was checked: mode, who took part, what they said, what it comes to."""

    mode: str
    committee: tuple[Address, ...]
    verdict: Literal["unverified", "agreed", "wrong", "indeterminate"]
    beacon: Digest | None = None
    votes: tuple[tuple[Address, Digest], ...] = ()
    evidence: CID | None = None


class BatchSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node's signature over a batch, and the path from this receipt to the batch's root.

    `sequence` numbers the node's batches from 0, `previous` is the root of the batch before,
    `index` and `count` place the receipt in its batch.
    """

    key: PublicKey
    sequence: int
    previous: Digest
    index: int
    count: int
    path: tuple[Digest, ...]
    signature: bytes
    scheme: Literal["batch"] = "batch"


class ReceiptBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed. `started_at` is in milliseconds since 1970."""

    network: Digest
    run: str
    function: FunctionRef
    profile: str
    request: RequestDigest
    response: ResponseDigest
    meter: Meter
    price: Price
    tier: str
    node: Address
    started_at: int
    verification: Verification


class Receipt(ReceiptBody, frozen=True, forbid_unknown_fields=True):
    """A run receipt as users keep it: what is signed, and by whom."""

    signatures: tuple[BatchSignature, ...]

    def body(self) -> ReceiptBody:
        """Return what is signed."""
        return ReceiptBody(*(getattr(self, name) for name in ReceiptBody.__struct_fields__))


def request_hasher(method: bytes, host: bytes, target: bytes) -> hashlib._Hash:
    """Start the hash of a request; the caller feeds the payload."""
    return hashlib.sha256(b"%b %b %b\n" % (method, host, target))


def receipt_id(body: bytes) -> CID:
    """Name a receipt: the CID of its canonical body."""
    return CID.of(DAG_CBOR, body)


def batch_digest(network: bytes, sequence: int, previous: bytes, count: int, root: bytes) -> bytes:
    """Return what a node signs for a batch of receipts."""
    body = sequence.to_bytes(8, "big") + previous + count.to_bytes(4, "big") + root
    return signing_digest(BATCH_DOMAIN, network, body)


def sign_batch(
    key: PrivateKey, network: bytes, sequence: int, previous: bytes, leaves: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Sign a batch given its leaf hashes; return (root, signature)."""
    root = merkle.root(leaves)
    return root, key.sign(batch_digest(network, sequence, previous, len(leaves), root))


def assemble(
    body: bytes, key: PublicKey, sequence: int, previous: bytes,
    leaves: Sequence[bytes], index: int, signature: bytes,
) -> Receipt:  # fmt: skip
    """Make the receipt that users get from a canonical body and the batch it was signed in."""
    entry = BatchSignature(
        key=key,
        sequence=sequence,
        previous=Digest(previous),
        index=index,
        count=len(leaves),
        path=tuple(Digest(node) for node in merkle.path(leaves, index)),
        signature=signature,
    )
    fields: dict[str, Any] = libipld.decode_dag_cbor(body)
    fields["signatures"] = []
    receipt = msgspec.convert(fields, Receipt, dec_hook=lambda kind, value: kind.from_wire(value))
    return msgspec.structs.replace(receipt, signatures=(entry,))


def check_batch_signature(receipt: Receipt, entry: BatchSignature) -> None:
    """Raise VerificationError unless `entry` signs `receipt` for the receipt's node."""
    leaf = merkle.leaf_hash(canonical(receipt.body()))
    root = merkle.root_from_path(leaf, entry.index, entry.count, entry.path)
    if root is None or not 0 < entry.count <= BATCH_MAX or entry.sequence < 0:
        raise VerificationError("the receipt's Merkle path has a wrong form")
    if entry.key.address != receipt.node:
        raise VerificationError(
            f"signed by {entry.key.address}, but the receipt names node {receipt.node}"
        )
    digest = batch_digest(receipt.network, entry.sequence, entry.previous, entry.count, root)
    if not entry.key.verify(digest, entry.signature):
        raise VerificationError("the node's signature does not hold: the receipt was changed")


def write_receipt(receipt: Receipt) -> bytes:
    """Return the one spelling of a receipt as a JSON file."""
    return to_pretty_json(receipt)


def read_receipt(data: bytes) -> Receipt:
    """Read a receipt file; raise VerificationError for anything but its one spelling."""
    if len(data) > RECEIPT_BYTES_MAX:
        raise VerificationError(f"a receipt has at most {RECEIPT_BYTES_MAX} bytes")
    try:
        receipt = from_json(data, Receipt)
    except Exception as error:
        raise VerificationError(f"not a receipt: {error}") from error
    if write_receipt(receipt) != data:
        raise VerificationError(
            "the file is not spelled as a receipt is written: something in it was changed",
            hint="fetch the receipt again with `lichen call --receipt` or from the gateway",
        )
    return receipt
