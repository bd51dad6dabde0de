"""What stands at a path below a root: a file, a directory, or somewhere else to go. Pure.

Content (`/ipfs/...`) and sites (app hosts) are looked up alike; a site has its rules besides: pages
without `.html`, `_headers`, `_redirects`, and a 404 page of its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec

from lichen.cdn.sites.headers import Headers, parse_headers
from lichen.cdn.sites.redirects import (
    FILE_BYTES_MAX,
    Redirects,
    RulesError,
    check_redirects,
    parse_redirects,
    too_large,
)
from lichen.content import (
    CID,
    DAG_PB,
    RAW,
    Blocks,
    Entry,
    MissingBlockError,
    follow,
    lookup,
    need_block,
    read_file,
    stat,
)
from lichen.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

INDEX = "index.html"
NOT_FOUND_PAGE = "/404.html"
HEADERS_FILE = "_headers"
REDIRECTS_FILE = "_redirects"
RULES_KEPT_MAX = 64
_HIDDEN = ("/" + HEADERS_FILE, "/" + REDIRECTS_FILE)
_parse_headers = functools.lru_cache(maxsize=RULES_KEPT_MAX)(parse_headers)
_check_redirects = functools.lru_cache(maxsize=RULES_KEPT_MAX)(check_redirects)


class NotUnixfsError(UserError):
    """A path leads to a block of another codec, which is neither file nor directory."""

    code = "not-unixfs"


class Found(msgspec.Struct, frozen=True):
    """A file, the path it stands at, the path that was asked for, and the answer's status.

    `roots` are the CIDs along the path that was asked for; `tag` names what is sent in the entity
    tag. A symlink is found like a file: it is sent as where it points.
    """

    entry: Entry
    path: str
    asked: str
    status: int = 200
    roots: tuple[CID, ...] = ()
    index_of: CID | None = None

    @property
    def tag(self) -> CID:
        """Return the CID of the file, or of the directory whose index page it is."""
        return self.index_of or self.entry.cid

    @property
    def target(self) -> bytes | None:
        """Return where a symlink points; None for a file."""
        target = self.entry.target
        return None if target is None else target.encode("utf-8", "surrogateescape")


class Directory(msgspec.Struct, frozen=True):
    """A directory without an index page, and the CIDs along the path to it."""

    entry: Entry
    roots: tuple[CID, ...] = ()


class Moved(msgspec.Struct, frozen=True):
    """Ask for this instead: a decoded path of the same root, or (status not 301) a location."""

    to: str
    status: int = 301
    is_location: bool = False


class Rules(msgspec.Struct, frozen=True):
    """What a site says about itself."""

    headers: Headers = Headers()
    redirects: Redirects = Redirects()


NO_RULES = Rules()


def find(blocks: Blocks, root: CID, path: str) -> Found | Directory | Moved | None:
    """Look up a decoded path, empty or with a slash in front.

    What is malformed counts as not there, unless it is the root itself: UserError. Raises
    MissingBlockError, NotUnixfsError, and what `follow` raises for a path into a block.
    """
    need_block(blocks, root)
    try:
        roots = follow(blocks, root, path)
        entry = _stat_unixfs(blocks, roots[-1])
        if not entry.is_directory:
            as_folder = path.endswith("/") and path.strip("/")
            return None if as_folder else Found(entry, path, path, roots=roots)
        index = lookup(blocks, entry.cid, INDEX)
    except (MissingBlockError, NotUnixfsError):
        raise
    except NotFoundError:
        return None
    except UserError as error:
        if not path.strip("/") or error.status != UserError.status:
            raise
        return None
    if index is None:
        return Directory(entry, roots)
    if not path.endswith("/"):
        return Moved(path + "/")
    page = stat(blocks, index.cid)
    if not page.is_file:
        return Directory(entry, roots)
    return Found(page, path + INDEX, path, roots=roots, index_of=entry.cid)


def _stat_unixfs(blocks: Blocks, cid: CID) -> Entry:
    if cid.codec not in (DAG_PB, RAW):
        raise NotUnixfsError(f"{cid} is not UnixFS", hint="ask for it with ?format=raw")
    return stat(blocks, cid)


def load_rules(blocks: Blocks, root: CID) -> Rules:
    """Read a site's `_headers` and `_redirects`; what is wrong in them is passed over."""
    headers = _read_rules(blocks, root, HEADERS_FILE)
    redirects = _read_rules(blocks, root, REDIRECTS_FILE)
    if headers is None and redirects is None:
        return NO_RULES
    return Rules(parse_headers(headers or b"")[0], parse_redirects(redirects or b"")[0])


