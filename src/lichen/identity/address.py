"""Addresses: 20 bytes, shown with the mixed-case checksum of EIP-55."""

from __future__ import annotations

import functools
import re
from typing import Self

import sha3

from lichen.errors import UserError

ADDRESS_BYTES = 20
_TEXT = re.compile(r"0x[0-9a-fA-F]{40}")


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 digest (the one Ethereum uses, not SHA3-256)."""
    return bytes(sha3.keccak_256(data).digest())


class Address(bytes):
    """Who is meant: an account, a node or a contract, as 20 bytes.

    Two addresses are equal when their bytes are. `str()` and the wire form are EIP-55 text.
    """

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """Check the length; raise UserError when it is not 20."""
        if len(raw) != ADDRESS_BYTES:
            raise UserError(f"an address has {ADDRESS_BYTES} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0x` and 40 hex digits; mixed case has to carry the right EIP-55 checksum."""
        if not _TEXT.fullmatch(text):
            raise UserError(
                f"{text!r} is not an address", hint="an address is 0x and 40 hexadecimal digits"
            )
        address = cls(bytes.fromhex(text[2:]))
        digits = text[2:]
        if digits not in (digits.lower(), digits.upper()) and str(address) != text:
            raise UserError(
                f"{text} has a wrong checksum",
                hint=f"a letter was mistyped; if none was, write it in lower case: {text.lower()}",
            )
        return address

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """Read the wire form: exactly the EIP-55 spelling."""
        if not isinstance(value, str):
            raise ValueError("an address is a string")  # noqa: TRY004 - msgspec reports ValueErrors
        address = cls.parse(value)
        if str(address) != value:
            raise ValueError(f"address {value} is not in EIP-55 form ({address!s})")
        return address

    def to_wire(self) -> str:
        """Return the EIP-55 text."""
        return _checksummed(bytes(self))

    __str__ = to_wire

    def __repr__(self) -> str:
        return f"Address({self})"


ZERO_ADDRESS = Address(bytes(ADDRESS_BYTES))


@functools.lru_cache(maxsize=65536)
def _checksummed(raw: bytes) -> str:
    """Spell an address as EIP-55 does: a digit is upper case where the hash nibble is 8 or more."""
    digits = raw.hex()
    nibbles = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if nibble >= "8" else digit
        for digit, nibble in zip(digits, nibbles, strict=False)
    )
