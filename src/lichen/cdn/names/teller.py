"""Records of one's own names, told to others: each one once, and again before they forget it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import structlog

from lichen.content.ipns import Name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lichen.cdn.names.store import NameStore, Version

AGAIN_S: Final = 12 * 3600.0  # servers behind routers keep a record for a day or two

Publish = Callable[[Name, bytes], Awaitable[bool]]

log = structlog.get_logger()


class NameTeller:
    """Gives records to others; `tick` is to be called now and then."""

    def __init__(
        self,
        store: NameStore,
        names: Iterable[Name],
        publish: Publish,
        clock: Callable[[], float],
    ) -> None:
        """`publish` gives others a record and tells whether any took it; it raises nothing."""
        self._store = store
        self._names = tuple(names)
        self._publish = publish
        self._clock = clock
        self._told: dict[Name, tuple[Version, float]] = {}

    async def tick(self) -> int:
        """Tell what is new, or was told long ago; return how many others took.

        What nobody took is told again the next time.
        """
        taken = 0
        for name in self._names:
            version, encoded = self._store.version(name), self._store.get(name)
            if version is None or encoded is None or not self._is_due(name, version):
                continue
            if await self._publish(name, encoded):
                self._told[name] = version, self._clock()
                log.info("a name was told to routers", name=str(name), sequence=version.sequence)
                taken += 1
        return taken

    def _is_due(self, name: Name, version: Version) -> bool:
        told = self._told.get(name)
        return told is None or told[0] is not version or self._clock() >= told[1] + AGAIN_S