def load_headers(blocks: Blocks, root: CID) -> Rules:
    """Read a site's `_headers` alone, for what was found; what is wrong in it is passed over."""
    headers = _read_rules(blocks, root, HEADERS_FILE)
    return NO_RULES if headers is None else Rules(_parse_headers(headers)[0])


def redirects_bytes(blocks: Blocks, root: CID) -> int:
    """Return the size of a site's `_redirects`, 0 without one."""
    link = lookup(blocks, root, REDIRECTS_FILE) if root.codec == DAG_PB else None
    return 0 if link is None else stat(blocks, link.cid).file_bytes


def load_redirects(blocks: Blocks, root: CID) -> Rules:
    """Read a site's `_redirects`, as the specification wants it; raise RulesError."""
    link = lookup(blocks, root, REDIRECTS_FILE) if root.codec == DAG_PB else None
    if link is None:
        return NO_RULES
    entry = stat(blocks, link.cid)
    if not entry.is_file:
        raise RulesError("could not parse _redirects: it is no file", hint="make it one")
    if entry.file_bytes > FILE_BYTES_MAX:
        raise too_large()
    return Rules(Headers(), _check_redirects(b"".join(read_file(blocks, entry.cid))))


def _read_rules(blocks: Blocks, root: CID, name: str) -> bytes | None:
    try:
        link = lookup(blocks, root, name)
        entry = None if link is None else stat(blocks, link.cid)
        if entry is None or not entry.is_file or entry.file_bytes > FILE_BYTES_MAX:
            return None
        return b"".join(read_file(blocks, entry.cid))
    except MissingBlockError:
        raise
    except UserError:  # a root that is no directory, or a malformed file: no rules
        return None


def find_page(blocks: Blocks, root: CID, path: str) -> Found | Moved | None:
    """Look up a path of a site: a file, a directory's index, or the page with `.html` added."""
    if path in _HIDDEN:
        return None
    found = _page(lambda: find(blocks, root, path))
    if found is not None or path.endswith("/"):
        return found
    page = _page(lambda: find(blocks, root, path + ".html"))
    return msgspec.structs.replace(page, asked=path) if isinstance(page, Found) else None


def _page(look: Callable[[], Found | Directory | Moved | None]) -> Found | Moved | None:
    try:
        found = look()
    except MissingBlockError:
        raise
    except UserError:
        return None
    if isinstance(found, Found):  # a page of a site is the same as long as the file is
        return None if found.target is not None else msgspec.structs.replace(found, index_of=None)
    return None if isinstance(found, Directory) else found


def find_otherwise(blocks: Blocks, root: CID, path: str, rules: Rules) -> Found | Moved | None:
    """Answer a path at which a site has nothing: by its redirects, else by its 404 page."""
    target = rules.redirects.find(path)
    if target is not None and target.moves:
        return Moved(target.to, target.status, is_location=True)
    shown = None if target is None else find_page(blocks, root, _path_of(target.to))
    if target is not None and isinstance(shown, Moved):  # a folder's index, without its slash
        shown = find_page(blocks, root, shown.to)
    if target is not None and isinstance(shown, Found):
        return Found(shown.entry, shown.path, path, target.status)
    page = find_page(blocks, root, NOT_FOUND_PAGE)
    return Found(page.entry, page.path, path, 404) if isinstance(page, Found) else None


def _path_of(target: str) -> str:
    return target.partition("#")[0].partition("?")[0]
