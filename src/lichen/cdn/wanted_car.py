"""Which blocks a CAR is asked to hold, by URL and by `Accept` (IPIP-402, IPIP-412, IPIP-523). Pure.

The URL decides where both speak (https://specs.ipfs.tech/http-gateways/trustless-gateway).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from lichen.cdn.formats import NotAcceptableError
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Scope = Literal["all", "entity", "block"]
_SCOPES: Final = ("all", "entity", "block")
_RANGE: Final = re.compile(r"(-?[0-9]{1,18}):(\*|-?[0-9]{1,18})")
# Blocks come depth first, which a client that takes any order (`unk`) takes too.
_OFFERED: Final = {"version": ("1",), "order": ("dfs", "unk"), "dups": ("y", "n")}
_HINT: Final = "CARs are version=1, order=dfs, dups=y or n"


class OutsideError(UserError):
    """The bytes asked for lie outside of the file."""

    code = "range-outside"


class EntityBytes(msgspec.Struct, frozen=True):
    """A range of a file's bytes, both ends included; negative ones count from the file's end.

    `last` is None for the end of the file.
    """

    first: int
    last: int | None = None

    def __str__(self) -> str:
        return f"{self.first}:{'*' if self.last is None else self.last}"

    def of(self, size: int) -> tuple[int, int]:
        """Return where the range begins and ends (exclusive) in a file of `size` bytes.

        Equal ends mean that it is empty; raise OutsideError where it has no byte of the file.
        """
        first = self.first + size if self.first < 0 else self.first
        last = -1 if self.last is None else self.last
        last = last + size if last < 0 else last
        if size and (first >= size or last < 0):
            raise OutsideError(
                f"entity-bytes={self} is outside of a file of {size} bytes",
                hint="ask for dag-scope=block, which tells the size",
            )
        start = max(first, 0)
        return start, max(min(last + 1, size), start)


class WantedCar(msgspec.Struct, frozen=True):
    """What a CAR shall hold below its path.

    `all` is everything, `entity` a file, the blocks that list a directory, or one other block,
    `block` the block at the end of the path. `dups` sends a block as often as it is linked to.
    """

    scope: Scope = "all"
    range: EntityBytes | None = None
    dups: bool = False


def is_offered(parameters: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """Tell whether CARs come as a media type's parameters say, or the query's in their place."""
    chosen = _chosen(parameters, asked)
    return all(chosen.get(name, some[0]) in some for name, some in _OFFERED.items())


def read_wanted_car(asked: Mapping[str, str], accepted: Iterable[Mapping[str, str]]) -> WantedCar:
    """Read the query's parameters, and those of each CAR type in `Accept`, best first.

    Raises UserError for what is malformed, NotAcceptableError for what is not offered.
    """
    choices = list(accepted) or [{}]
    taken = next((choice for choice in choices if is_offered(choice, asked)), None)
    if taken is None:
        raise NotAcceptableError("CARs are not offered with these parameters", hint=_HINT)
    wanted_range = _read_range(asked.get("entity-bytes"))
    return WantedCar(
        _read_scope(asked.get("dag-scope", "all"), has_range=wanted_range is not None),
        wanted_range,
        _chosen(taken, asked).get("dups") == "y",
    )


def _chosen(parameters: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    by_url = {name: asked[f"car-{name}"] for name in _OFFERED if asked.get(f"car-{name}")}
    return {**parameters, **by_url}


def _read_scope(scope: str, *, has_range: bool) -> Scope:
    if scope not in _SCOPES:
        raise UserError(
            f"dag-scope={scope[:40]} is not known", hint="it is one of all, entity, block"
        )
    if has_range and scope == "all":
        return "entity"
    return cast("Scope", scope)


def _read_range(value: str | None) -> EntityBytes | None:
    if value is None:
        return None
    match = _RANGE.fullmatch(value)
    if match is None:
        raise UserError(
            f"entity-bytes={value[:40]} is not a range",
            hint="write first:last, such as 0:1023, 512:* or -1024:*",
        )
    first, last = int(match[1]), None if match[2] == "*" else int(match[2])
    if last is not None and (first < 0) == (last < 0) and first > last:
        raise UserError(f"entity-bytes={value} ends before it begins", hint="exchange its ends")
    return EntityBytes(first, last)
