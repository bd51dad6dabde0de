"""Native functions that the prelude calls: pure, each at a fixed price in fuel.

Each takes bytes and returns bytes. Arguments come from a function's own code, so every length is
checked; what is malformed raises ValueError, which the caller sees as a TypeError.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import nacl
import nacl.bindings
import nacl.exceptions

if TYPE_CHECKING:
    from collections.abc import Callable

CRYPTO: Final = f"pynacl-{nacl.__version__}"
RANDOM_BYTES_MAX: Final = 65_536
IMPORT_FUEL: Final = 4_000  # what any call out of WebAssembly costs at least

_SURROGATE: Final = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_HASHES: Final = ("sha1", "sha256", "sha384", "sha512")
_KEY_BYTES, _SIGNATURE_BYTES, _LENGTH_BYTES = 32, 64, 4


class HostFunction(NamedTuple):
    """One function, its price per call and per byte of input."""

    fuel: int
    fuel_per_byte: int
    call: Callable[[bytes], bytes]


def digest(data: bytes) -> bytes:
    """Hash `data[1:]` with the algorithm that `data[0]` numbers."""
    return hashlib.new(_algorithm(data), data[1:], usedforsecurity=False).digest()


def mac(data: bytes) -> bytes:
    """HMAC: algorithm (1 byte), length of the key (4 bytes, little-endian), key, message."""
    key, message = _prefixed(data[1:])
    return hmac.digest(key, message, _algorithm(data))


def ed25519_public(seed: bytes) -> bytes:
    """Return the public key of a 32-byte seed."""
    if len(seed) != _KEY_BYTES:
        raise ValueError("an Ed25519 private key has 32 bytes")
    return nacl.bindings.crypto_sign_seed_keypair(seed)[0]


def ed25519_sign(data: bytes) -> bytes:
    """Sign `data[32:]` with the seed `data[:32]`."""
    seed, message = data[:_KEY_BYTES], data[_KEY_BYTES:]
    if len(seed) != _KEY_BYTES:
        raise ValueError("an Ed25519 private key has 32 bytes")
    secret = nacl.bindings.crypto_sign_seed_keypair(seed)[1]
    return nacl.bindings.crypto_sign(message, secret)[:_SIGNATURE_BYTES]


def ed25519_verify(data: bytes) -> bytes:
    """Check a signature: public key (32 bytes), signature (64), message. Returns one byte."""
    head = _KEY_BYTES + _SIGNATURE_BYTES
    if len(data) < head:
        raise ValueError("public key and signature have 32 and 64 bytes")
    try:
        nacl.bindings.crypto_sign_open(data[_KEY_BYTES:], data[:_KEY_BYTES])
    except nacl.exceptions.BadSignatureError:
        return b"\0"
    return b"\1"


def _algorithm(data: bytes) -> str:
    if not data or data[0] >= len(_HASHES):
        raise ValueError("there is no such hash")
    return _HASHES[data[0]]


def _prefixed(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    rest = data[_LENGTH_BYTES:]
    if length > len(rest):
        raise ValueError("a length goes beyond the end")
    return rest[:length], rest[length:]


FUNCTIONS: Final[dict[bytes, HostFunction]] = {
    b"digest": HostFunction(20_000, 30, digest),
    b"hmac": HostFunction(40_000, 30, mac),
    b"ed25519_public": HostFunction(200_000, 30, ed25519_public),
    b"ed25519_sign": HostFunction(300_000, 60, ed25519_sign),
    b"ed25519_verify": HostFunction(600_000, 30, ed25519_verify),
}
RANDOM: Final = b"random"
ENCODE, DECODE = b"utf8_encode", b"utf8_decode"
TEXT_FUEL, TEXT_FUEL_PER_BYTE = 4_000, 2
RANDOM_FUEL, RANDOM_FUEL_PER_BYTE = 20_000, 30


def prices() -> tuple[tuple[str, int, int], ...]:
    """Return the price list, for the profile."""
    listed = [(name.decode(), f.fuel, f.fuel_per_byte) for name, f in FUNCTIONS.items()]
    listed += [(name.decode(), TEXT_FUEL, TEXT_FUEL_PER_BYTE) for name in (ENCODE, DECODE)]
    listed += [("random", RANDOM_FUEL, RANDOM_FUEL_PER_BYTE), ("import", IMPORT_FUEL, 0)]
    return tuple(sorted(listed))


def without_surrogates(text: bytes) -> bytes:
    """Return UTF-8 from QuickJS's variant of it, in which lone surrogates have three bytes."""
    if b"\xed" not in text:
        return text
    return _SURROGATE.sub("\ufffd".encode(), text)


class Randomness:
    """Bytes that a seed decides: SHAKE-256 over seed and a counter, one stream per run."""

    __slots__ = ("_calls", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = hashlib.sha256(b"lichen/exact/random" + seed).digest()
        self._calls = 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, at most RANDOM_BYTES_MAX."""
        if not 0 <= count <= RANDOM_BYTES_MAX:
            raise ValueError(f"at most {RANDOM_BYTES_MAX} random bytes at a time")
        self._calls += 1
        return hashlib.shake_256(self._seed + self._calls.to_bytes(8, "little")).digest(count)
