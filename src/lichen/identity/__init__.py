"""Who signs: keys, addresses, signed requests, delegations and the vault that keeps keys."""

from lichen.identity.address import ZERO_ADDRESS, Address, keccak256
from lichen.identity.keys import KeyKind, PrivateKey, PublicKey, recover
from lichen.identity.signing import signing_digest

__all__ = [
    "ZERO_ADDRESS",
    "Address",
    "KeyKind",
    "PrivateKey",
    "PublicKey",
    "keccak256",
    "recover",
    "signing_digest",
]
