"""Content by hash as answers, where no waiting is needed: from memory, or from a file by sendfile.

What was looked up is kept ready: headers spelled out, small bodies in memory, large files open.
Content never changes under its name, so entries stay valid. All the rest (files stored in blocks,
listings, CARs, what is not here) is left to the ASGI side, see `delivery`.
"""

from __future__ import annotations

import functools
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from lichen.cdn.formats import (
    CORS,
    IMMUTABLE,
    RAW_TYPE,
    NotCachedError,
    block_headers,
    chosen_lines,
    decode_path,
    split_content_path,
)
from lichen.cdn.forms.base import Place, at_root, nothing_at
from lichen.cdn.forms.block import QUERY, block_etag
from lichen.cdn.forms.file import etag_of, headers_of, moved_lines
from lichen.cdn.forms.ipld import DOCUMENT_CODECS, document_parts
from lichen.cdn.kept import Keep
from lichen.cdn.media import SNIFFED_BYTES, type_of_name
from lichen.cdn.prompt import LaterError, PromptBlocks
from lichen.cdn.refusal import check_service_worker, refusal
from lichen.cdn.sites.site import (
    NO_RULES,
    Directory,
    Found,
    Moved,
    NotUnixfsError,
    Rules,
    find,
    find_otherwise,
    load_headers,
    load_redirects,
    redirects_bytes,
)
from lichen.cdn.uri import ready, refuse_or_route
from lichen.cdn.wanted import Form, read_wanted
from lichen.content import CID, MissingBlockError, follow, need_block
from lichen.errors import LichenError, UserError
from lichen.wire import Asgi, ContentEntry, FlatFile, Ready, content_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.content import BlockStore
    from lichen.content import FlatFile as StoredFile
    from lichen.wire import Answer, RequestHead

PAGE_BYTES_MAX = 256 * 1024
RULES_BYTES_MAX = 4096  # of a `_redirects` that is read here; a larger one takes too long
READ_METHODS = (b"GET", b"HEAD")
TO_ASGI = Asgi(0)
ACCEPTS_KEPT_MAX = 256
PREFLIGHT = Ready.of(
    204,
    [
        (b"allow", b"GET, HEAD, OPTIONS"),
        (b"access-control-max-age", b"86400"),
        *(
            (name, value)
            for name, _, value in (line.partition(b": ") for line in CORS.splitlines())
        ),
    ],
)
_FORM = re.compile(rb"application/(?:vnd\.ip|x-tar|cbor)", re.IGNORECASE)  # in `Accept`


class NotFlatError(UserError):
    """The content is here, but has to be put together from blocks: the ASGI side streams it."""


