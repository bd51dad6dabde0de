"""Amounts of FLK: integers of 10^-18 FLK, written as decimal strings wherever they travel."""

from __future__ import annotations

import re
from typing import Self

from lichen.errors import UserError

FLK = 10**18
AMOUNT_MAX = 2**128 - 1
_CANONICAL = re.compile(r"0|[1-9][0-9]{0,38}")
_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,18}))?")


class Amount(int):
    """A non-negative integer of 10^-18 FLK, at most 2^128 - 1.

    Arithmetic yields plain integers: wrap a result in `Amount` where it enters a struct again, so
    that an underflow is caught there. On the wire (JSON and DAG-CBOR) it is a decimal string,
    because both formats end at 64 bits.
    """

    __slots__ = ()

    def __new__(cls, value: int = 0) -> Self:
        """Check the bounds; raise UserError outside of them."""
        if not 0 <= value <= AMOUNT_MAX:
            raise UserError(f"amount {value} is out of range", hint="amounts are 0 .. 2^128-1")
        return super().__new__(cls, value)

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """Read the wire form; only the one canonical spelling is accepted."""
        if not isinstance(value, str) or not _CANONICAL.fullmatch(value):
            raise ValueError("an amount is a decimal string without sign or leading zeros")
        return cls(int(value))

    def to_wire(self) -> str:
        """Return the canonical decimal string."""
        return int.__repr__(self)

    def __repr__(self) -> str:
        return f"Amount({int.__repr__(self)})"

    def __str__(self) -> str:
        return int.__repr__(self)


def parse_flk(text: str) -> Amount:
    """Read a human amount such as `1.5` (FLK) exactly; raise UserError when it is not one."""
    match = _DECIMAL.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{text!r} is not an amount of FLK",
            hint="write a decimal number with at most 18 places, such as 1.5",
        )
    whole, fraction = match.group(1), match.group(2) or ""
    return Amount(int(whole) * FLK + int(fraction.ljust(18, "0") or "0"))


def format_flk(amount: int) -> str:
    """Write an amount of 10^-18 FLK as a human decimal, exactly, with its sign if negative."""
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    whole, fraction = divmod(size, FLK)
    digits = f"{fraction:018d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
