"""Who signs: keys, addresses, signed requests, delegations and the vault that keeps keys."""

from lichen.identity.address import ZERO_ADDRESS, Address, keccak256
from lichen.identity.digest import Digest, signing_digest
from lichen.identity.keys import KeyKind, PrivateKey, PublicKey, recover

__all__ = [
    "ZERO_ADDRESS",
    "Address",
    "Digest",
    "KeyKind",
    "PrivateKey",
    "PublicKey",
    "keccak256",
    "recover",
    "signing_digest",
]
