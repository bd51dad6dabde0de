"""A page that shows what a DAG-JSON or DAG-CBOR block says, with its links to follow.

The block comes from anybody: all of it is escaped, and no more is shown than a page can hold.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from lichen.cdn.forms.page import STYLE, top
from lichen.content import CID, DAG_CBOR, DAG_JSON
from lichen.content.ipld import decode
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.content.value import Value

PREVIEW_VERSION: Final = 2  # of how pages look: a part of their entity tag
VALUES_MAX: Final = 2000
TEXT_LETTERS_MAX: Final = 1000
BYTES_MAX: Final = 64
_NAMES: Final = {DAG_JSON: "dag-json", DAG_CBOR: "dag-cbor"}
_STYLE: Final = (
    STYLE + "pre{white-space:pre-wrap;overflow-wrap:anywhere}b{font-weight:600}i{opacity:.7}"
)


def preview(cid: CID, block: bytes, title: str, path: str) -> Iterator[bytes]:
    """Yield the page; `path` is the decoded path of its own address."""
    name = _NAMES[cid.codec]
    yield (
        f"{top(title, _STYLE)}<h1>{html.escape(title)}</h1>"
        f"<p><code>{cid}</code>: {len(block)} bytes of {name}. "
        f"<a href='?format={name}&amp;download=true'>Save it as it is</a> or as a "
        "<a href='?format=raw'>raw block</a>.</p><pre>"
    ).encode()
    try:
        value = decode(cid.codec, block)
    except UserError as error:
        yield f"<i>It cannot be shown: {html.escape(error.what)}</i>".encode()
    else:
        yield from _Page(path.rstrip("/")).show(value)
    yield b"</pre></body></html>\n"


class _Page:
    """Shows one value; `path` is where it is found."""

    def __init__(self, path: str) -> None:
        self._left = VALUES_MAX
        self._path = path

    def show(self, value: Value) -> Iterator[bytes]:
        """Yield the lines of a value."""
        yield from self._value(value, ())

    def _value(self, value: Value, along: tuple[str, ...]) -> Iterator[bytes]:
        self._left -= 1
        if isinstance(value, dict):
            entries = [(f"<b>{_text(key)}</b>: ", key, item) for key, item in value.items()]
            yield from self._items("{}", entries, along)
        elif isinstance(value, list):
            items = [("", str(number), item) for number, item in enumerate(value)]
            yield from self._items("[]", items, along)
        elif isinstance(value, CID):
            yield self._link(value, along).encode()
        else:
            yield _scalar(value).encode()

    def _items(
        self, brackets: str, items: list[tuple[str, str, Value]], along: tuple[str, ...]
    ) -> Iterator[bytes]:
        indent = "  " * len(along)
        yield brackets[0].encode()
        for label, segment, item in items:
            yield f"\n{indent}  {label}".encode()
            if self._left <= 0:
                yield b"<i>and more</i>"
                break
            yield from self._value(item, (*along, segment))
        yield (f"\n{indent}{brackets[1]}" if items else brackets[1]).encode()

    def _link(self, cid: CID, along: tuple[str, ...]) -> str:
        """Link by path, where each part of it is a segment: it leads there at any origin."""
        if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in along):
            return f"link {cid}"
        where = quote(self._path) + "".join("/" + quote(part, safe="") for part in along)
        return f"<a href='{html.escape(where or '/')}'>{cid}</a>"


def _scalar(value: float | str | bytes | None) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{_text(value)}"'
    if isinstance(value, bytes):
        more = "…" if len(value) > BYTES_MAX else ""
        return f"<i>{len(value)} bytes</i> {value[:BYTES_MAX].hex()}{more}"
    return repr(value)


def _text(text: str) -> str:
    more = "…" if len(text) > TEXT_LETTERS_MAX else ""
    return html.escape(text[:TEXT_LETTERS_MAX]) + more
