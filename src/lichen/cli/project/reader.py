"""Reading TOML into structs, with faults that name the file, the line and the nearest key."""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lichen.errors import UserError

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T", bound=msgspec.Struct)
Place = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_PATH_PART = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\[\.\.\.\]")


class ManifestError(UserError):
    """A file that people write by hand is not as it should be."""

    code = "bad-manifest"


class Reader:
    """One TOML text: converts it and says where something in it stands."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._lines = _locate(text)
        try:
            self._table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _not_toml(file, error) from error

    def read(self, kind: type[T]) -> T:
        """Convert the text into a struct; raise ManifestError at the first fault."""
        self._refuse_unknown(kind, self._table, ())
        try:
            return msgspec.convert(self._table, kind, dec_hook=_decode_path)
        except msgspec.ValidationError as error:
            raise self._explain(kind, str(error)) from error

    def error(self, place: Place, what: str, hint: str) -> ManifestError:
        """Return the error for something that stands at `place`."""
        name = f"{_spell(place)}: " if place else ""
        return ManifestError(f"{self.file}:{self._line(place)}: {name}{what}", hint=hint)

    @contextlib.contextmanager
    def naming(self, place: Place) -> Iterator[None]:
        """Give the errors of a value's own reader the place it stands at."""
        try:
            yield
        except ManifestError:
            raise
        except UserError as error:
            raise self.error(place, error.what, error.hint) from error

    def _line(self, place: Place) -> int:
        for end in range(len(place), -1, -1):
            if place[:end] in self._lines:
                return self._lines[place[:end]]
        return 1

    def _refuse_unknown(self, kind: Any, value: object, place: Place) -> None:
        struct = _struct_in(kind)
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._refuse_unknown(kind, item, (*place, index))
        if struct is None or not isinstance(value, dict):
            return
        if typing.get_origin(kind) is dict:
            for name, item in value.items():
                self._refuse_unknown(struct, item, (*place, name))
            return
        known = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        for key, item in value.items():
            if key not in known:
                raise self._unknown(key, list(known), place)
            self._refuse_unknown(known[key], item, (*place, key))

    def _unknown(self, key: str, known: list[str], place: Place) -> ManifestError:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
        close = difflib.SequenceMatcher(None, key, near).ratio() >= 0.5
        hint = f"did you mean {near!r}?" if close else f"the nearest known key is {near!r};"
        return self.error((*place, key), "unknown key", f"{hint} known are {', '.join(known)}")

    def _explain(self, kind: type[T], message: str) -> ManifestError:
        what, _, path = message.partition(" - at `")
        place = _parse_path(path.rstrip("`"))
        missing = re.search(r"missing required field `([^`]+)`", what)
        if missing:
            return self.error(place, f"{missing.group(1)!r} is missing", "add it")
        what = re.sub(
            r"expected `?str`? matching regex .*", "not of the right form", what, flags=re.DOTALL
        )
        what = what[:1].lower() + what[1:].replace("`", "")
        return self.error(place, what, self._describe(kind, place))

    def _describe(self, kind: Any, place: Place) -> str:
        """Return what the schema says of the field at `place`."""
        for part in place:
            struct = _struct_in(kind)
            if struct is None or isinstance(part, int):
                continue
            found = [f.type for f in msgspec.structs.fields(struct) if f.encode_name == part]
            kind = found[0] if found else kind
        return f"expected {_say_type(kind)}"


def _decode_path(kind: type[Any], value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no TOML form")


def _say_type(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Annotated:
        metas = [m for m in typing.get_args(kind)[1:] if isinstance(m, msgspec.Meta)]
        base = _say_type(typing.get_args(kind)[0])
        bounds = [f"{meta.ge} to {meta.le}" for meta in metas if meta.ge is not None]
        words = [meta.description for meta in metas if meta.description]
        return ", ".join([base, *bounds, *words])
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(kind))
    if isinstance(kind, types.UnionType):
        return _say_type(typing.get_args(kind)[0])
    if typing.get_origin(kind) is tuple:
        return f"a list, each item {_say_type(typing.get_args(kind)[0])}"
    names = {str: "a string", int: "a whole number", bool: "true or false"}
    return names.get(kind, "a table")


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """Find the struct inside `Annotated[tuple[S, ...], ...]`, `S | None` and the like."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if typing.get_origin(kind) is typing.Literal:
        return None
    found = (_struct_in(part) for part in typing.get_args(kind))
    return next((struct for struct in found if struct is not None), None)


def _locate(text: str) -> dict[Place, int]:
    """Map each table and key to its line. Values that span lines may hide a key, never move one."""
    lines: dict[Place, int] = {}
    table: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            table = _enter(header.group(2), counts, is_array=header.group(1) == "[[")
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            lines.setdefault((*table, *_split(key.group(1))), number)
    return lines


def _enter(name: str, counts: dict[Place, int], *, is_array: bool) -> Place:
    """Return the place of a table header; an array's item carries its index."""
    place: Place = ()
    parts = _split(name)
    for position, part in enumerate(parts):
        place = (*place, part)
        if is_array and position == len(parts) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _split(name: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in name.split("."))


def _parse_path(path: str) -> Place:
    """Read msgspec's `$.functions[0].name`; an unknown index ends the place."""
    place: list[str | int] = []
    for match in _PATH_PART.finditer(path):
        if match.group(1) is not None:
            place.append(match.group(1))
        elif match.group(2) is not None:
            place.append(int(match.group(2)))
        else:
            break
    return tuple(place)


def _spell(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _not_toml(file: str, error: tomllib.TOMLDecodeError) -> ManifestError:
    match = _TOML_LINE.search(str(error))
    line = match.group(1) if match else "1"
    what = _TOML_LINE.sub("", str(error)).strip()
    return ManifestError(
        f"{file}:{line}: {what[:1].lower()}{what[1:]}", hint="mend the TOML on that line"
    )
