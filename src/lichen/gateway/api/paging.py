"""Parts of lists: entries in the order of a key, and the last key as the cursor to go on from."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, TypeVar

from lichen.gateway.api import parameters
from lichen.gateway.api.views import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

T = TypeVar("T")


def page(request: Request, entries: Sequence[T], key: Callable[[T], str]) -> Page[T]:
    """Return the part of `entries`, which are in the order of `key`, that the request asks for.

    Entries that come or go between two requests are neither repeated nor cause others to be lost.
    """
    limit, cursor = parameters.limit(request), parameters.cursor(request)
    start = bisect.bisect_right(entries, cursor, key=key) if cursor else 0
    items = tuple(entries[start : start + limit])
    more = start + limit < len(entries)
    return Page(items, key(items[-1]) if more else None)
