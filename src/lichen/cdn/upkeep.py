"""Keeps a store from filling up with what nobody asked to keep: collects by itself, and gently.

Above HIGH_PERCENT (of the store's capacity, or of what its disk has room for), and after an
addition found no room, content that no pin, reader or addition needs is collected until LOW_PERCENT
is reached: first what was neither read nor added lately, then the rest. Steps are short, with rests
in between, so that a collection takes at most a quarter of one core and is hardly felt by requests.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lichen.content import CID, BlockStore

LOOK_S = 1.0
HIGH_PERCENT = 75
LOW_PERCENT = 60
STEP_S = 0.003
REST_TIMES = 3  # as long as the step took
FRUITLESS_S = 300.0  # until the next attempt, when all is needed

log = structlog.get_logger()


class Upkeep:
    """Looks after one store; `look` is called every LOOK_S."""

    def __init__(self, store: BlockStore, needed: Callable[[], Iterable[CID]] = tuple) -> None:
        """`needed` returns what stays besides pins, such as the code of what runs here."""
        self._store = store
        self._needed = needed
        self._refusals = store.refusals
        self._patient_until_s = 0.0
        self.collections = 0
        self.freed_bytes = 0
        self.expired_pins = 0
        self.is_collecting = False

    async def look(self) -> None:
        """Let go of pins that have ended, and collect when it is time. Raises DiskFullError."""
        now_ms = time.time_ns() // 1_000_000
        self.expired_pins += await asyncio.to_thread(self._store.drop_expired, now_ms)
        refused = self._store.refusals != self._refusals
        is_full = self._store.filled_percent() >= HIGH_PERCENT
        if not refused and not is_full:
            return
        if time.monotonic() < self._patient_until_s:
            return
        self._refusals = self._store.refusals
        self._patient_until_s = time.monotonic() + FRUITLESS_S
        await self._collect()
        if self._store.filled_percent() < HIGH_PERCENT:
            self._patient_until_s = 0.0
        else:
            log.warning(
                "the content store is nearly full of what is to be kept",
                used_bytes=self._store.usage_bytes,
                capacity_bytes=self._store.capacity_bytes,
            )

    async def _collect(self) -> None:
        """Collect what was not used lately, then, if that was not enough, all that may go."""
        for spare_recent in (True, False):
            wanted = self._excess_bytes()
            if wanted <= 0:
                return
            started_s = time.monotonic()
            freed = await self._pass(wanted, spare_recent=spare_recent)
            self.collections += 1
            log.info(
                "collected",
                freed_bytes=freed,
                used_bytes=self._store.usage_bytes,
                spared_recent=spare_recent,
                seconds=round(time.monotonic() - started_s, 1),
            )

    async def _pass(self, bytes_min: int, *, spare_recent: bool) -> int:
        store = self._store
        with store.collecting(
            bytes_min=bytes_min, spare_recent=spare_recent, needed=self._needed()
        ) as collection:
            self.is_collecting = True
            try:
                more = True
                while more:
                    started_s = time.monotonic()
                    more = await asyncio.to_thread(store.collect_step, collection, STEP_S)
                    await asyncio.sleep((time.monotonic() - started_s) * REST_TIMES)
            finally:
                self.is_collecting = False
                self.freed_bytes += collection.freed_bytes
            return collection.freed_bytes

    def _excess_bytes(self) -> int:
        return self._store.usage_bytes - self._store.room_bytes() * LOW_PERCENT // 100

    def counters(self, prefix: str) -> dict[str, int]:
        """Return what a metrics page says of the store."""
        return {
            f"{prefix}_content_bytes": self._store.usage_bytes,
            f"{prefix}_content_capacity_bytes": self._store.capacity_bytes,
            f"{prefix}_content_collecting": int(self.is_collecting),
            f"{prefix}_content_collections_total": self.collections,
            f"{prefix}_content_collected_bytes_total": self.freed_bytes,
            f"{prefix}_content_expired_pins_total": self.expired_pins,
            f"{prefix}_content_refusals_total": self._store.refusals,
        }
