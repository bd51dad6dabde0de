"""The gateway's router: what a request is for, decided from its host and path.

Sites' files answer before functions, unless a function has `run_first`; a site's redirects and its
404 page answer after them. Everything that is not an app or content by hash is the gateway's own:
its API, health and metrics, on the ASGI side. What content needs waiting for is answered there too:
`place` says what such a request is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.formats import decode_path, split_content_path
from lichen.cdn.forms.base import Links, Place
from lichen.cdn.refusal import refusal
from lichen.cdn.serve import READ_METHODS, TO_ASGI, NotFlatError
from lichen.cdn.uri import refuse_or_route
from lichen.content import CID, MissingBlockError
from lichen.errors import LichenError, NotFoundError
from lichen.gateway.apps import SITE_CACHE
from lichen.gateway.call import Call
from lichen.gateway.named import PREFIX as NAME_PREFIX
from lichen.gateway.names import APP_PREFIX, GATEWAY, LOCALHOST, Hosts, split_app_path
from lichen.gateway.subdomains import Subdomains, is_page, too_long
from lichen.wire import Asgi, ContentEntry, content_answer

if TYPE_CHECKING:
    from lichen.cdn.names.resolver import Names
    from lichen.cdn.serve import ContentRouter
    from lichen.gateway.apps import Apps
    from lichen.gateway.config import GatewayConfig
    from lichen.gateway.named import Asked, Named
    from lichen.gateway.names import Name
    from lichen.gateway.placer import Placer
    from lichen.wire import Answer, RequestHead


class NoRouteError(NotFoundError):
    """The app has nothing at this path."""

    code = "no-route"


class Front:
    """Routes every request that comes to the gateway."""

    def __init__(
        self,
        config: GatewayConfig,
        apps: Apps,
        content: ContentRouter,
        placer: Placer,
        named: Named,
    ) -> None:
        self._hosts = Hosts(config.hosts, config.dnslinks)
        self._subdomains = Subdomains(self._hosts, config.trusted_proxies, named.label)
        self._has_proxies = self._subdomains.has_proxies
        listen, _, port = config.listen.rpartition(":")
        self._addresses = frozenset(
            host + end
            for host in ("localhost", "127.0.0.1", "[::1]", listen)
            for end in ("", ":80", f":{port}")
        )
        self._domain = config.hosts[0].encode()
        self._apps = apps
        self._content = content
        self._placer = placer
        self._named = named
        self._upload_bytes_max = config.upload_bytes_max
        self._request_bytes_max = config.request_bytes_max

    def route(self, head: RequestHead) -> Answer:
        """Answer a request, or leave it to the ASGI app."""
        name = self._hosts.read(head.host)
        if name is LOCALHOST and not is_page(head):
            name = GATEWAY
        if name is not GATEWAY or (self._has_proxies and head.block.find(b"orwarded-") >= 0):
            kind = name.kind
            if kind == "app":
                return self._app(name.value, head, head.target, None)
            if kind == "ipfs":
                return self._content.answer_host(head, name.value)
            answer = self._at_host(head, name)
            if answer is not None:
                return answer
        path = head.path
        if path.startswith(b"/ipfs/"):
            return self._content.answer(head)
        if path.startswith(NAME_PREFIX):
            return self._by_name(head)
        if path.startswith(APP_PREFIX):
            found = split_app_path(head.target)
            if found is not None:
                app, target = found
                return self._app(app, head, target, self._host_of(app, head.host))
        return Asgi(self._upload_bytes_max) if path == b"/api/v1/content" else None

    def _at_host(self, head: RequestHead, name: Name) -> Answer:
        """Answer what only certain hosts have; None for what all have."""
        try:
            if name.kind == "ipns":
                return self._named.answer_label(head, name.value, self._subdomains.scheme_of)
            if name.kind == "moved":
                return self._subdomains.canonical(head, name.value, name.to)
            if name.kind == "long":
                raise too_long(name.value)
            moved = self._subdomains.answer(head, name.value if name.kind == "gateway" else "")
        except LichenError as error:
            return refusal(error, head)
        if moved is None and name.kind == "domain":
            return self._named.answer_domain(head, name.value)
        return moved

    def _by_name(self, head: RequestHead) -> Answer:
        try:
            return self._named.answer_path(head)
        except LichenError as error:
            return refuse_or_route(error, head)

    def is_own(self, host: bytes) -> bool:
        """Tell whether clients that use the gateway as their proxy may ask for a host."""
        return self._hosts.is_own(host) or host.decode("latin-1") in self._addresses

    @property
    def names(self) -> Names:
        """The resolver of names."""
        return self._named.names

    def asked(self, host: bytes, path: bytes) -> Asked | None:
        """Return which name a request that came to the ASGI side is for; None for none."""
        host = host.lower()
        name = self._hosts.read(host)
        if name.kind == "ipns":
            return self._named.at_label(host, path, name.value)
        if name.kind == "domain" and self.names.is_linked(name.value) is not False:
            return self._named.at_domain(host, path, name.value)
        is_name = path.startswith(NAME_PREFIX) and name.kind in ("gateway", "domain")
        return self._named.at_path(path) if is_name else None

    def needs_router(self, path: bytes) -> bool:
        """Tell whether only the router answers a path: functions are called there."""
        return path.startswith(APP_PREFIX)

    def place(self, host: bytes, path: bytes) -> Place | None:
        """Return what content a request that came to the ASGI side is for; None for none."""
        name = self._hosts.read(host.lower())
        if name.kind == "app":
            return self._site_place(name.value, path, "")
        if name.kind == "ipfs":
            return self._host_place(host, name.value, path)
        if path.startswith(b"/ipfs/"):
            root, below = split_content_path(path)
            return Place(root, below, prefix=f"/ipfs/{root}")
        found = split_app_path(path)
        return self._site_place(found[0], found[1], f"/app/{found[0]}") if found else None

    def _host_place(self, host: bytes, label: str, path: bytes) -> Place:
        root = CID.parse(label)
        base = "//" + host.decode("latin-1")[len(label) + len(".ipfs.") :]
        links = Links(f"{base}/ipfs/{root}", f"{base}/ipfs/")
        return Place(root, decode_path(path), "host", links=links)

    def _site_place(self, app: str, path: bytes, prefix: str) -> Place:
        routes = self._apps.get(app)
        if routes.release.site is None:
            raise _no_route(app, path)
        return Place(
            routes.release.site,
            decode_path(path),
            "site",
            prefix,
            SITE_CACHE,
            has_function=routes.match(path) is not None,
        )

    def _host_of(self, app: str, host: bytes) -> bytes:
        """Return the app's own host, which its functions see for `/app/...` too."""
        _, colon, port = host.partition(b":")
        return b"%b.app.%b%b%b" % (app.encode(), self._domain, colon, port)

    def _app(self, name: str, head: RequestHead, target: bytes, host: bytes | None) -> Answer:
        routes = self._apps.get(name)
        path = target.partition(b"?")[0] if host is not None else head.path
        function = routes.match(path)
        root = routes.release.site if head.method in READ_METHODS else None
        prefix = "" if host is None else f"/app/{name}"
        if root is not None and not (function is not None and function.spec.run_first):
            found = self._site(root, path, head, prefix)
            if found is not None:
                return found
        if function is not None:
            call = Call(self._placer, function, None if host is None else target, host)
            call.body_bytes_max = self._request_bytes_max
            return call
        found = None if root is None else self._site(root, path, head, prefix, otherwise=True)
        if found is None:
            raise _no_route(name, path)
        return found

    def _site(
        self, root: CID, path: bytes, head: RequestHead, prefix: str, *, otherwise: bool = False
    ) -> Answer:
        try:
            if otherwise:
                found = self._apps.otherwise(root, path, prefix)
            else:
                found = self._apps.site(root, path, prefix)
            if isinstance(found, ContentEntry):
                return content_answer(found, head)
            if found is None or not head.query:
                return found
            look = self._apps.otherwise if otherwise else self._apps.site
            found = look(root, path, prefix, head.query)
        except (NotFlatError, MissingBlockError):
            return TO_ASGI
        return content_answer(found, head) if isinstance(found, ContentEntry) else found


def _no_route(app: str, path: bytes) -> NoRouteError:
    return NoRouteError(
        f"app {app} has nothing at {path[:200].decode('latin-1')}",
        hint="its lichen.toml says which routes and files it has",
    )
