"""Which blocks and files were read or added lately: two generations of names, bounded in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GENERATION_NAMES_MAX = 1 << 16
_CIDV1 = 1  # how flat files' names begin, and no multihash


class Recent:
    """The last GENERATION_NAMES_MAX names at least, twice as many at most; safe from any thread.

    A name that one thread adds while another one begins a generation may be lost: it counts as not
    used lately, no more.
    """

    def __init__(self, names_max: int = GENERATION_NAMES_MAX) -> None:
        self._names_max = names_max
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def add(self, name: bytes) -> None:
        """Take a multihash or a flat file as used now."""
        self._young.add(name)
        if len(self._young) >= self._names_max:
            self._old, self._young = self._young, set()

    def add_all(self, names: Iterable[bytes]) -> None:
        """Take several as used now."""
        for name in names:
            self.add(name)

    def __contains__(self, name: bytes) -> bool:
        return name in self._young or name in self._old

    def files(self) -> list[bytes]:
        """Return the flat files among them."""
        names = [*self._old.copy(), *self._young.copy()]
        return [name for name in names if name[0] == _CIDV1]
