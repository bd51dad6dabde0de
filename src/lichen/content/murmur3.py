"""MurmurHash3 x64 (Appleby, public domain), seed 0, first 64 of 128 bits: the hash of HAMTs."""

from __future__ import annotations

_MASK = 2**64 - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


def murmur3_x64_64(data: bytes) -> bytes:
    """Return the 8 bytes that multiformats call murmur3-x64-64, big-endian."""
    h1 = h2 = 0
    whole = len(data) & ~15
    for offset in range(0, whole, 16):
        k1 = int.from_bytes(data[offset : offset + 8], "little")
        k2 = int.from_bytes(data[offset + 8 : offset + 16], "little")
        h1 = (_rotl(h1 ^ _mix_k1(k1), 27) + h2) & _MASK
        h1 = (h1 * 5 + 0x52DCE729) & _MASK
        h2 = (_rotl(h2 ^ _mix_k2(k2), 31) + h1) & _MASK
        h2 = (h2 * 5 + 0x38495AB5) & _MASK
    h1 ^= _mix_k1(int.from_bytes(data[whole : whole + 8], "little")) ^ len(data)
    h2 ^= _mix_k2(int.from_bytes(data[whole + 8 :], "little")) ^ len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    return ((_finish(h1) + _finish(h2)) & _MASK).to_bytes(8, "big")


def _rotl(number: int, bits: int) -> int:
    return (number << bits | number >> (64 - bits)) & _MASK


def _mix_k1(k: int) -> int:
    return _rotl(k * _C1 & _MASK, 31) * _C2 & _MASK


def _mix_k2(k: int) -> int:
    return _rotl(k * _C2 & _MASK, 33) * _C1 & _MASK


def _finish(h: int) -> int:
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return h ^ h >> 33