class Shelf:
    """Makes entries of what one store has."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store

    def file(
        self,
        found: Found,
        root: CID,
        cache: bytes = IMMUTABLE,
        rules: Rules = NO_RULES,
        *,
        is_shared: bool,
        name: str = "",
    ) -> ContentEntry:
        """Make the entry of a file; raise NotFlatError when it is not stored in one piece.

        `name` is the path that the root was asked for by, where that is not its CID.
        """
        at = name or f"/ipfs/{root}"
        if found.target is not None:
            headers = headers_of(found, at, cache, rules, is_shared=is_shared)
            return ContentEntry(etag_of(found), headers, found.target)
        cid = found.entry.cid
        small = self._store.small_file(cid)
        flat = self._store.flat_file(cid) if small is None else None
        if small is None and flat is None:
            raise NotFlatError(f"{cid} is stored in blocks")
        start = None
        if type_of_name(found.path) is None:
            start = flat.pread(SNIFFED_BYTES) if flat is not None else small
        headers = headers_of(found, at, cache, rules, is_shared=is_shared, start=start)
        if flat is None:
            return ContentEntry(etag_of(found), headers, small or b"")
        file = FlatFile(flat.fd, release=functools.partial(_let_go, flat))
        return ContentEntry(etag_of(found), headers, file=file, offset=flat.offset, size=flat.size)

    def page(
        self,
        found: Found,
        root: CID,
        cache: bytes,
        rules: Rules = NO_RULES,
        *,
        is_shared: bool,
        name: str = "",
        date: bytes = b"",
    ) -> Ready:
        """Make the answer of a file that is shown with another status than 200; see `file`.

        Raises NotFlatError when it is over PAGE_BYTES_MAX, or not stored in one piece.
        """
        cid = found.entry.cid
        body = self._store.small_file(cid)
        if body is None:
            flat = self._store.flat_file(cid)
            if flat is None or flat.size > PAGE_BYTES_MAX:
                raise NotFlatError(f"{cid} is too large for a page of status {found.status}")
            body = flat.pread(flat.size)
        at = name or f"/ipfs/{root}"
        block = headers_of(found, at, cache, rules, is_shared=is_shared, start=body)
        return ready(found.status, b"%betag: %b\r\n%b" % (date, etag_of(found), block), body)

    def page_now(
        self, found: Found, root: CID, cache: bytes, rules: Rules, *, is_shared: bool, name: str
    ) -> Ready:
        """Make the answer of `page` for now: it says its date, and is not to be kept."""
        date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        return self.page(found, root, cache, rules, is_shared=is_shared, name=name, date=date)

    def block(self, cid: CID, chosen_at: str | None = None) -> ContentEntry:
        """Make the entry of one block as `application/vnd.ipld.raw`.

        `chosen_at` is the path at which `Accept` chose this form; None where the query did.
        """
        data = need_block(self._store, cid)
        chosen = b"" if chosen_at is None else chosen_lines(chosen_at, QUERY)
        headers = block_headers(f"/ipfs/{cid}", (cid,), chosen=chosen)
        return ContentEntry(block_etag(cid), headers, data)

    def document(self, place: Place, roots: Sequence[CID]) -> ContentEntry | None:
        """Make the entry of a document at the end of a path; None when it is a large one."""
        if (self._store.size(roots[-1]) or 0) > PAGE_BYTES_MAX:
            return None
        data = need_block(self._store, roots[-1])
        return ContentEntry(*document_parts(place, roots), data)


class ContentRouter:
    """Answers `/ipfs/{cid}[/path]`, and hosts of content, for what is stored here."""

    def __init__(self, store: BlockStore, *, can_fetch: bool = False) -> None:
        """`can_fetch` tells that the ASGI side asks the network for what is not here."""
        self._store = store
        self._shelf = Shelf(store)
        self._kept: Keep[bytes] = Keep()
        self._can_fetch = can_fetch

    def answer(self, head: RequestHead) -> Answer:
        """Answer a path; what needs waiting goes to the ASGI app."""
        try:
            return self._answer(head, head.target, None)
        except LichenError as error:
            return refuse_or_route(error, head)

    def answer_host(self, head: RequestHead, label: str) -> Answer:
        """Answer at a host that stands for the content `label`."""
        try:
            return self._answer(head, b"%b\n%b" % (label.encode(), head.target), label)
        except LichenError as error:
            return refusal(error, head)

    def answer_named(
        self, head: RequestHead, key: bytes, label: str | None, place: Callable[[], Place]
    ) -> Answer:
        """Answer for what a name stands for now; `key` tells that, and the request, from others.

        `label` is the name where the host stands for it. `place` is called when nothing is kept.
        """
        try:
            return self._answer(head, key, label, place)
        except LichenError as error:
            return refusal(error, head)

    def _answer(
        self,
        head: RequestHead,
        key: bytes,
        label: str | None,
        named: Callable[[], Place] | None = None,
    ) -> Answer:
        if head.method not in READ_METHODS:
            return PREFLIGHT if head.method == b"OPTIONS" else TO_ASGI
        block = head.block
        if block.find(b"ervice-") >= 0:  # half the time of `in`
            check_service_worker(head, is_shared=label is None)
        form = Form.PLAIN
        if block.find(b"application/") >= 0:
            chosen = _form_of(head.get(b"accept"))
            if chosen is None:
                return TO_ASGI
            if chosen is Form.RAW:
                form = chosen
                key += b"#raw"
        entry = self._kept.get(key)
        if not isinstance(entry, ContentEntry):
            made = self._make(head, named() if named else _place(head, label), form)
            if not isinstance(made, ContentEntry):
                return made
            made.full.lasts = named is None  # by hash, it never changes
            self._kept.put(key, made)
            entry = made
        return content_answer(entry, head)

    def _make(self, head: RequestHead, place: Place, form: Form) -> ContentEntry | Answer:
        query = head.query
        block = query == b"format=raw" or (form is Form.RAW and not query)
        if (query and not block) or (block and (place.path.strip("/") or place.name)):
            return TO_ASGI
        try:
            if block:
                return self._shelf.block(place.root, None if query else place.prefix + place.path)
            blocks = PromptBlocks(self._store)
            return self._find_any(head, blocks, at_root(blocks, place))
        except MissingBlockError as error:
            if self._can_fetch or isinstance(error, LaterError):
                return TO_ASGI
            if b"only-if-cached" in head.get(b"cache-control").lower():
                raise NotCachedError(f"{error.cid} is not here", hint=error.hint) from error
            raise

    def _find_any(
        self, head: RequestHead, blocks: PromptBlocks, place: Place
    ) -> ContentEntry | Answer:
        try:
            return self._find(blocks, place)
        except NotUnixfsError:
            if b"text/html" in head.get(b"accept").lower():
                return TO_ASGI
            roots = follow(blocks, place.root, place.path)
            if roots[-1].codec not in DOCUMENT_CODECS:
                return TO_ASGI
            entry = self._shelf.document(place, roots)
            # not kept: the next one who asks may be a browser, for which it is a page
            return TO_ASGI if entry is None else content_answer(entry, head)

    def _find(self, blocks: PromptBlocks, place: Place) -> ContentEntry | Answer:
        root, is_host = place.root, place.kind == "host"
        found = find(blocks, root, place.path)
        if found is None and is_host:
            if redirects_bytes(blocks, root) > RULES_BYTES_MAX:
                return TO_ASGI
            rules = load_redirects(blocks, root)
            found = find_otherwise(blocks, root, place.path, rules)
        if found is None:
            raise nothing_at(root, place.path)
        if isinstance(found, Moved):
            return ready(found.status, moved_lines(found, place.prefix, place.cache))
        if isinstance(found, Directory):
            return TO_ASGI
        rules = load_headers(blocks, root) if is_host else NO_RULES
        make = self._shelf.file if found.status == HTTPStatus.OK else self._shelf.page_now
        try:
            return make(found, root, place.cache, rules, is_shared=not is_host, name=place.name)
        except NotFlatError:
            return TO_ASGI


def _place(head: RequestHead, label: str | None) -> Place:
    if label is not None:
        return Place(CID.parse(label), decode_path(head.path), "host")
    root, path = split_content_path(head.path)
    return Place(root, path, prefix=f"/ipfs/{root}")


@functools.lru_cache(maxsize=ACCEPTS_KEPT_MAX)
def _form_of(accept: bytes) -> Form | None:
    """Return PLAIN or RAW where `Accept` asks for nothing else; None where that is to be read."""
    if accept == RAW_TYPE:
        return Form.RAW
    try:
        wanted = read_wanted("", {"accept": accept.decode("latin-1")})
    except UserError:
        return None
    return Form.PLAIN if wanted.form is Form.PLAIN and not wanted.as_json else None


def _let_go(flat: StoredFile) -> None:
    """Be what keeps a flat file's descriptor open for as long as its entry is used."""
    del flat
