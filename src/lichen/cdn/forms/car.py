"""CARs: `application/vnd.ipld.car` (https://specs.ipfs.tech/http-gateways/trustless-gateway).

Version 1, depth first. They are made as they are sent: no length is known before, and no ranges.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lichen.cdn.disposition import disposition
from lichen.cdn.formats import CORS, chosen_lines, fit_headers, path_lines
from lichen.cdn.forms.base import Conditions, Place, Plan, plan_stream
from lichen.cdn.forms.export import export_path

if TYPE_CHECKING:
    from lichen.cdn.wanted import Wanted
    from lichen.cdn.wanted_car import WantedCar
    from lichen.content import CID, Blocks


def plan_car(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Plan the CAR of what a path leads to."""
    car = wanted.car
    export = export_path(blocks, place.root, place.path, car)
    name = disposition("attachment", wanted.filename or f"{export.roots[-1]}.car")
    headers = fit_headers(
        b"content-type: application/vnd.ipld.car; version=1; order=dfs; dups=%b\r\n"
        b"cache-control: %b\r\nx-content-type-options: nosniff\r\naccept-ranges: none\r\n%b%b%b%b"
        % (
            _dups(car).encode(),
            place.cache,
            name,
            path_lines(place.content_path, export.roots),
            CORS,
            chosen_lines(place.prefix + place.path, _query(car)),
        )
    )
    etag = _etag(place, export.roots[-1], car)
    return plan_stream(etag, headers, conditions, export.pieces, whole=export.is_whole)


def _etag(place: Place, cid: CID, car: WantedCar) -> bytes:
    """Return an entity tag for all that decides which blocks are sent: the way there, too."""
    asked = f"/ipfs/{place.root}{place.path}?{_query(car)}".encode()
    digest = hashlib.blake2b(asked, digest_size=8).hexdigest()
    return b'W/"%b.car.%b.%b"' % (str(cid).encode(), car.scope.encode(), digest.encode())


def _query(car: WantedCar) -> str:
    """Spell out a request for this CAR that needs no `Accept` field."""
    part = "" if car.range is None else f"&entity-bytes={car.range}"
    return (
        f"format=car&dag-scope={car.scope}{part}&car-version=1&car-order=dfs&car-dups={_dups(car)}"
    )


def _dups(car: WantedCar) -> str:
    return "y" if car.dups else "n"
