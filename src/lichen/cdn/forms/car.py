"""CARs: `application/vnd.ipld.car` (https://specs.ipfs.tech/http-gateways/trustless-gateway)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.export import export_path
from lichen.cdn.formats import car_headers
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_stream

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted
    from lichen.content import Blocks


def plan_car(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan the CAR of what a path leads to; it has no ranges."""
    cid, pieces = export_path(blocks, place.root, place.path, wanted.car.scope)
    etag = b'W/"%b.car.%b"' % (str(cid).encode(), wanted.car.scope.encode())
    headers = car_headers(place.content_path, (cid,), place.cache)
    return plan_stream(etag, headers, conditions, pieces, whole=wanted.car.scope == "all")
