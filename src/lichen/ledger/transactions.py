"""What can be asked of the ledger: one struct per kind, and the signed envelope around it.

The envelope is a DAG-CBOR map whose keys sort as body, nonce, signer, network, signature. So the
signed content, the canonical map of body, nonce and signer, is a slice of the envelope's own bytes,
and neither signing nor checking encodes anything twice:

    digest = sha256("lichen/tx/1" || 0x00 || network || 0xa3 || body, nonce, signer entries)

That digest is the transaction's id: it does not depend on the signature.
"""

from __future__ import annotations

import functools

import libipld
import msgspec

from lichen.content.cid import CID
from lichen.encoding import canonical, convert, sha256
from lichen.errors import UserError
from lichen.identity import Address, PrivateKey, PublicKey
from lichen.ledger.errors import BadTransactionError
from lichen.ledger.types import Capacity, FunctionSpec, Prices
from lichen.ledger.voucher import Voucher
from lichen.units import Amount

DOMAIN = b"lichen/tx/1"
CHANNEL_DOMAIN = b"lichen/channel/1"
TRANSACTION_BYTES_MAX = 65_536
NETWORK_BYTES = 32
_NETWORK_KEY = b"\x67network\x58\x20"
_SIGNATURE_KEY = b"\x69signature\x58"


def _kebab(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=_kebab):
    """Base of the kinds; on the wire `kind` is the class name in kebab case."""


class Transfer(Body, frozen=True):
    """Move FLK to another account."""

    to: Address
    amount: Amount


class RegisterNode(Body, frozen=True):
    """Offer the signer's machine; `stake` leaves the balance, `key` is the signer's own."""

    key: PublicKey
    endpoint: str
    capacity: Capacity
    prices: Prices
    tiers: tuple[str, ...]
    stake: Amount


class UpdateNode(Body, frozen=True):
    """Replace the offer of the signer's node and add to its stake (0: leave it)."""

    endpoint: str
    capacity: Capacity
    prices: Prices
    tiers: tuple[str, ...]
    stake_added: Amount


class ExitNode(Body, frozen=True):
    """Stop offering; the stake stays bound for `unbond_ms`."""


class WithdrawStake(Body, frozen=True):
    """Take the stake back and drop the node from the registry."""


class CreateApp(Body, frozen=True):
    """Take a globally unique name; the signer owns the app."""

    name: str
    description: str


class PublishRelease(Body, frozen=True):
    """Add the app's next release and make it the active one."""

    app: str
    site: CID | None
    functions: tuple[FunctionSpec, ...]
    manifest: CID | None


class ActivateRelease(Body, frozen=True):
    """Roll back or forward to a release that exists."""

    app: str
    number: int


class GrantSpending(Body, frozen=True):
    """Let `delegate` open channels for the signer's app; see `Grant` for what `limit` bounds."""

    app: str
    delegate: Address
    limit: Amount
    expires_ms: int


class RevokeSpending(Body, frozen=True):
    """End a grant; channels that are open stay open."""

    app: str
    delegate: Address


class OpenChannel(Body, frozen=True):
    """Set a deposit aside for `payee`, to be moved by vouchers of `signer`.

    With `owner` the channel is opened under that owner's grant: the owner pays and gets the rest.
    `app` may be empty without `owner`.
    """

    payee: Address
    signer: Address
    app: str
    deposit: Amount
    owner: Address | None


class TopUpChannel(Body, frozen=True):
    """Add to an open channel's deposit: from the payer, or by its opener under the grant."""

    channel: bytes
    amount: Amount


class CloseChannel(Body, frozen=True):
    """The payee ends the channel at once; the paying side starts the challenge period."""

    channel: bytes


class FinalizeChannel(Body, frozen=True):
    """After the challenge period, by anyone: the rest goes back to the payer."""

    channel: bytes


class RedeemVouchers(Body, frozen=True):
    """Pay out vouchers; by anyone, to the channels' payees. Outdated ones have no effect."""

    vouchers: tuple[Voucher, ...]


