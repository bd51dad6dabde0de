"""Content with a validator: 200, 206, 304 or 416, decided from headers prepared once.

GET and HEAD with If-None-Match, Range and If-Range as RFC 9110 has them. Of several ranges in one
request the first that can be had is sent: the client sees in Content-Range what it got, and asks
for the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lichen.wire.answers import Ready, status_line
from lichen.wire.sendfile import SendFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.wire.answers import Work
    from lichen.wire.heads import RequestHead

RANGES_MAX: Final = 16  # more of them are nobody's who reads: the whole content is sent
_RANGE = re.compile(rb"[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")
_NOT_ALLOWED: Final = Ready.of(405, [(b"allow", b"GET, HEAD")])


class FlatFile:
    """An open file that content is sent from. `acquire` and `release` frame each use of it."""

    __slots__ = ("acquire", "fd", "release")

    def __init__(
        self,
        fd: int,
        acquire: Callable[[], None] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.fd = fd
        self.acquire = acquire
        self.release = release


class ContentEntry:
    """One piece of content, either in memory or as `size` bytes of a file from `offset` on.

    `etag` is the entity tag with its quotes; `headers` all further header lines, each with its
    CRLF: content-type, cache-control, x-ipfs-path and so on.
    """

    __slots__ = ("etag", "file", "full", "headers", "not_modified", "offset", "size")

    def __init__(
        self,
        etag: bytes,
        headers: bytes,
        body: bytes = b"",
        *,
        file: FlatFile | None = None,
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        self.etag = etag
        self.file = file
        self.offset = offset
        self.size = len(body) if size is None else size
        self.headers = b"etag: %b\r\naccept-ranges: bytes\r\n%b" % (etag, headers)
        self.not_modified = Ready(status_line(304) + self.headers + b"\r\n")
        self.full = Ready(self._head(200, self.size), body)

    def _head(self, status: int, length: int, more: bytes = b"") -> bytes:
        return b"%b%b%bcontent-length: %d\r\n\r\n" % (
            status_line(status),
            self.headers,
            more,
            length,
        )

    def whole(self) -> Ready | Work:
        """Answer with all of it."""
        if self.file is None:
            return self.full
        return self._send(self.full.head, 0, self.size)

    def part(self, first: int, last: int) -> Ready | Work:
        """Answer with the bytes from `first` to `last`, both included (206)."""
        length = last - first + 1
        place = b"content-range: bytes %d-%d/%d\r\n" % (first, last, self.size)
        head = self._head(206, length, place)
        if self.file is None:
            return Ready(head, self.full.body[first : last + 1])
        return self._send(head, first, length)

    def unsatisfiable(self) -> Ready:
        """Answer that the range lies outside of the content (416)."""
        return Ready.of(416, [(b"content-range", b"bytes */%d" % self.size)])

    def _send(self, head: bytes, first: int, length: int) -> SendFile:
        file = self.file
        assert file is not None
        if file.acquire is not None:
            file.acquire()
        return SendFile(head, file.fd, self.offset + first, length, file.release)


def content_answer(entry: ContentEntry, head: RequestHead) -> Ready | Work:
    """Answer a GET or HEAD request for this content; any other method gets 405."""
    if head.method == b"HEAD":
        return entry.not_modified if _matches(entry, head) else entry.full
    if head.method != b"GET":
        return _NOT_ALLOWED
    # Most requests have neither, so the fields are not split; `find` takes half the time of `in`.
    find = head.block.lower().find
    if find(b"\r\nrange:") < 0 and find(b"\r\nif-none-match:") < 0:
        return entry.full if entry.file is None else entry.whole()
    if _matches(entry, head):
        return entry.not_modified
    return _ranged(entry, head)


def etag_matches(etag: bytes, condition: bytes) -> bool:
    """Compare the value of If-None-Match with an entity tag, weakly (RFC 9110, 13.1.2)."""
    if not condition:
        return False
    strong = etag.removeprefix(b"W/")
    tags = (tag.strip().removeprefix(b"W/") for tag in condition.split(b","))
    return any(tag in {strong, b"*"} for tag in tags)


def byte_range(value: bytes, size: int) -> tuple[int, int] | None:
    """Read the value of Range: the first and last byte to send of `size`.

    None is for the whole: no range, too many, or a malformed one. A first behind the last says that
    all ranges lie outside (RFC 9110, 14.1).
    """
    if value[:6].lower() != b"bytes=":
        return None
    parts = value[6:].split(b",", RANGES_MAX)
    places = [_place(part, size) for part in parts]
    if len(parts) > RANGES_MAX or None in places:
        return None
    found = [place for place in places if place is not None]
    return next((place for place in found if place[0] <= place[1]), found[0])


def _place(part: bytes, size: int) -> tuple[int, int] | None:
    match = _RANGE.fullmatch(part)
    if match is None:
        return None
    first, last = match.groups()
    if first:
        if last and int(last) < int(first):
            return None  # not a valid range: all are ignored (RFC 9110, 14.1.1)
        return int(first), min(int(last), size - 1) if last else size - 1
    if not last:
        return None
    return (max(0, size - int(last)), size - 1) if int(last) else (size, size - 1)


def _matches(entry: ContentEntry, head: RequestHead) -> bool:
    return etag_matches(entry.etag, head.get(b"if-none-match"))


def _ranged(entry: ContentEntry, head: RequestHead) -> Ready | Work:
    condition = head.get(b"if-range")
    place = byte_range(head.get(b"range"), entry.size)
    if place is None or (condition and condition != entry.etag):
        return entry.whole()
    return entry.part(*place) if place[0] <= place[1] else entry.unsatisfiable()
