"""Names kept fresh by whoever holds their keys: their records are signed again before they end.

A renewed record says the same and has the same sequence; only its end is later, which lets it
replace the one before. So a newer one that the owner published elsewhere meanwhile always wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from lichen.content.ipns import Name, create_record
from lichen.content.ipns_time import NS_PER_S
from lichen.content.libp2p_key import public_key
from lichen.errors import LichenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.cdn.names.store import NameStore
    from lichen.content.ipns import Record
    from lichen.identity import PrivateKey

LIFETIME_S: Final = 48 * 3600
TTL_S: Final = 300
LIFETIME_S_MAX: Final = 100 * 366 * 24 * 3600
_SHARES: Final = 2  # renewed when less than half of the lifetime is left

log = structlog.get_logger()


def renewed(
    record: Record, key: PrivateKey, now_ns: int, lifetime_s: int = LIFETIME_S
) -> Record | None:
    """Return the record to put in place of this one now, be it over; None while it is not due."""
    lifetime_ns = lifetime_s * NS_PER_S
    if record.eol_ns - now_ns > lifetime_ns // _SHARES:
        return None
    return create_record(
        key,
        record.value,
        sequence=record.sequence,
        eol_ns=now_ns + lifetime_ns,
        ttl_ns=record.ttl_ns,
    )


class NameKeeper:
    """Renews the records of some keys in a store; `tick` is to be called now and then."""

    def __init__(
        self,
        store: NameStore,
        keys: Sequence[PrivateKey],
        now_ns: Callable[[], int],
        lifetime_s: int = LIFETIME_S,
    ) -> None:
        self._store = store
        self._keys = {Name.of(public_key(key)): key for key in keys}
        self._now_ns = now_ns
        self._lifetime_s = lifetime_s

    def tick(self) -> list[Record]:
        """Renew what is due, and return it; what fails is logged and tried again next time.

        Waits for the disk: call it by `asyncio.to_thread`. A name whose first record has not come
        yet has nothing to renew.
        """
        done = []
        for name, key in self._keys.items():
            try:
                record = self._renew(name, key)
            except LichenError as error:
                log.warning("a name was not renewed", name=str(name), error=error.what)
                continue
            if record is not None:
                done.append(record)
        return done

    def _renew(self, name: Name, key: PrivateKey) -> Record | None:
        last, now_ns = self._store.last(name), self._now_ns()
        fresh = None if last is None else renewed(last, key, now_ns, self._lifetime_s)
        if fresh is None or not self._store.put(name, fresh.encoded, now_ns):
            return None
        log.info("a name was renewed", name=str(name), value=fresh.value, sequence=fresh.sequence)
        return fresh
