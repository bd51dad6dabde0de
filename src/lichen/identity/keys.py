"""Three kinds of keys behind one type: ed25519, secp256k1 and p256.

Signatures of the network are over a 32-byte digest that the caller computed, with its domain
separation (`sign`, `verify`). Standards that sign a whole message, such as RFC 9421, go through
`sign_message` and `verify_message`, which do what the standard's algorithm does. A public key
travels as its multicodec prefix and compressed bytes (the content of a did:key), so the kind can
never be confused. Signatures are 64 bytes (`r || s` with low s, or Ed25519's own), 65 for
secp256k1, whose last byte is the recovery id that contracts need.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import secrets
from typing import Any, NoReturn, Self

import coincurve
import nacl.bindings
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lichen.errors import UserError
from lichen.identity import base58
from lichen.identity.address import Address, keccak256

DIGEST_BYTES = 32
SECRET_BYTES = 32
TEXT_MAX = 64
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_PREHASHED = ECDSA(utils.Prehashed(SHA256()))
_PREHASHED_DETERMINISTIC = ECDSA(utils.Prehashed(SHA256()), deterministic_signing=True)


class KeyKind(enum.Enum):
    """The signature scheme of a key; the value is its varint multicodec prefix."""

    ED25519 = b"\xed\x01"
    SECP256K1 = b"\xe7\x01"
    P256 = b"\x80\x24"


_COMPRESSED_BYTES = {KeyKind.ED25519: 32, KeyKind.SECP256K1: 33, KeyKind.P256: 33}


class PublicKey:
    """A public key of any kind: verifies signatures and has an address."""

    __slots__ = ("_address", "_native", "_text", "compressed", "kind")

    def __init__(self, kind: KeyKind, compressed: bytes) -> None:
        """Check that `compressed` is a point of the kind's curve; raise UserError otherwise."""
        if len(compressed) != _COMPRESSED_BYTES[kind]:
            raise UserError(f"a {kind.name.lower()} public key has {_COMPRESSED_BYTES[kind]} bytes")
        self.kind = kind
        self.compressed = compressed
        self._address: Address | None = None
        self._text: str | None = None
        try:
            self._native = _load_native(kind, compressed)
        except ValueError as error:
            raise UserError(f"not a {kind.name.lower()} public key") from error

    @classmethod
    def decode(cls, encoded: bytes) -> PublicKey:
        """Read multicodec prefix and compressed bytes. Results are cached: keys recur."""
        return _decode_public(bytes(encoded))

    @classmethod
    def from_wire(cls, value: object) -> PublicKey:
        """Read the multibase text of a did:key (`z...`)."""
        if not isinstance(value, str) or not value.startswith("z") or len(value) > TEXT_MAX:
            raise ValueError("a public key is a short multibase string that starts with z")
        return _decode_public_text(value)

    def encode(self) -> bytes:
        """Return multicodec prefix and compressed bytes."""
        return self.kind.value + self.compressed

    def to_wire(self) -> str:
        """Return the multibase base58btc text, as in did:key."""
        if self._text is None:
            self._text = "z" + base58.encode(self.encode())
        return self._text

    @property
    def address(self) -> Address:
        """The account of this key; for secp256k1 the same as on Ethereum."""
        if self._address is None:
            if self.kind is KeyKind.SECP256K1:
                point = self._native.format(compressed=False)[1:]
                self._address = Address(keccak256(point)[-20:])
            else:
                self._address = Address(keccak256(self.encode())[-20:])
        return self._address

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's over the 32-byte digest; never raises."""
        if len(digest) != DIGEST_BYTES:
            return False
        if self.kind is KeyKind.ED25519:
            return _verify_ed25519(self.compressed, digest, signature)
        if self.kind is KeyKind.SECP256K1:
            return recover(digest, signature) == self
        return _verify_p256(self._native, digest, signature)

    def verify_message(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is over a whole message, as standards define it; never raises.

        Ed25519 takes the message as it is (RFC 8032); the ECDSA kinds take its SHA-256. For p256
        either half of s is accepted, because other signers (WebCrypto) do not normalise it: such a
        signature must not serve as an identifier.
        """
        if self.kind is KeyKind.ED25519:
            return _verify_ed25519(self.compressed, message, signature)
        digest = hashlib.sha256(message).digest()
        if self.kind is KeyKind.SECP256K1:
            return recover(digest, signature) == self
        return _verify_p256(self._native, digest, signature, low_s_only=False)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PublicKey)
            and self.kind is other.kind
            and self.compressed == other.compressed
        )

    def __hash__(self) -> int:
        return hash(self.compressed)

    def __repr__(self) -> str:
        return f"PublicKey({self.to_wire()})"


class PrivateKey:
    """A private key of any kind. It is never shown: `repr` gives its address only."""

    __slots__ = ("_native", "_secret", "kind", "public")

    def __init__(self, kind: KeyKind, secret: bytes) -> None:
        """Load a 32-byte secret; raise UserError when it is not a scalar of the kind's curve."""
        if len(secret) != SECRET_BYTES:
            raise UserError(f"a private key has {SECRET_BYTES} bytes, not {len(secret)}")
        self.kind = kind
        self._secret = secret
        self._native: Any
        if kind is KeyKind.ED25519:
            compressed, self._native = nacl.bindings.crypto_sign_seed_keypair(secret)
        elif kind is KeyKind.SECP256K1:
            _check_scalar(secret, _SECP256K1_ORDER)
            self._native = coincurve.PrivateKey(secret)
            compressed = self._native.public_key.format(compressed=True)
        else:
            scalar = _check_scalar(secret, _P256_ORDER)
            self._native = ec.derive_private_key(scalar, ec.SECP256R1())
            compressed = self._native.public_key().public_bytes(
                Encoding.X962, PublicFormat.CompressedPoint
            )
        self.public = PublicKey(kind, compressed)

    @classmethod
    def generate(cls, kind: KeyKind = KeyKind.SECP256K1) -> Self:
        """Make a new key from the operating system's randomness."""
        while True:
            try:
                return cls(kind, secrets.token_bytes(SECRET_BYTES))
            except UserError:  # out of the curve's order: chance below 2^-32
                continue

    @property
    def address(self) -> Address:
        """The account of this key."""
        return self.public.address

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest deterministically (RFC 6979, or Ed25519 by construction)."""
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"sign takes a {DIGEST_BYTES}-byte digest")
        if self.kind is KeyKind.ED25519:
            return bytes(nacl.bindings.crypto_sign(digest, self._native)[:64])
        if self.kind is KeyKind.SECP256K1:
            return bytes(self._native.sign_recoverable(digest, hasher=None))
        der = self._native.sign(digest, _PREHASHED_DETERMINISTIC)
        r, s = utils.decode_dss_signature(der)
        return r.to_bytes(32, "big") + min(s, _P256_ORDER - s).to_bytes(32, "big")

    def sign_message(self, message: bytes) -> bytes:
        """Sign a whole message as standards do (see `PublicKey.verify_message`)."""
        if self.kind is KeyKind.ED25519:
            return bytes(nacl.bindings.crypto_sign(message, self._native)[:64])
        return self.sign(hashlib.sha256(message).digest())

    def secret_bytes(self) -> bytes:
        """Return the 32 secret bytes, for the vault alone."""
        return self._secret

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied; keep it in the vault")

    def __repr__(self) -> str:
        return f"PrivateKey(of {self.address})"


def recover(digest: bytes, signature: bytes) -> PublicKey | None:
    """Return the secp256k1 key whose 65-byte low-s signature over `digest` this is, or None.

    Recovery ids 2 and 3 (r over the order) are none: nobody signs so, but a key can be made up for
    such a signature, and contracts (ecrecover) cannot check it.
    """
    if len(digest) != DIGEST_BYTES or len(signature) != 65 or signature[64] > 1:
        return None
    if int.from_bytes(signature[32:64], "big") > _SECP256K1_ORDER // 2:
        return None
    try:
        native = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises bare Exception for points off the curve
        return None
    return PublicKey.decode(KeyKind.SECP256K1.value + native.format(compressed=True))


@functools.lru_cache(maxsize=65536)
def _decode_public_text(text: str) -> PublicKey:
    return PublicKey.decode(base58.decode(text[1:]))


@functools.lru_cache(maxsize=65536)
def _decode_public(encoded: bytes) -> PublicKey:
    for kind in KeyKind:
        if encoded.startswith(kind.value):
            return PublicKey(kind, encoded[len(kind.value) :])
    raise UserError("unknown kind of public key", hint="ed25519, secp256k1 and p256 are known")


def _load_native(kind: KeyKind, compressed: bytes) -> Any:  # each library has a type of its own
    if kind is KeyKind.SECP256K1:
        return coincurve.PublicKey(compressed)
    if kind is KeyKind.P256:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), compressed)
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(compressed):
        raise ValueError("not a point of the prime-order subgroup")
    return None


def _check_scalar(secret: bytes, order: int) -> int:
    scalar = int.from_bytes(secret, "big")
    if not 0 < scalar < order:
        raise UserError("the private key is out of the curve's range", hint="generate another one")
    return scalar


def _verify_ed25519(key: bytes, digest: bytes, signature: bytes) -> bool:
    if len(signature) != 64:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + digest, key)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


def _verify_p256(
    key: ec.EllipticCurvePublicKey, digest: bytes, signature: bytes, *, low_s_only: bool = True
) -> bool:
    if len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if low_s_only and s > _P256_ORDER // 2:
        return False
    try:
        key.verify(utils.encode_dss_signature(r, s), digest, _PREHASHED)
    except InvalidSignature:
        return False
    return True
