"""From a path to what answers it: the rule that ledger, gateway and clients share. Pure.

A route is a path, or a path prefix that ends in `*`; `/api/*` also stands for `/api`. An exact path
wins, then the longest prefix; of two equal ones the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class RouteTable(Generic[T]):
    """What answers on which routes, prepared for many look-ups."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, routes: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[bytes, T] = {}
        prefixes: dict[bytes, T] = {}
        for route, target in routes:
            pattern = route.encode()
            if pattern.endswith(b"*"):
                prefixes.setdefault(pattern[:-1], target)
            else:
                self._exact.setdefault(pattern, target)
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))

    def match(self, path: bytes) -> T | None:
        """Return what answers on a path without its query, or None."""
        found = self._exact.get(path)
        if found is not None:
            return found
        for prefix, target in self._prefixes:
            if path.startswith(prefix) or (prefix.endswith(b"/") and path == prefix[:-1]):
                return target
        return None
