"""TARs of UnixFS content: `application/x-tar` (https://specs.ipfs.tech/ipips/ipip-0288)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.cdn.disposition import disposition
from lichen.cdn.formats import CORS, chosen_lines, fit_headers, path_lines
from lichen.cdn.forms.archive import archive
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_stream
from lichen.content import follow

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted
    from lichen.content import Blocks


def plan_tar(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan the archive of what a path leads to; it has no ranges."""
    roots = follow(blocks, place.root, place.path)
    cid = roots[-1]
    found = archive(blocks, cid)
    chosen = b"" if wanted.explicit else chosen_lines(place.prefix + place.path, "format=tar")
    headers = fit_headers(
        b"content-type: application/x-tar\r\ncache-control: %b\r\n"
        b"x-content-type-options: nosniff\r\naccept-ranges: none\r\n%b%b%b%b"
        % (
            place.cache,
            disposition("attachment", wanted.filename or f"{cid}.tar"),
            path_lines(place.content_path, roots),
            CORS,
            chosen,
        )
    )
    etag = b'W/"%b.x-tar"' % str(cid).encode()
    plan = plan_stream(etag, headers, conditions, found.pieces, whole=True)
    if plan.status != 200:
        return plan
    return msgspec.structs.replace(plan, length=found.length)
