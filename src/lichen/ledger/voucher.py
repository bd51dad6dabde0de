"""Vouchers: a payer's growing promise, signed so that a contract can check it too.

A voucher says that `cumulative` of the channel's deposit, counted from its opening, is the payee's.
The signature is secp256k1 (65 bytes: r, s, recovery id) over the EIP-712 digest
(https://eips.ethereum.org/EIPS/eip-712) of `Voucher(bytes32 channel,uint128 cumulative)` in the
domain `EIP712Domain(string name,string version,bytes32 salt)` = ("Lichen", "1", network id). The
words are packed by hand: a general encoder costs several times the signature.
"""

from __future__ import annotations

import functools

import msgspec

from lichen.errors import UserError
from lichen.identity import Address, KeyKind, PrivateKey, keccak256, recover
from lichen.units import Amount

CHANNEL_BYTES = 32
SIGNATURE_BYTES = 65
_DOMAIN_TYPE = keccak256(b"EIP712Domain(string name,string version,bytes32 salt)")
_VOUCHER_TYPE = keccak256(b"Voucher(bytes32 channel,uint128 cumulative)")
_NAME = keccak256(b"Lichen")
_VERSION = keccak256(b"1")


class Voucher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payee may take `cumulative` in all from `channel`; the highest one counts."""

    channel: bytes
    cumulative: Amount
    signature: bytes


@functools.lru_cache(maxsize=16)
def _prefix(network: bytes) -> bytes:
    if len(network) != 32:
        raise UserError("a network id has 32 bytes")
    return b"\x19\x01" + keccak256(_DOMAIN_TYPE + _NAME + _VERSION + network)


def voucher_digest(network: bytes, channel: bytes, cumulative: int) -> bytes:
    """Return the 32-byte digest that the channel's signer signs."""
    if len(channel) != CHANNEL_BYTES:
        raise UserError(f"a channel id has {CHANNEL_BYTES} bytes, not {len(channel)}")
    struct_hash = keccak256(_VOUCHER_TYPE + channel + cumulative.to_bytes(32, "big"))
    return keccak256(_prefix(network) + struct_hash)


def sign_voucher(network: bytes, key: PrivateKey, channel: bytes, cumulative: int) -> Voucher:
    """Promise `cumulative` in all; `key` has to be secp256k1, which contracts can check."""
    if key.kind is not KeyKind.SECP256K1:
        raise UserError("vouchers are signed by secp256k1 keys", hint="use a key of that kind")
    amount = Amount(cumulative)
    return Voucher(channel, amount, key.sign(voucher_digest(network, channel, amount)))


def verify_voucher(network: bytes, voucher: Voucher, signer: Address) -> bool:
    """Tell whether `voucher` is signed by `signer`; never raises."""
    if len(voucher.channel) != CHANNEL_BYTES or len(voucher.signature) != SIGNATURE_BYTES:
        return False
    key = recover(voucher_digest(network, voucher.channel, voucher.cumulative), voucher.signature)
    return key is not None and key.address == signer
