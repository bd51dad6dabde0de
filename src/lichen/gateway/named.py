"""Content by a mutable name: `/ipns/{name}`, `{name}.ipns.{host}`, and domains with a DNSLink.

Names that are resolved in memory are answered in the event loop, by entries kept under what they
stand for now; the others on the ASGI side, which waits for DNS and for others' records.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.cdn.formats import PATH_BYTES_MAX, decode_path
from lichen.cdn.forms.base import Links, Place
from lichen.cdn.names.dnslink import inline, outline
from lichen.cdn.names.resolver import Resolved
from lichen.cdn.serve import PREFLIGHT, READ_METHODS, TO_ASGI
from lichen.content.ipns import Name
from lichen.errors import UserError
from lichen.wire import Ready

if TYPE_CHECKING:
    from lichen.cdn.names.resolver import Names
    from lichen.cdn.serve import ContentRouter
    from lichen.wire import Answer, RequestHead

PREFIX: Final = b"/ipns/"
SUBDOMAIN: Final = ".ipns."
KNOWN_MAX: Final = 16_384
KNOWN_TARGET_BYTES_MAX: Final = 512
_LABELS_READ_MAX: Final = 16_384


class Asked(msgspec.Struct, frozen=True):
    """Which name a request is for, in its one spelling, and what below it (percent-encoded).

    `host` is the Host field where that stands for the name, `base` the gateway's own below it: in
    `{name}.ipns.{base}`. A domain that is a host may turn out to have no content.
    """

    name: str
    path: bytes
    host: str = ""
    base: str = ""

    @property
    def is_domain(self) -> bool:
        """Whether the host is a domain of its own, and not one below the gateway's."""
        return bool(self.host) and not self.base


class _Known(msgspec.Struct, frozen=True):
    """How requests for one target were answered, while their name stands for the same."""

    name: str
    resolved: Resolved
    key: bytes
    place: Callable[[], Place]


