"""From a path to the function that answers it. Pure: built once per release.

A route is a path, or a path prefix that ends in `*`. The longest one wins; an exact path beats a
prefix of the same length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lichen.identity import Address
    from lichen.ledger.types import FunctionSpec, Release


class FunctionRoute:
    """A function of a release as the gateway calls it: `id` is `app/release/name`.

    `ceiling` is the most that a run may cost; `field` and `ceiling_field` are id and ceiling as
    they are sent to nodes.
    """

    __slots__ = ("app", "ceiling", "ceiling_field", "field", "id", "owner", "release", "spec")

    def __init__(self, owner: Address, app: str, release: int, spec: FunctionSpec) -> None:
        self.id = f"{app}/{release}/{spec.name}"
        self.owner = owner
        self.app = app
        self.release = release
        self.spec = spec
        self.ceiling = int(spec.max_price)
        self.field = self.id.encode()
        self.ceiling_field = b"%d" % self.ceiling


class AppRoutes:
    """The routes of one release of an app."""

    __slots__ = ("_exact", "_prefixes", "app", "functions", "owner", "release", "runs_first")

    def __init__(self, owner: Address, release: Release) -> None:
        self.app = release.app
        self.owner = owner
        self.release = release
        self.functions = tuple(
            FunctionRoute(owner, release.app, release.number, spec) for spec in release.functions
        )
        self.runs_first = any(spec.run_first for spec in release.functions)
        self._exact: dict[bytes, FunctionRoute] = {}
        prefixes: dict[bytes, FunctionRoute] = {}
        for function in self.functions:
            for route in function.spec.routes:
                pattern = route.encode()
                if pattern.endswith(b"*"):
                    prefixes.setdefault(pattern[:-1], function)
                else:
                    self._exact.setdefault(pattern, function)
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))

    def match(self, path: bytes) -> FunctionRoute | None:
        """Return the function for a path without its query, or None."""
        found = self._exact.get(path)
        if found is not None:
            return found
        for prefix, function in self._prefixes:
            if path.startswith(prefix) or (prefix.endswith(b"/") and path == prefix[:-1]):
                return function
        return None
