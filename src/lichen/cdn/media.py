"""Which media type content has: by its name, else by how it begins. Pure.

What is told by its first bytes (https://mimesniff.spec.whatwg.org) is never told to be a document
that runs scripts, unless the content has an origin of its own.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Final

import msgspec

SNIFFED_BYTES = 512
UNKNOWN: Final = b"application/octet-stream"
JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
HTML: Final = b"text/html; charset=utf-8"
SYMLINK: Final = b"inode/symlink"
_TEXT_TYPES = ("text/", "application/javascript", "image/svg+xml")
# Beside what Python knows, and whatever a machine's own list says: one file has one type anywhere.
_TYPES = mimetypes.MimeTypes()
for _suffix, _type in {
    ".apng": "image/apng", ".atom": "application/atom+xml", ".avif": "image/avif",
    ".flac": "audio/flac", ".glb": "model/gltf-binary", ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript", ".jsonld": "application/ld+json", ".jxl": "image/jxl",
    ".m4a": "audio/mp4", ".md": "text/markdown", ".mjs": "text/javascript", ".ogg": "audio/ogg",
    ".opus": "audio/ogg", ".otf": "font/otf", ".ttf": "font/ttf", ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json", ".webp": "image/webp", ".woff": "font/woff",
    ".woff2": "font/woff2", ".xhtml": "application/xhtml+xml",
}.items():  # fmt: skip
    _TYPES.add_type(_type, _suffix)
_MAGIC: Final = (
    (0, b"\x89PNG\r\n\x1a\n", b"image/png"),
    (0, b"\xff\xd8\xff", b"image/jpeg"),
    (0, b"GIF87a", b"image/gif"),
    (0, b"GIF89a", b"image/gif"),
    (8, b"WEBPVP", b"image/webp"),
    (0, b"BM", b"image/bmp"),
    (0, b"\x00\x00\x01\x00", b"image/vnd.microsoft.icon"),
    (4, b"ftypavif", b"image/avif"),
    (4, b"ftyphei", b"image/heic"),
    (4, b"ftypM4A", b"audio/mp4"),
    (4, b"ftyp", b"video/mp4"),
    (0, b"\x1a\x45\xdf\xa3", b"video/webm"),
    (0, b"OggS\x00", b"application/ogg"),
    (0, b"ID3", b"audio/mpeg"),
    (0, b"\xff\xfb", b"audio/mpeg"),
    (0, b"fLaC", b"audio/flac"),
    (8, b"WAVE", b"audio/wav"),
    (0, b"%PDF-", b"application/pdf"),
    (0, b"PK\x03\x04", b"application/zip"),
    (0, b"\x1f\x8b\x08", b"application/gzip"),
    (0, b"\x00asm", b"application/wasm"),
    (0, b"wOFF", b"font/woff"),
    (0, b"wOF2", b"font/woff2"),
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
# Begins like an object, or a list of objects: what a longer file is only seen to begin with.
_JSON: Final = re.compile(r'\s*+(?:\[\s*+)*+\{\s*+(?:"(?:[^"\\]|\\.)*+"\s*+:|\}\s*+,)', re.DOTALL)
_COMMENT = r"<!--(?:(?!-->).)*+-->"
_FLAGS = re.IGNORECASE | re.DOTALL
_SVG = re.compile(
    rf"(?:<\?xml[^>]*+>|{_COMMENT}|<!doctype svg[^>]*+>|\s)*+<svg[\s>]",
    _FLAGS,
)
_HTML = re.compile(
    rf"(?:{_COMMENT}|\s)*+"
    r"<(?:!doctype html|html|head|body|script|style|title|h1|div|p|a|br|table)[\s>]",
    _FLAGS,
)


def type_of_name(name: str) -> bytes | None:
    """Return the media type that a file's name tells, None when it tells none."""
    guessed, encoding = _TYPES.guess_type(name.rsplit("/", 1)[-1], strict=False)
    if encoding is not None:
        return UNKNOWN
    if guessed is None:
        return None
    if guessed.startswith(_TEXT_TYPES):
        return f"{guessed}; charset=utf-8".encode()
    return guessed.encode()


def type_of_bytes(start: bytes, *, is_shared: bool = True) -> bytes:
    """Return the media type of content by its first bytes (SNIFFED_BYTES are looked at).

    HTML is called text where it would share its origin with other content.
    """
    start = bytes(start[:SNIFFED_BYTES])
    for offset, magic, kind in _MAGIC:
        if start.startswith(magic, offset):
            return kind
    if _BINARY.search(start):
        return UNKNOWN
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(start) < SNIFFED_BYTES or error.start < len(start) - 3:
            return UNKNOWN  # not only a letter that the end cuts off
        text = start[: error.start].decode("utf-8-sig")
    if _is_json(start, text):
        return JSON
    if _SVG.match(text):
        return b"image/svg+xml; charset=utf-8"
    return HTML if not is_shared and _HTML.match(text) else TEXT


def _is_json(start: bytes, text: str) -> bool:
    if len(start) == SNIFFED_BYTES:
        return _JSON.match(text) is not None
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(start, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def media_type(name: str, start: bytes | None = None, *, is_shared: bool = True) -> bytes:
    """Return the media type of a file by its name, else by its first bytes where they are known."""
    kind = type_of_name(name)
    if kind is None:
        kind = UNKNOWN if start is None else type_of_bytes(start, is_shared=is_shared)
    return kind
