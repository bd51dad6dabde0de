"""A bounded memory of answers: the least used go when there are too many, or too large ones."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from lichen.wire import ContentEntry, Ready

if TYPE_CHECKING:
    from collections.abc import Hashable

ENTRIES_MAX: Final = 20_000
BYTES_MAX: Final = 256 * 2**20
FILES_MAX: Final = 512  # each keeps a descriptor open
_OVERHEAD_BYTES: Final = 512

K = TypeVar("K", bound="Hashable")
Kept = ContentEntry | Ready | None


class Keep(Generic[K]):
    """Answers by key; None is an answer too: nothing is there."""

    def __init__(
        self,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
        files_max: int = FILES_MAX,
    ) -> None:
        self._kept: collections.OrderedDict[K, tuple[Kept, int]] = collections.OrderedDict()
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._bytes = 0
        self._files = 0

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> Kept:
        """Return what is kept; None when nothing is, or nothing is there."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, answer: Kept) -> None:
        """Keep an answer, within the bounds."""
        self._drop(key)
        size = _size(answer) + _key_bytes(key)
        self._kept[key] = (answer, size)
        self._bytes += size
        self._files += _is_file(answer)
        while (
            len(self._kept) > self._entries_max
            or self._bytes > self._bytes_max
            or self._files > self._files_max
        ):
            self._drop(next(iter(self._kept)))

    def _drop(self, key: K) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
            self._files -= _is_file(found[0])


def _size(answer: Kept) -> int:
    if isinstance(answer, ContentEntry):
        return 2 * len(answer.full.body) + _OVERHEAD_BYTES  # alone, and joined with its head
    return _OVERHEAD_BYTES + (2 * len(answer.body) if answer is not None else 0)


def _key_bytes(key: Hashable) -> int:
    """Return what a key itself takes: paths are as long as a visitor likes."""
    parts = key if isinstance(key, tuple) else (key,)
    return sum(len(part) for part in parts if isinstance(part, bytes | str))


def _is_file(answer: Kept) -> bool:
    return isinstance(answer, ContentEntry) and answer.file is not None
