"""What stands at a path below a root: a file, a directory, or somewhere else to go. Pure.

Content (`/ipfs/...`) and sites (app hosts) are looked up alike; a site has its rules besides: pages
without `.html`, `_headers`, `_redirects`, and a 404 page of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.cdn.headers import Headers, parse_headers
from lichen.cdn.redirects import FILE_BYTES_MAX, Redirects, parse_redirects
from lichen.content import (
    CID,
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
_HIDDEN = ("/" + HEADERS_FILE, "/" + REDIRECTS_FILE)


class Found(msgspec.Struct, frozen=True):
    """A file, the path it stands at, the path that was asked for, and the answer's status.

    `roots` are the CIDs along the path that was asked for.
    """

    entry: Entry
    path: str
    asked: str
    status: int = 200
    roots: tuple[CID, ...] = ()


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
    """Look up a decoded path, empty or with a slash in front; raise MissingBlockError.

    What is malformed or not UnixFS counts as not there, unless it is the root itself: UserError.
    """
    need_block(blocks, root)
    try:
        roots = follow(blocks, root, path)
        entry = stat(blocks, roots[-1])
        if not entry.is_directory:
            as_folder = path.endswith("/") and path.strip("/")
            is_found = entry.is_file and not as_folder
            return Found(entry, path, path, roots=roots) if is_found else None
        index = lookup(blocks, entry.cid, INDEX)
    except MissingBlockError:
        raise
    except NotFoundError:
        return None
    except UserError:
        if not path.strip("/"):
            raise
        return None
    if index is None:
        return Directory(entry, roots)
    if not path.endswith("/"):
        return Moved(path + "/")
    page = stat(blocks, index.cid)
    if not page.is_file:
        return Directory(entry, roots)
    return Found(page, path + INDEX, path, roots=roots)


def load_rules(blocks: Blocks, root: CID) -> Rules:
    """Read a site's `_headers` and `_redirects`; what is wrong in them is passed over."""
    headers = _read_rules(blocks, root, HEADERS_FILE)
    redirects = _read_rules(blocks, root, REDIRECTS_FILE)
    if headers is None and redirects is None:
        return NO_RULES
    return Rules(parse_headers(headers or b"")[0], parse_redirects(redirects or b"")[0])


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
    return None if isinstance(found, Directory) else found


def find_otherwise(blocks: Blocks, root: CID, path: str, rules: Rules) -> Found | Moved | None:
    """Answer a path at which a site has nothing: by its redirects, else by its 404 page."""
    target = rules.redirects.find(path)
    if target is not None and target.moves:
        return Moved(target.to, target.status, is_location=True)
    shown = None if target is None else find_page(blocks, root, target.to)
    if target is not None and isinstance(shown, Moved):  # a folder's index, without its slash
        shown = find_page(blocks, root, shown.to)
    if target is not None and isinstance(shown, Found):
        return Found(shown.entry, shown.path, path, target.status)
    page = find_page(blocks, root, NOT_FOUND_PAGE)
    return Found(page.entry, page.path, path, 404) if isinstance(page, Found) else None