class Named:
    """Reads which name a request is for, and answers what needs no waiting."""

    def __init__(self, names: Names, content: ContentRouter) -> None:
        self.names = names
        self._content = content
        self._spell = functools.lru_cache(maxsize=_LABELS_READ_MAX)(self._spelling)
        self._read_path = functools.lru_cache(maxsize=_LABELS_READ_MAX)(self._name_of_path)
        self._read_label = functools.lru_cache(maxsize=_LABELS_READ_MAX)(self._name_of_label)
        self._known: dict[bytes, _Known] = {}

    # --- the event loop --------------------------------------------------------------------------

    def answer_path(self, head: RequestHead) -> Answer:
        """Answer `/ipns/{name}[/path]`; a key in another spelling is redirected to its usual one.

        Raises UserError for what is no name.
        """
        known = self._known.get(head.target)
        if known is not None and self.names.ready(known.name) is known.resolved:
            return self._content.answer_named(head, known.key, None, known.place)
        path = head.path
        text = path[len(PREFIX) :].partition(b"/")[0]
        name, is_usual = self._read_path(text)
        if not is_usual:
            return _moved(302, PREFIX + name.encode() + head.target[len(PREFIX) + len(text) :])
        return self._answer(head, name, head.target, None, lambda: self.at_path(path))

    def answer_label(
        self, head: RequestHead, label: str, scheme_of: Callable[[RequestHead], bytes]
    ) -> Answer:
        """Answer `{label}.ipns.{host}`; a key in another spelling is redirected to its usual."""
        target = b"%b\n%b" % (head.host, head.target)
        known = self._known.get(target)
        if known is not None and self.names.ready(known.name) is known.resolved:
            return self._content.answer_named(head, known.key, label, known.place)
        name = self._read_label(label)
        if name != label and isinstance(self.names.key(name), Name):
            host = name.encode() + head.host[len(label) :]
            return _moved(301, b"%b://%b%b" % (scheme_of(head), host, head.target))
        asked = functools.partial(self.at_label, head.host, head.path, label)
        return self._answer(head, name, target, label, asked)

    def answer_domain(self, head: RequestHead, domain: str) -> Answer:
        """Answer at a host that is none of the gateway's own; None when it has no content.

        While that is not known, reading requests wait for DNS on the ASGI side; others are for the
        gateway, as are all where the domain has no DNSLink.
        """
        is_linked = self.names.is_linked(domain)
        if is_linked is None:
            return _later(head) if head.method in READ_METHODS else None
        if not is_linked:
            return None
        target = b"%b\n%b" % (head.host, head.target)
        known = self._known.get(target)
        if known is not None and self.names.ready(domain) is known.resolved:
            return self._content.answer_named(head, known.key, domain, known.place)
        asked = functools.partial(self.at_domain, head.host, head.path, domain)
        return self._answer(head, domain, target, domain, asked)

    def _answer(
        self,
        head: RequestHead,
        name: str,
        target: bytes,
        label: str | None,
        asked: Callable[[], Asked],
    ) -> Answer:
        """Answer for a name, and remember how, under what tells this request from others."""
        resolved = self.names.ready(name)
        if resolved is None:
            return _later(head)
        key = b"\n%b\n%b" % (target, resolved.token)
        known = _Known(name, resolved, key, lambda: place_of(asked(), resolved))
        if len(target) <= KNOWN_TARGET_BYTES_MAX:
            self._known[target] = known
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        return self._content.answer_named(head, key, label, known.place)

    # --- what is asked for -----------------------------------------------------------------------

    def at_path(self, path: bytes) -> Asked:
        """Read a path `/ipns/{name}[/path]`; raise UserError for what is no name."""
        text, below = _split(path)
        return Asked(self._spell(text), below)

    def at_label(self, host: bytes, path: bytes, label: str) -> Asked:
        """Read a host `{label}.ipns.{base}`: a key's name, or a domain, inlined or as it is."""
        text = host.decode("latin-1")
        return Asked(self._read_label(label), path, text, text[len(label) + len(SUBDOMAIN) :])

    def at_domain(self, host: bytes, path: bytes, domain: str) -> Asked:
        """Read a host that is a domain with a DNSLink, perhaps."""
        return Asked(domain, path, host.decode("latin-1"))

    def label(self, text: str) -> str:
        """Return the one label that a name has in `{label}.ipns.{host}`; UserError for no name."""
        name = self._spell(text)
        return name if isinstance(self.names.key(name), Name) else inline(name)

    def _name_of_path(self, text: bytes) -> tuple[str, bool]:
        """Return a name's one spelling, and whether it was spelled so."""
        name = self._spell(text.decode("ascii", "replace"))
        return name, name == text.decode("ascii", "replace").lower()

    def _spelling(self, text: str) -> str:
        return str(self.names.key(text))

    def _name_of_label(self, label: str) -> str:
        try:
            return self._spelling(label)
        except UserError:
            return self._spelling(outline(label))


def place_of(asked: Asked, resolved: Resolved) -> Place:
    """Return what a resolved name's request is for; raise UserError for a malformed path."""
    name = f"/ipns/{asked.name}"
    links = None
    if asked.base:
        links = Links(f"//{asked.base}{name}", f"//{asked.base}/ipfs/")
    elif asked.host:
        links = Links(f"//{asked.host}", "")
    return Place(
        resolved.root,
        decode_path(asked.path),
        "host" if asked.host else "content",
        "" if asked.host else name,
        b"public, max-age=%d" % resolved.ttl_s,
        name=name,
        below=resolved.below,
        links=links,
    )


def _split(path: bytes) -> tuple[str, bytes]:
    """Split `/ipns/{name}/rest` into the name and `/rest`."""
    if len(path) > PATH_BYTES_MAX:
        raise UserError(f"a path has at most {PATH_BYTES_MAX} bytes")
    name, slash, below = path[len(PREFIX) :].partition(b"/")
    return name.decode("ascii", "replace"), slash + below


def _later(head: RequestHead) -> Answer:
    return PREFLIGHT if head.method == b"OPTIONS" else TO_ASGI


def _moved(status: int, location: bytes) -> Ready:
    return Ready.of(status, [(b"location", location), (b"access-control-allow-origin", b"*")])
