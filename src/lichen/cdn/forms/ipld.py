"""Blocks that are documents: JSON, CBOR, DAG-JSON and DAG-CBOR, each sent as it is.

No codec is turned into another one here: a form that is not the block's own is refused with 406
(https://specs.ipfs.tech/ipips/ipip-0524). A browser gets a page that shows what a document says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from lichen.cdn.disposition import disposition
from lichen.cdn.formats import (
    CORS,
    NotAcceptableError,
    chosen_lines,
    fit_headers,
    listing_headers,
    path_lines,
)
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_bytes, plan_ranges, plan_stream
from lichen.cdn.forms.preview import PREVIEW_VERSION, preview
from lichen.cdn.wanted import MEDIA_TYPES, Form, Wanted
from lichen.content import (
    CBOR,
    CID,
    DAG_CBOR,
    DAG_JSON,
    DAG_PB,
    JSON,
    RAW,
    follow,
    need_block,
    read_file,
    stat,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.cdn.disposition import Kind
    from lichen.content import Blocks

JSON_CHECKED_BYTES_MAX: Final = 1 << 20  # of a larger file, the name is believed
_OWN_FORM: Final = {
    JSON: Form.JSON,
    CBOR: Form.CBOR,
    DAG_JSON: Form.DAG_JSON,
    DAG_CBOR: Form.DAG_CBOR,
}
DOCUMENT_CODECS: Final = frozenset(_OWN_FORM)
_CODECS: Final = {
    Form.JSON: {JSON, DAG_JSON},
    Form.CBOR: {CBOR, DAG_CBOR},
    Form.DAG_JSON: {DAG_JSON},
    Form.DAG_CBOR: {DAG_CBOR},
}
_KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "json": ("inline", "json"),
    "cbor": ("attachment", "cbor"),
}


def plan_codec(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan what a path leads to in the form that was asked for by name."""
    roots = follow(blocks, place.root, place.path)
    codec = roots[-1].codec
    if wanted.form is Form.JSON and codec in (DAG_PB, RAW):
        return _plan_json_file(blocks, place, roots, wanted, conditions)
    if codec not in _CODECS[wanted.form]:
        raise _not_offered(roots[-1], wanted.form)
    return _plan_document(blocks, place, roots, wanted, conditions, wanted.form)


def plan_document(
    blocks: Blocks, place: Place, roots: Sequence[CID], wanted: Wanted, conditions: Conditions
) -> Plan:
    """Plan a document that no form was named for; `roots` are the CIDs along the path to it."""
    cid = roots[-1]
    if "text/html" in wanted.takes and cid.codec in (DAG_JSON, DAG_CBOR) and not wanted.is_download:
        return _plan_preview(blocks, place, roots, conditions)
    form = _OWN_FORM[cid.codec]
    if wanted.as_json:
        if cid.codec in _CODECS[Form.JSON]:
            form = Form.JSON
        elif not wanted.takes & {"*/*", "application/*"}:
            raise _not_offered(cid, Form.JSON)
    return _plan_document(blocks, place, roots, wanted, conditions, form)


def document_parts(place: Place, roots: Sequence[CID]) -> tuple[bytes, bytes]:
    """Return entity tag and header lines of a document as it is sent where nothing else is asked.

    That is not to a browser, which gets a page instead, and not where `Accept` prefers JSON.
    """
    form = _OWN_FORM[roots[-1].codec]
    return _etag(roots[-1], form), _headers(place, roots, Wanted(), form)


def _plan_document(
    blocks: Blocks,
    place: Place,
    roots: Sequence[CID],
    wanted: Wanted,
    conditions: Conditions,
    form: Form,
) -> Plan:
    data = need_block(blocks, roots[-1])
    headers = _headers(place, roots, wanted, form)
    return plan_bytes(_etag(roots[-1], form), headers, data, conditions)


def _etag(cid: CID, form: Form) -> bytes:
    return b'"%b.%b"' % (str(cid).encode(), form.value.encode())


def _headers(place: Place, roots: Sequence[CID], wanted: Wanted, form: Form) -> bytes:
    kind, suffix = _KINDS[form.value.removeprefix("dag-")]
    name = disposition(
        "attachment" if wanted.is_download else kind, wanted.filename or f"{roots[-1]}.{suffix}"
    )
    chosen = b""
    if not wanted.explicit:
        chosen = chosen_lines(place.prefix + place.path, f"format={form.value}")
    return fit_headers(
        b"content-type: %b\r\ncache-control: %b\r\nx-content-type-options: nosniff\r\n%b%b%b%b"
        % (
            MEDIA_TYPES[form].encode(),
            place.cache,
            name,
            path_lines(place.content_path, roots),
            CORS,
            chosen,
        )
    )


def _plan_preview(
    blocks: Blocks, place: Place, roots: Sequence[CID], conditions: Conditions
) -> Plan:
    cid = roots[-1]
    block = need_block(blocks, cid)
    etag = b'W/"DagIndex-%d_CID-%b"' % (PREVIEW_VERSION, str(cid).encode())
    headers = listing_headers(place.content_path, roots, place.cache, as_json=False)
    pieces = preview(cid, block, place.content_path, place.prefix + place.path)
    return plan_stream(etag, fit_headers(headers), conditions, pieces)


def _plan_json_file(
    blocks: Blocks, place: Place, roots: Sequence[CID], wanted: Wanted, conditions: Conditions
) -> Plan:
    """Plan a UnixFS file as JSON, where it is JSON."""
    cid = roots[-1]
    entry = stat(blocks, cid)
    if not entry.is_file or not _is_json(blocks, cid, entry.file_bytes):
        raise _not_offered(cid, Form.JSON)
    return plan_ranges(
        _etag(cid, Form.JSON),
        _headers(place, roots, wanted, Form.JSON),
        entry.file_bytes,
        conditions,
        lambda start, end: read_file(blocks, cid, start, end),
    )


def _is_json(blocks: Blocks, cid: CID, size: int) -> bool:
    if size > JSON_CHECKED_BYTES_MAX:
        start = b"".join(read_file(blocks, cid, 0, 64)).lstrip()
        return start[:1] in (b"{", b"[")
    try:
        text = b"".join(read_file(blocks, cid)).decode()
        msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def _not_offered(cid: CID, form: Form) -> NotAcceptableError:
    return NotAcceptableError(
        f"{cid} is not {form.value}, and is not turned into it here",
        hint="fetch it with ?format=raw and convert it: lichen storage get --format",
    )
