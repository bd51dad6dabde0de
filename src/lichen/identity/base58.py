"""Base58 with Bitcoin's alphabet, as multibase `z` and did:key use it."""

from __future__ import annotations

from lichen.errors import UserError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE = {letter: value for value, letter in enumerate(_ALPHABET)}
TEXT_MAX = 256


def encode(data: bytes) -> str:
    """Return base58 text; each leading zero byte becomes a leading `1`."""
    number = int.from_bytes(data, "big")
    letters = []
    while number:
        number, digit = divmod(number, 58)
        letters.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(letters))


def decode(text: str) -> bytes:
    """Read base58 text of at most TEXT_MAX letters; raise UserError otherwise."""
    if len(text) > TEXT_MAX:
        raise UserError(f"base58 text of {len(text)} letters is over the limit of {TEXT_MAX}")
    number = 0
    for letter in text:
        if letter not in _VALUE:
            raise UserError(f"{letter!r} is not a base58 letter")
        number = number * 58 + _VALUE[letter]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
