"""Digests and how a signature binds them to a purpose and a network."""

from __future__ import annotations

import hashlib
import re
from typing import Self

from lichen.errors import UserError

_TEXT = re.compile(r"[0-9a-f]{64}")


class Digest(bytes):
    """A 32-byte hash whose wire form is lower-case hex."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """Check the length; raise UserError when it is not 32."""
        if len(raw) != 32:
            raise UserError(f"a digest has 32 bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """Read 64 lower-case hexadecimal digits."""
        if not isinstance(value, str) or not _TEXT.fullmatch(value):
            raise ValueError("a digest is 64 lower-case hexadecimal digits")
        return cls(bytes.fromhex(value))

    def to_wire(self) -> str:
        """Return 64 lower-case hexadecimal digits."""
        return self.hex()

    __str__ = to_wire

    def __repr__(self) -> str:
        return f"Digest({self!s})"


def signing_digest(domain: str, network: bytes, body: bytes) -> bytes:
    """Return what is signed: sha256(domain || 0x00 || network id || body).

    `domain` names the purpose and its version (`lichen/tx/1`), so that a signature made for one
    purpose or network is worth nothing for another.
    """
    if len(network) != 32:
        raise ValueError("a network id has 32 bytes")
    if not domain or "\0" in domain:
        raise ValueError("a signing domain is a non-empty name without zero bytes")
    return hashlib.sha256(domain.encode("ascii") + b"\x00" + network + body).digest()
