"""In which form content is asked for. Pure.

`?format=` decides before `Accept` (https://specs.ipfs.tech/http-gateways/path-gateway).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from lichen.cdn.accept import read_accept
from lichen.cdn.formats import NotAcceptableError
from lichen.cdn.wanted_car import WantedCar, is_offered, read_wanted_car
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lichen.cdn.accept import MediaRange

LISTING_FROM_MAX = 1_000_000
FILENAME_BYTES_MAX = 255
AFTER_BYTES_MAX = 1024
_PARAMETERS_MAX = 16
_IPFS_TYPES = ("application/vnd.ipld.", "application/vnd.ipfs.")


class Form(enum.Enum):
    """How content is sent; the values are those of `?format=`."""

    PLAIN = "plain"
    RAW = "raw"
    CAR = "car"
    TAR = "tar"
    JSON = "json"
    CBOR = "cbor"
    DAG_JSON = "dag-json"
    DAG_CBOR = "dag-cbor"
    IPNS_RECORD = "ipns-record"


MEDIA_TYPES = {
    Form.RAW: "application/vnd.ipld.raw",
    Form.CAR: "application/vnd.ipld.car",
    Form.TAR: "application/x-tar",
    Form.JSON: "application/json",
    Form.CBOR: "application/cbor",
    Form.DAG_JSON: "application/vnd.ipld.dag-json",
    Form.DAG_CBOR: "application/vnd.ipld.dag-cbor",
    Form.IPNS_RECORD: "application/vnd.ipfs.ipns-record",
}
_BY_MEDIA_TYPE = {name: form for form, name in MEDIA_TYPES.items()}
_BY_NAME = {form.value: form for form in MEDIA_TYPES}


class Wanted(msgspec.Struct, frozen=True):
    """What a request asks for. `car` says what a CAR shall hold.

    `explicit` tells that the form was named by `?format=`. `filename` and `is_download` are what
    the client wants to call it, and whether to save it rather than show it. `takes` are the media
    types of its `Accept` field, which decide how documents are shown where no form is named.
    A listing begins with entry number `start`, which is found quickly by the name it is `after`.
    `query` is what redirects pass on.
    """

    form: Form = Form.PLAIN
    explicit: bool = False
    car: WantedCar = WantedCar()
    takes: frozenset[str] = frozenset()
    as_json: bool = False
    start: int = 0
    after: str | None = None
    filename: str | None = None
    is_download: bool = False
    only_if_cached: bool = False
    query: str = ""


def read_wanted(query: str, headers: Mapping[str, str]) -> Wanted:
    """Read query and header fields (lower-case names); raise UserError for what is not offered."""
    try:
        asked = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_PARAMETERS_MAX))
    except ValueError as error:
        raise UserError(f"over {_PARAMETERS_MAX} parameters", hint="leave some out") from error
    accept = headers.get("accept", "")
    ranges = read_accept(accept)
    name = asked.get("format")
    form = _form_of_accept(ranges, asked) if name is None else _form_named(name)
    cars = [found.parameters for found in ranges if found.kind == MEDIA_TYPES[Form.CAR]]
    return Wanted(
        form,
        explicit=name is not None,
        car=read_wanted_car(asked, cars) if form is Form.CAR else WantedCar(),
        takes=frozenset(found.kind for found in ranges),
        as_json="application/json" in accept and "text/html" not in accept,
        start=_start(asked),
        after=_after(asked),
        filename=_filename(asked),
        is_download=asked.get("download") == "true",
        only_if_cached="only-if-cached" in headers.get("cache-control", "").lower(),
        query=query,
    )


def _start(asked: Mapping[str, str]) -> int:
    start = asked.get("from", "0")
    if not start.isdecimal() or len(start) > 7 or int(start) > LISTING_FROM_MAX:
        raise UserError(f"from is a number up to {LISTING_FROM_MAX}", hint="fetch a CAR instead")
    return int(start)


def _after(asked: Mapping[str, str]) -> str | None:
    name = asked.get("after")
    if name is not None and len(name.encode("utf-8", "replace")) > AFTER_BYTES_MAX:
        raise UserError(f"after is a name of up to {AFTER_BYTES_MAX} bytes", hint="leave it out")
    return name or None


def _filename(asked: Mapping[str, str]) -> str | None:
    name = asked.get("filename")
    if name is not None and len(name.encode("utf-8", "replace")) > FILENAME_BYTES_MAX:
        raise UserError(f"filename has over {FILENAME_BYTES_MAX} bytes", hint="choose a short one")
    return name


def _form_named(name: str) -> Form:
    form = _BY_NAME.get(name)
    if form is None:
        raise NotAcceptableError(
            f"content is not offered as {name[:40]!r}",
            hint=f"format is one of {', '.join(_BY_NAME)}, or left out",
        )
    return form


def _form_of_accept(ranges: Sequence[MediaRange], asked: Mapping[str, str]) -> Form:
    """Return the form that a client likes best of those offered.

    Types that are no form of ours (`text/html`, `image/*`, ...) stand for the content as it is.
    """
    refused = None
    for found in ranges:
        form = _BY_MEDIA_TYPE.get(found.kind, Form.PLAIN)
        if form in {Form.PLAIN, Form.JSON}:
            if not found.kind.startswith(_IPFS_TYPES):
                return Form.PLAIN
        elif form is not Form.CAR or is_offered(found.parameters, asked):
            return form
        refused = found.kind
    if refused is not None:
        raise NotAcceptableError(
            f"content is not offered as {refused[:80]!r} with these parameters",
            hint="ask for raw blocks, or for a CAR of version=1, order=dfs",
        )
    return Form.PLAIN
