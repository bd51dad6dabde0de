"""The functions of an app's release as the gateway calls them. Pure: built once per release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.ledger.routes import RouteTable

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

    __slots__ = ("_table", "app", "functions", "owner", "release", "runs_first")

    def __init__(self, owner: Address, release: Release) -> None:
        self.app = release.app
        self.owner = owner
        self.release = release
        self.functions = tuple(
            FunctionRoute(owner, release.app, release.number, spec) for spec in release.functions
        )
        self.runs_first = any(spec.run_first for spec in release.functions)
        self._table = RouteTable(
            (route, function) for function in self.functions for route in function.spec.routes
        )

    def match(self, path: bytes) -> FunctionRoute | None:
        """Return the function for a path without its query, or None."""
        return self._table.match(path)
