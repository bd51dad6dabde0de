"""Content by hash as answers: the one place that turns a stored file into an HTTP response.

What was looked up is kept ready: headers spelled out, small bodies in memory, large files open for
sendfile. Content never changes under its name, so entries stay valid; the least used ones go when
`entries_max` or `bytes_max` is passed.
"""

from __future__ import annotations

import collections
import functools
import mimetypes
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from lichen.content import CID, MissingBlockError, lookup, need_block, resolve
from lichen.errors import NotFoundError, UserError
from lichen.wire import Asgi, ContentEntry, FlatFile, Ready, content_answer

if TYPE_CHECKING:
    from lichen.content import BlockStore, Entry
    from lichen.wire import Answer, RequestHead

ENTRIES_MAX = 20_000
BYTES_MAX = 256 * 2**20
PATH_BYTES_MAX = 4096
INDEX = "index.html"
IMMUTABLE = b"public, max-age=29030400, immutable"
_RAW_TYPE = b"application/vnd.ipld.raw"
_TEXT_TYPES = ("text/", "application/javascript", "application/json", "image/svg+xml")


class NotFlatError(UserError):
    """The content is here, but has to be put together from blocks: the ASGI side streams it."""


class Shelf:
    """Ready-made entries for the content of one store."""

    def __init__(
        self, store: BlockStore, *, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        self._store = store
        self._entries: collections.OrderedDict[bytes, ContentEntry] = collections.OrderedDict()
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._bytes = 0

    def get(self, key: bytes) -> ContentEntry | None:
        """Return a ready entry."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: ContentEntry) -> ContentEntry:
        """Keep an entry ready, within the bounds."""
        self._entries[key] = entry
        self._bytes += len(entry.full.body)
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest.full.body)
        return entry

    def file(self, found: Entry, name: str, path: str, cache: bytes = IMMUTABLE) -> ContentEntry:
        """Make the entry of a file; raise NotFlatError when it is not stored in one piece."""
        cid = found.cid
        headers = _headers(_media_type(name), path, cache)
        etag = b'"%b"' % str(cid).encode()
        small = self._store.small_file(cid)
        if small is not None:
            return ContentEntry(etag, headers, small)
        flat = self._store.flat_file(cid)
        if flat is None:
            raise NotFlatError(f"{cid} is stored in blocks")
        file = FlatFile(flat.fd, release=functools.partial(_let_go, flat))
        return ContentEntry(etag, headers, file=file, offset=flat.offset, size=flat.size)

    def block(self, cid: CID) -> ContentEntry:
        """Make the entry of one block as `application/vnd.ipld.raw`."""
        data = need_block(self._store, cid)
        name = str(cid).encode()
        headers = (
            b"content-type: %b\r\ncache-control: %b\r\nx-content-type-options: nosniff\r\n"
            b'content-disposition: attachment; filename="%b.bin"\r\n'
            b"x-ipfs-path: /ipfs/%b\r\nx-ipfs-roots: %b\r\naccess-control-allow-origin: *\r\n"
        ) % (_RAW_TYPE, IMMUTABLE, name, name, name)
        return ContentEntry(b'"%b.raw"' % name, headers, data)

    def site(self, root: CID, path: str) -> ContentEntry | str | None:
        """Look a site's path up: its file, the path with a slash for a directory, or None."""
        try:
            found = resolve(self._store, root, path)
        except MissingBlockError:
            raise
        except (NotFoundError, UserError):
            return None
        if found.is_directory:
            index = lookup(self._store, found.cid, INDEX)
            if index is None:
                return None
            if path and not path.endswith("/"):
                return path + "/"
            found, path = resolve(self._store, index.cid), path + INDEX
        if not found.is_file:
            return None
        return self.file(found, path, f"/ipfs/{root}/{path.lstrip('/')}")


class ContentRouter:
    """Answers `/ipfs/{cid}[/path]` for what is stored here; the rest goes to the ASGI side."""

    def __init__(self, store: BlockStore) -> None:
        self.shelf = Shelf(store)

    def answer(self, head: RequestHead) -> Answer:
        """Answer from the shelf, or find it out; None leaves it to the ASGI app."""
        if head.method not in (b"GET", b"HEAD"):
            return None
        key = head.target
        raw = head.get(b"accept") == _RAW_TYPE
        if raw:
            key += b"#raw"
        entry = self.shelf.get(key)
        if entry is None:
            made = self._make(head, raw=raw)
            if not isinstance(made, ContentEntry):
                return made
            entry = self.shelf.put(key, made)
        return content_answer(entry, head)

    def _make(self, head: RequestHead, *, raw: bool) -> ContentEntry | Answer:
        root, path = split_content_path(head.path)
        query = head.query
        if raw or query == b"format=raw":
            return self.shelf.block(root) if not path.strip("/") else None
        if query or head.get(b"accept").startswith(b"application/vnd.ipld"):
            return None
        try:
            made = self.shelf.site(root, path)
        except NotFlatError:
            return Asgi(0)
        if isinstance(made, str):
            location = quote(f"/ipfs/{root}/{made.lstrip('/')}").encode()
            return Ready.of(301, [(b"location", location), (b"cache-control", IMMUTABLE)])
        if made is None:
            raise NotFoundError(
                f"{root} has nothing at /{path.lstrip('/')[:200]}",
                hint="`lichen storage ls` lists what it has",
            )
        return made


def split_content_path(path: bytes) -> tuple[CID, str]:
    """Split `/ipfs/{cid}/{path}`, percent-decoded; raise UserError for a malformed one."""
    if len(path) > PATH_BYTES_MAX:
        raise UserError(f"a path has at most {PATH_BYTES_MAX} bytes")
    _, _, rest = path[1:].partition(b"/")
    name, slash, below = rest.partition(b"/")
    return CID.parse(name.decode("ascii", "replace")), decode_path(below) if slash else ""


def decode_path(path: bytes) -> str:
    """Percent-decode a path once; raise UserError for NUL bytes, bad UTF-8 and dot segments."""
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UserError("the path is not UTF-8") from error
    if "\0" in text or any(segment in (".", "..") for segment in text.split("/")):
        raise UserError("the path has dot segments or a NUL", hint="name the file directly")
    return text


def _let_go(flat: object) -> None:
    """Be what keeps a flat file's descriptor open for as long as its entry is used."""
    del flat


def _media_type(name: str) -> bytes:
    guessed, encoding = mimetypes.guess_type(name.rsplit("/", 1)[-1], strict=False)
    if guessed is None or encoding is not None:
        return b"application/octet-stream"
    if guessed.startswith(_TEXT_TYPES):
        return f"{guessed}; charset=utf-8".encode()
    return guessed.encode()


def _headers(media_type: bytes, path: str, cache: bytes) -> bytes:
    return (
        b"content-type: %b\r\ncache-control: %b\r\nx-ipfs-path: %b\r\n"
        b"access-control-allow-origin: *\r\n"
    ) % (media_type, cache, quote(path)[:1024].encode())
