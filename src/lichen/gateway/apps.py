"""The apps as the ledger has them, ready to route, and their sites as the store has them.

Routes are built when an app is first asked for and dropped when a block changes it. What a site
answers for a path depends on its root alone, so it is kept whatever release is active.
"""

from __future__ import annotations

import collections
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from lichen.cdn.formats import decode_path, moved_headers
from lichen.cdn.forms.file import location_of
from lichen.cdn.kept import Keep, Kept
from lichen.cdn.prompt import PromptBlocks
from lichen.cdn.serve import Shelf
from lichen.cdn.sites.redirects import MOVES, with_query
from lichen.cdn.sites.site import Moved, Rules, find_otherwise, find_page, load_rules
from lichen.cdn.uri import ready
from lichen.errors import UserError
from lichen.gateway.routes import AppRoutes
from lichen.ledger.errors import UnknownAppError
from lichen.ledger.tables import APPS
from lichen.wire import Ready

if TYPE_CHECKING:
    from lichen.content import CID, BlockStore
    from lichen.ledger.blocks import Block
    from lichen.ledger.views import View

APPS_MAX = 20_000
RULES_MAX = 1000
OTHERWISE_BYTES_MAX = 64 * 2**20
SITE_CACHE = b"public, max-age=0, must-revalidate"


class Apps:
    """What each app serves now."""

    def __init__(self, view: View, store: BlockStore) -> None:
        self._view = view
        self._store = store
        self._shelf = Shelf(store)
        self._routes: dict[str, AppRoutes] = {}
        self._sites: Keep[tuple[CID, bytes, bool]] = Keep()
        self._otherwise: Keep[tuple[CID, bytes, str]] = Keep(bytes_max=OTHERWISE_BYTES_MAX)
        self._rules: collections.OrderedDict[CID, Rules] = collections.OrderedDict()

    def get(self, name: str) -> AppRoutes:
        """Return an app's routes; raise UnknownAppError."""
        routes = self._routes.get(name)
        if routes is None:
            app = self._view.app(name)
            release = None if app is None else self._view.release(name, app.active)
            if app is None or release is None:
                raise UnknownAppError(
                    f"there is no app {name} on this network", hint="`lichen deploy` makes one"
                )
            if len(self._routes) >= APPS_MAX:
                self._routes.clear()
            routes = self._routes[name] = AppRoutes(app.owner, release)
        return routes

    def on_block(self, block: Block, changed: frozenset[bytes]) -> None:
        """Forget the routes of apps that a block changed."""
        del block
        for key in changed:
            if key.startswith(APPS.prefix):
                self._routes.pop(key.removeprefix(APPS.prefix).decode(), None)

    def site(self, root: CID, path: bytes, prefix: str = "", query: bytes = b"") -> Kept:
        """Return what a site has at a path: a file, a redirect to a directory, or None.

        `prefix` is the path that stands for the root, empty at a host of its own. A redirect passes
        `query` on. Raises NotFlatError or MissingBlockError for what the ASGI side has to answer.
        """
        key = (root, path, bool(prefix))
        found = self._sites.get(key)
        if found is None and key not in self._sites:
            found = self._look_up(root, path, is_shared=bool(prefix))
            self._sites.put(key, found)
        if query and isinstance(found, Ready):
            return self._look_up(root, path, query, is_shared=bool(prefix))
        return found

    def _look_up(self, root: CID, path: bytes, query: bytes = b"", *, is_shared: bool) -> Kept:
        text = _decoded(path)
        found = None if text is None else find_page(PromptBlocks(self._store), root, text)
        if isinstance(found, Moved):  # relative, so that it holds below /app/{app} too
            location = "./" + quote(found.to.rstrip("/").rpartition("/")[2]) + "/"
            return _moved(301, location.encode() + (b"?" + query if query else b""))
        if found is None:
            return None
        rules = self._rules_of(root)
        return self._shelf.file(found, root, SITE_CACHE, rules, is_shared=is_shared)

    def otherwise(self, root: CID, path: bytes, prefix: str = "", query: bytes = b"") -> Kept:
        """Return what a site answers where it has no file: a redirect, a page, or None.

        Arguments and errors are those of `site`.
        """
        key = (root, path, prefix)
        found = self._otherwise.get(key)
        if found is None and key not in self._otherwise:
            found = self._look_elsewhere(root, path, prefix)
            self._otherwise.put(key, found)
        if query and isinstance(found, Ready) and found.status in MOVES:
            return self._look_elsewhere(root, path, prefix, query)
        return found

    def _look_elsewhere(self, root: CID, path: bytes, prefix: str, query: bytes = b"") -> Kept:
        rules = self._rules_of(root)
        found = find_otherwise(PromptBlocks(self._store), root, _decoded(path) or "", rules)
        if isinstance(found, Moved):
            location = with_query(location_of(found, prefix).decode(), query.decode("latin-1"))
            return _moved(found.status, location.encode("ascii", "replace"))
        if found is None:
            return None
        make = self._shelf.file if found.status == HTTPStatus.OK else self._shelf.page
        return make(found, root, SITE_CACHE, rules, is_shared=bool(prefix))

    def _rules_of(self, root: CID) -> Rules:
        rules = self._rules.get(root)
        if rules is None:
            rules = self._rules[root] = load_rules(self._store, root)
            while len(self._rules) > RULES_MAX:
                self._rules.popitem(last=False)
        return rules


def _decoded(path: bytes) -> str | None:
    try:
        return decode_path(path)
    except UserError:
        return None


def _moved(status: int, location: bytes) -> Ready:
    return ready(status, moved_headers(location, SITE_CACHE))
