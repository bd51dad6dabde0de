"""Where a body ends: by length, by chunks, or with the connection.

`feed(data)` takes bytes as they come and returns the payload in them, free of framing. When the
body is over, `done` is set and `rest` holds the bytes after it. Chunk extensions and trailers are
bounded, read and dropped (RFC 9112, 7.1).
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from lichen.wire.errors import MalformedError
from lichen.wire.heads import CHUNKED, UNTIL_CLOSE

CHUNK_LINE_BYTES_MAX: Final = 1024
TRAILER_BYTES_MAX: Final = 8192
LAST_CHUNK: Final = b"0\r\n\r\n"

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_TRAILER = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+)?\r\n")


class Framing(Protocol):
    """A body being read."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Return the payload in these bytes; raise MalformedError on a wrong framing."""
        ...


class LengthFraming:
    """A body of a known number of bytes."""

    __slots__ = ("done", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what belongs to the body."""
        size = len(data)
        if size > self.left:
            self.rest = data[self.left :]
            data = data[: self.left]
            size = self.left
        self.left -= size
        self.done = self.left == 0
        return data


class UntilCloseFraming:
    """A response body that ends with its connection."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return everything."""
        return data


_AT_SIZE, _IN_CHUNK, _AFTER_CHUNK, _IN_TRAILER = range(4)


class ChunkedFraming:
    """A chunked body, read strictly: CRLF only, at most 15 hexadecimal digits of size."""

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._state = _AT_SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Return the payload of all chunks in these bytes, joined."""
        pieces: list[bytes] = []
        at = 0
        if self._line:
            data = self._line + data
            self._line = b""
        while at >= 0 and not self.done:
            if self._state == _IN_CHUNK:
                at = self._read_chunk(data, at, pieces)
            else:
                at = self._read_line(data, at)
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if piece:
            pieces.append(piece)
        self._left -= len(piece)
        if self._left:
            return -1
        self._state = _AFTER_CHUNK
        return at + len(piece)

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            self._line = data[at:]
            if len(self._line) > CHUNK_LINE_BYTES_MAX:
                raise MalformedError("a chunk line is too long")
            return -1
        end += 1
        if end - at > CHUNK_LINE_BYTES_MAX:
            raise MalformedError("a chunk line is too long")
        self._take_line(data, at, end)
        return end

    def _take_line(self, data: bytes, at: int, end: int) -> None:
        if self._state == _AT_SIZE:
            match = _SIZE.fullmatch(data, at, end)
            if match is None:
                raise MalformedError("a chunk size is malformed", hint="RFC 9112, section 7.1")
            self._left = int(match.group(1), 16)
            self._state = _IN_CHUNK if self._left else _IN_TRAILER
        elif self._state == _AFTER_CHUNK:
            if data[at:end] != b"\r\n":
                raise MalformedError("a chunk is longer than its size says")
            self._state = _AT_SIZE
        else:
            self._take_trailer(data, at, end)

    def _take_trailer(self, data: bytes, at: int, end: int) -> None:
        self._trailer_bytes += end - at
        if not _TRAILER.fullmatch(data, at, end) or self._trailer_bytes > TRAILER_BYTES_MAX:
            raise MalformedError("the trailer is malformed or too long")
        self.done = end - at == 2


def framing_for(length: int) -> Framing:
    """Return the reader for a body of this length, `CHUNKED` or `UNTIL_CLOSE`."""
    if length == CHUNKED:
        return ChunkedFraming()
    if length == UNTIL_CLOSE:
        return UntilCloseFraming()
    return LengthFraming(length)


def chunk(payload: bytes) -> bytes:
    """Frame a payload as one chunk; nothing for an empty one, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
