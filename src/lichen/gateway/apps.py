"""The apps as the ledger has them, ready to route, and their sites as the store has them.

Routes are built when an app is first asked for and dropped when a block changes it. What a site
answers for a path depends on its root alone, so it is kept whatever release is active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from lichen.cdn.serve import NotFlatError, Shelf, decode_path
from lichen.content import CID, MissingBlockError, resolve
from lichen.errors import NotFoundError, PeerUnavailableError, UserError
from lichen.gateway.routes import AppRoutes
from lichen.ledger.errors import UnknownAppError
from lichen.ledger.tables import APPS
from lichen.wire import ContentEntry, Ready

if TYPE_CHECKING:
    from lichen.content import BlockStore
    from lichen.ledger.blocks import Block
    from lichen.ledger.views import View

APPS_MAX = 20_000
SITE_PATHS_MAX = 50_000
SITE_CACHE = b"public, max-age=0, must-revalidate"
NOT_FOUND_PAGE = "404.html"


class Apps:
    """What each app serves now."""

    def __init__(self, view: View, store: BlockStore) -> None:
        self._view = view
        self._store = store
        self._shelf = Shelf(store)
        self._routes: dict[str, AppRoutes] = {}
        self._sites: dict[tuple[CID, bytes], ContentEntry | Ready | None] = {}

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

    def site(self, root: CID, path: bytes) -> ContentEntry | Ready | None:
        """Return what a site has at a path: a file, a redirect to a directory, or None."""
        key = (root, path)
        if key in self._sites:
            return self._sites[key]
        found = self._look_up(root, path)
        if len(self._sites) >= SITE_PATHS_MAX:
            self._sites.clear()
        self._sites[key] = found
        return found

    def _look_up(self, root: CID, path: bytes) -> ContentEntry | Ready | None:
        try:
            text = decode_path(path)
        except UserError:
            return None
        try:
            found = self._shelf.site(root, text)
            if found is None and not text.endswith("/"):
                found = self._shelf.site(root, text + ".html")
        except MissingBlockError as error:
            raise PeerUnavailableError(
                f"this gateway does not have all of the site {root}", hint="deploy it again"
            ) from error
        if isinstance(found, str):
            location = quote("/" + found.lstrip("/")).encode()
            return Ready.of(301, [(b"location", location), (b"cache-control", SITE_CACHE)])
        return None if found is None else _revalidated(found)

    def not_found_page(self, root: CID) -> Ready | None:
        """Return the site's own 404 page, if it has one."""
        try:
            found = resolve(self._store, root, NOT_FOUND_PAGE)
            entry = self._shelf.file(found, NOT_FOUND_PAGE, f"/ipfs/{root}/{NOT_FOUND_PAGE}")
        except (NotFoundError, UserError, NotFlatError):
            return None
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", SITE_CACHE)]
        return Ready.of(404, headers, entry.full.body)


def _revalidated(entry: ContentEntry) -> ContentEntry:
    """Return the entry with the caching of a name that may point elsewhere tomorrow."""
    lines = [
        line
        for line in entry.headers.split(b"\r\n")
        if line and not line.startswith((b"cache-control:", b"etag:", b"accept-ranges:"))
    ]
    lines.append(b"cache-control: " + SITE_CACHE)
    headers = b"".join(line + b"\r\n" for line in lines)
    return ContentEntry(
        entry.etag, headers, entry.full.body, file=entry.file, offset=entry.offset, size=entry.size
    )
