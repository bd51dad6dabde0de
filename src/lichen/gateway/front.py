"""The gateway's router: what a request is for, decided from its host and path.

Sites' files answer before functions, unless a function has `run_first`. Everything that is not an
app or content by hash is the gateway's own: its API, health and metrics, on the ASGI side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.serve import NotFlatError
from lichen.errors import NotFoundError
from lichen.gateway.call import Call
from lichen.gateway.names import APP_PREFIX, Hosts, split_app_path
from lichen.wire import Asgi, ContentEntry, content_answer

if TYPE_CHECKING:
    from lichen.cdn.serve import ContentRouter
    from lichen.content import CID
    from lichen.gateway.apps import Apps
    from lichen.gateway.config import GatewayConfig
    from lichen.gateway.placer import Placer
    from lichen.wire import Answer, RequestHead

READ_METHODS = (b"GET", b"HEAD")


class NoRouteError(NotFoundError):
    """The app has nothing at this path."""

    code = "no-route"


class Front:
    """Routes every request that comes to the gateway."""

    def __init__(
        self, config: GatewayConfig, apps: Apps, content: ContentRouter, placer: Placer
    ) -> None:
        self._hosts = Hosts(config.hosts)
        self._domain = config.hosts[0].encode()
        self._apps = apps
        self._content = content
        self._placer = placer
        self._upload_bytes_max = config.upload_bytes_max
        self._request_bytes_max = config.request_bytes_max

    def route(self, head: RequestHead) -> Answer:
        """Answer a request, or leave it to the ASGI app."""
        name = self._hosts.read(head.host)
        if name.kind == "app":
            return self._app(name.value, head, head.target, None)
        path = head.path
        if path.startswith(b"/ipfs/"):
            return self._content.answer(head)
        if path.startswith(APP_PREFIX):
            found = split_app_path(head.target)
            if found is not None:
                app, target = found
                return self._app(app, head, target, self._host_of(app, head.host))
        return Asgi(self._upload_bytes_max) if path == b"/api/v1/content" else None

    def _host_of(self, app: str, host: bytes) -> bytes:
        """Return the app's own host, which its functions see for `/app/...` too."""
        _, colon, port = host.partition(b":")
        return b"%b.app.%b%b%b" % (app.encode(), self._domain, colon, port)

    def _app(self, name: str, head: RequestHead, target: bytes, host: bytes | None) -> Answer:
        routes = self._apps.get(name)
        path = target.partition(b"?")[0] if host is not None else head.path
        function = routes.match(path)
        root = routes.release.site
        reads = head.method in READ_METHODS
        if root is not None and reads and not (function is not None and function.spec.run_first):
            found = self._site(root, path, head)
            if found is not None:
                return found
        if function is not None:
            call = Call(self._placer, function, None if host is None else target, host)
            call.body_bytes_max = self._request_bytes_max
            return call
        page = self._apps.not_found_page(root) if root is not None and reads else None
        if page is not None:
            return page
        raise NoRouteError(
            f"app {name} has nothing at {path[:200].decode('latin-1')}",
            hint="its lichen.toml says which routes and files it has",
        )

    def _site(self, root: CID, path: bytes, head: RequestHead) -> Answer:
        try:
            found = self._apps.site(root, path)
        except NotFlatError:
            return None
        return content_answer(found, head) if isinstance(found, ContentEntry) else found
