"""What `lichen call TARGET` means: an app and a path at the gateway, or a URL."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from lichen.errors import UserError

_LOOPBACK = "127.0.0.1"


def locate(base: str, target: str) -> tuple[str, dict[str, str]]:
    """Return the URL to fetch and the headers to add.

    `app`, `app/path?query` and `/path` are seen from the gateway. Hosts under `.localhost` are
    loopback by definition (RFC 6761), whatever the machine's resolver thinks: they are connected
    to directly and named in the `host` header. Raises UserError for an empty target.
    """
    if target.startswith(("http://", "https://")):
        return _loopback(target)
    if not target.strip("/"):
        raise UserError("there is nothing to call", hint="name an app: hello, or hello/api/time")
    if target.startswith("/"):
        return base + target, {}
    app, slash, rest = target.partition("/")
    app, mark, query = app.partition("?")
    path = f"{slash}{rest}" if slash else f"/{mark}{query}"
    return f"{base}/app/{app}{path}", {}


def _loopback(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.endswith(".localhost"):
        return url, {}
    authority = parts.netloc.rpartition("@")[2]
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=_LOOPBACK + port)), {"host": authority}
