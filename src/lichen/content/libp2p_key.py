"""Public keys as libp2p writes them: a protobuf of a key's kind and its encoding.

IPNS names are hashes of these bytes (https://github.com/libp2p/specs/blob/master/peer-ids). All
four kinds are verified; Ed25519, secp256k1 and ECDSA on P-256 are signed for by our own keys.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from lichen.content import protobuf
from lichen.errors import UserError
from lichen.identity import KeyKind, PrivateKey, PublicKey

KEY_BYTES_MAX = 2048
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
_KIND_FIELD = 1
_DATA_FIELD = 2
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class KeyType(enum.IntEnum):
    """The kinds of keys that libp2p knows, by their number on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class Libp2pKey(msgspec.Struct, frozen=True):
    """A public key, checked when it was read. `encoded` is the protobuf that names are made of."""

    kind: KeyType
    encoded: bytes
    native: Any  # each kind has a type of its own

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's over a message; never raises.

        Ed25519 signs the message itself; RSA (PKCS #1 v1.5) and the curves (DER) its SHA-256.
        """
        if self.kind is KeyType.ED25519:
            return bool(self.native.verify_message(message, signature))
        try:
            if self.kind is KeyType.RSA:
                self.native.verify(signature, message, padding.PKCS1v15(), SHA256())
            else:
                self.native.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def read_key(encoded: bytes) -> Libp2pKey:
    """Read a public key's protobuf; raise UserError for one that is malformed or unsafe."""
    if len(encoded) > KEY_BYTES_MAX:
        raise UserError(f"a public key of {len(encoded)} bytes is over {KEY_BYTES_MAX}")
    found: dict[int, int | memoryview] = {}
    for field, wire, value in protobuf.fields(encoded):
        expected = {_KIND_FIELD: protobuf.VARINT, _DATA_FIELD: protobuf.BYTES}.get(field)
        if wire != expected or field in found:
            raise UserError("a libp2p public key has one kind and one encoding")
        found[field] = value
    kind, data = found.get(_KIND_FIELD), found.get(_DATA_FIELD)
    if not isinstance(kind, int) or kind not in set(KeyType) or not isinstance(data, memoryview):
        raise UserError("a libp2p public key has a known kind and an encoding")
    return Libp2pKey(KeyType(kind), bytes(encoded), _load(KeyType(kind), bytes(data)))


def public_key(key: PrivateKey | PublicKey) -> Libp2pKey:
    """Return what libp2p calls one of our keys, or the public half of one."""
    public = key.public if isinstance(key, PrivateKey) else key
    if public.kind is KeyKind.ED25519:
        return _of(KeyType.ED25519, public.compressed)
    if public.kind is KeyKind.SECP256K1:
        return _of(KeyType.SECP256K1, public.compressed)
    native = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public.compressed)
    der = native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _of(KeyType.ECDSA, der)


def sign(key: PrivateKey, message: bytes) -> bytes:
    """Sign a message as libp2p does: Ed25519's 64 bytes, or a DER signature of its SHA-256."""
    signature = key.sign_message(message)
    if key.kind is KeyKind.ED25519:
        return signature
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    return bytes(utils.encode_dss_signature(r, s))


def _of(kind: KeyType, data: bytes) -> Libp2pKey:
    encoded = protobuf.varint_field(_KIND_FIELD, kind) + protobuf.bytes_field(_DATA_FIELD, data)
    return read_key(encoded)


def _load(kind: KeyType, data: bytes) -> Any:
    try:
        if kind is KeyType.ED25519:
            return PublicKey(KeyKind.ED25519, data)
        if kind is KeyType.SECP256K1:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
        native = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"not a {kind.name} public key: {error}") from error
    if kind is KeyType.RSA:
        if isinstance(native, rsa.RSAPublicKey) and _is_safe(native):
            return native
        raise UserError(f"an RSA key of a name has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
    if isinstance(native, ec.EllipticCurvePublicKey) and isinstance(native.curve, _CURVES):
        return native
    raise UserError("an ECDSA key of a name is on P-256, P-384 or P-521")


def _is_safe(key: rsa.RSAPublicKey) -> bool:
    return RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX and key.public_numbers().e < 1 << 31