class SettleEpoch(Body, frozen=True):
    """A node's batch of receipts, by its Merkle root, and the vouchers that paid for them."""

    epoch: int
    receipts_root: bytes
    receipts: int
    vouchers: tuple[Voucher, ...]


Transaction = (
    Transfer
    | RegisterNode
    | UpdateNode
    | ExitNode
    | WithdrawStake
    | CreateApp
    | PublishRelease
    | ActivateRelease
    | GrantSpending
    | RevokeSpending
    | OpenChannel
    | TopUpChannel
    | CloseChannel
    | FinalizeChannel
    | RedeemVouchers
    | SettleEpoch
)


class SignedTransaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transaction as it travels: for one network, at one nonce, signed."""

    network: bytes
    signer: PublicKey
    nonce: int
    body: Transaction
    signature: bytes


class _Content(msgspec.Struct, frozen=True):
    """What the signature covers, beside the domain and the network."""

    signer: PublicKey
    nonce: int
    body: Transaction


def sign_transaction(
    network: bytes, key: PrivateKey, nonce: int, body: Transaction
) -> SignedTransaction:
    """Sign `body` as the account's transaction number `nonce` on `network`."""
    content = canonical(_Content(key.public, nonce, body))
    signature = key.sign(_digest(network, content[1:]))
    return SignedTransaction(network, key.public, nonce, body, signature)


def transaction_id(transaction: SignedTransaction) -> bytes:
    """Return the 32-byte id, which is also the digest that was signed."""
    content = canonical(_Content(transaction.signer, transaction.nonce, transaction.body))
    return _digest(transaction.network, content[1:])


def channel_id(network: bytes, opener: Address, nonce: int) -> bytes:
    """Return the id of the channel that `opener` opens by its transaction number `nonce`."""
    return sha256(CHANNEL_DOMAIN + b"\0" + network + opener + nonce.to_bytes(8, "big"))


class Received(msgspec.Struct, frozen=True):
    """A transaction as it arrived: its bytes, what they say, and its id."""

    raw: bytes
    signed: SignedTransaction
    id: bytes

    def signature_holds(self) -> bool:
        """Tell whether the signature is the signer's; costs about 35 us."""
        return self.signed.signer.verify(self.id, self.signed.signature)


def encode_transaction(transaction: SignedTransaction) -> bytes:
    """Return the bytes that travel and stand in blocks."""
    return canonical(transaction)


def decode_transaction(raw: bytes) -> Received:
    """Read a transaction's bytes; raise BadTransactionError for any but the canonical form.

    Does not check the signature.
    """
    if len(raw) > TRANSACTION_BYTES_MAX:
        raise BadTransactionError(
            f"a transaction of {len(raw)} bytes is over {TRANSACTION_BYTES_MAX}",
            hint="split it, or shorten the descriptions in it",
        )
    try:
        plain = libipld.decode_dag_cbor(raw)
        signed = convert(plain, SignedTransaction)
        again = canonical(signed)
    except (ValueError, TypeError, OverflowError, RecursionError, UserError) as error:
        raise BadTransactionError(
            f"not a transaction: {error}", hint="see lichen.ledger"
        ) from error
    tail = len(_NETWORK_KEY) + NETWORK_BYTES + len(_SIGNATURE_KEY) + 1 + len(signed.signature)
    if again != raw or not 24 <= len(signed.signature) <= 255:
        raise BadTransactionError("a transaction is not in canonical form", hint="encode it again")
    if len(signed.network) != NETWORK_BYTES:
        raise BadTransactionError(f"a network id has {NETWORK_BYTES} bytes")
    return Received(raw, signed, _digest(signed.network, raw[1 : len(raw) - tail]))


def _digest(network: bytes, entries: bytes) -> bytes:
    return sha256(_prefix(network) + entries)


@functools.lru_cache(maxsize=16)
def _prefix(network: bytes) -> bytes:
    return DOMAIN + b"\0" + network + b"\xa3"
