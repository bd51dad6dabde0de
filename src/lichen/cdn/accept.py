"""The `Accept` field (RFC 9110, section 12.5.1): which media types a client prefers. Pure."""

from __future__ import annotations

import re

import msgspec

RANGES_MAX = 64  # of one field; what stands behind them is not read
WEIGHT_MAX = 1000
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class MediaRange(msgspec.Struct, frozen=True):
    """One type that a client takes: in lower case, its parameters, and 1 .. 1000 for how gladly."""

    kind: str
    parameters: dict[str, str]
    weight: int = WEIGHT_MAX


def read_accept(field: str) -> list[MediaRange]:
    """Return what a client takes, best first; of equals, exact types before wildcards.

    What it refuses (`q=0`) is left out. Quoted values lose their quotes; commas in them, which no
    type of ours has, part the field.
    """
    ranges = [_read_range(part) for part in field.split(",", RANGES_MAX)[:RANGES_MAX]]
    taken = [found for found in ranges if found.kind and found.weight]
    return sorted(taken, key=lambda found: (-found.weight, "*" in found.kind))


def _read_range(text: str) -> MediaRange:
    kind, *rest = text.split(";")
    parameters: dict[str, str] = {}
    for parameter in rest:
        name, _, value = parameter.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"').lower()
    weight = parameters.pop("q", "1")
    if _WEIGHT.fullmatch(weight) is None:
        weight = "1"  # malformed: as if not said
    return MediaRange(kind.strip().lower(), parameters, round(float(weight) * WEIGHT_MAX))
