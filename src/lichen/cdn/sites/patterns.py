"""Paths with placeholders, as `_redirects` and `_headers` have them. Pure; linear in the path.

`:name` stands for one whole segment, `*` (once, nothing but plain text behind it) for any text.
"""

from __future__ import annotations

import re

import msgspec

from lichen.errors import UserError

_NAME = re.compile(r":[A-Za-z][A-Za-z0-9_]*")
_PLACEHOLDER = re.compile(r":([A-Za-z][A-Za-z0-9_]*)")
SPLAT = "splat"


class Pattern(msgspec.Struct, frozen=True):
    """A parsed pattern: the segments before the star, and what follows it (None: no star)."""

    segments: tuple[str, ...]
    suffix: str | None = None

    @property
    def is_static(self) -> bool:
        """Tell whether it matches one path only."""
        return self.suffix is None and not any(map(_NAME.fullmatch, self.segments))

    @property
    def names(self) -> frozenset[str]:
        """The placeholders that a match gives values for."""
        names = {segment[1:] for segment in self.segments if _NAME.fullmatch(segment)}
        return frozenset(names | ({SPLAT} if self.suffix is not None else set()))

    def match(self, path: str) -> dict[str, str] | None:
        """Return what the placeholders stand for in a (decoded) path, or None."""
        if self.suffix is None:
            parts = path.split("/")
            return self._match_segments(parts) if len(parts) == len(self.segments) else None
        parts = path.split("/", len(self.segments) - 1)
        last = self.segments[-1]
        if len(parts) != len(self.segments) or not parts[-1].startswith(last):
            return None
        rest = parts[-1][len(last) :]
        if not rest.endswith(self.suffix):
            return None
        found = self._match_segments(parts[:-1])
        if found is not None:
            found[SPLAT] = rest[: len(rest) - len(self.suffix)]
        return found

    def _match_segments(self, parts: list[str]) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for segment, part in zip(self.segments, parts, strict=False):
            if _NAME.fullmatch(segment):
                if not part:
                    return None
                found[segment[1:]] = part
            elif segment != part:
                return None
        return found


def parse_pattern(text: str) -> Pattern:
    """Read a pattern; raise UserError when it is malformed."""
    if not text.startswith("/"):
        raise UserError(f"{text[:80]!r} does not begin with /", hint="write a path, such as /old/*")
    before, star, suffix = text.partition("*")
    if "*" in suffix or _PLACEHOLDER.search(suffix):
        raise UserError(
            f"{text[:80]!r} has a * or placeholder behind a *",
            hint="one *, and only plain text behind it",
        )
    pattern = Pattern(tuple(before.split("/")), suffix if star else None)
    names = [segment for segment in pattern.segments if _NAME.fullmatch(segment)]
    if len(set(names)) != len(names):
        raise UserError(f"{text[:80]!r} names a placeholder twice", hint="rename one")
    return pattern


def placeholders(text: str) -> set[str]:
    """Return the placeholders that a target uses."""
    return set(_PLACEHOLDER.findall(text))


def fill(text: str, values: dict[str, str]) -> str:
    """Put values in the place of placeholders; unknown ones stay as they are."""
    return _PLACEHOLDER.sub(lambda found: values.get(found.group(1), found.group(0)), text)
