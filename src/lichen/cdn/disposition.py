"""`Content-Disposition` (https://www.rfc-editor.org/rfc/rfc6266): what to call what is sent. Pure.

Names come from anybody: what could end the field, leave a folder or mislead a parser becomes `_`.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote

Kind = Literal["inline", "attachment"]
ASCII_BYTES_MAX = 255
ENCODED_BYTES_MAX = 384  # of `filename*`, in which a letter takes up to twelve bytes
SUFFIX_BYTES_MAX = 16  # kept when a name is cut
_SAFE = "!#$&+-.^_`|~"  # unreserved in RFC 8187 besides letters and digits
_ODD = re.compile(r"[\x00-\x1f\x7f\"\\/%]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def disposition(kind: Kind, filename: str | None = None) -> bytes:
    """Return the header line: inline is shown, attachment saved, both under this name.

    A name that is not ASCII is given twice, as the gateway specification wants it: in ASCII with
    `_` for all other letters, and percent-encoded. Long names are cut in front of their suffix.
    """
    if not filename:
        return b"content-disposition: %b\r\n" % kind.encode()
    name = _shorten(filename.encode("utf-8", "replace").decode())
    plain = _ODD.sub("_", _NOT_ASCII.sub("_", name))
    line = f'content-disposition: {kind}; filename="{plain}"'
    if not name.isascii():
        line += f"; filename*=UTF-8''{quote(_clean(name), safe=_SAFE)}"
    return line.encode() + b"\r\n"


def _clean(name: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", name)


def _shorten(name: str) -> str:
    if _fits(name):
        return name
    stem, dot, suffix = name.rpartition(".")
    suffix = dot + suffix
    if not stem or len(quote(suffix, safe="")) > SUFFIX_BYTES_MAX:
        stem, suffix = name, ""
    low, high = 0, len(stem)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(stem[:middle] + suffix) else (low, middle - 1)
    return stem[:low] + suffix


def _fits(name: str) -> bool:
    if name.isascii():
        return len(name) <= ASCII_BYTES_MAX
    return len(quote(_clean(name), safe=_SAFE)) <= ENCODED_BYTES_MAX
