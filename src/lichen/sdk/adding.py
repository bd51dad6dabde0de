"""Content on its way to a gateway: only the blocks it lacks, in parts that can be sent again.

What came of an upload that broke off stays at the gateway for a day, so that the next attempt, by
the same call, sends the rest. Nothing is believed: at the end the gateway says, by pinning, that it
has the whole DAG; blocks that went missing meanwhile are sent again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import msgspec

from lichen.content.car import write_car
from lichen.content.cid import RAW
from lichen.gateway.api.views import PinView
from lichen.sdk.upload import Spool
from lichen.wire.errors import BodyTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lichen.content.cid import CID
    from lichen.sdk.client import Client
    from lichen.sdk.connection import Progress

PART_BYTES = 256 * 2**20  # what is sent again, at most, after an interruption
PART_BYTES_LEAST = 8 * 2**20
PART_BLOCKS_MAX = 65_536
ASKED_MAX = 8192
ROUNDS_MAX = 3


class BlockSource(Protocol):
    """Blocks that can be read again, such as those of a folder or of a CAR."""

    @property
    def blocks_bytes(self) -> int:
        """Return the bytes of all blocks."""
        ...

    def blocks(self) -> Iterator[tuple[CID, int]]:
        """Yield each block and its bytes, parents before children where possible."""
        ...

    def read(self, cid: CID) -> bytes:
        """Read a block."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """What came of it: a pin for each root, some with blocks `missing`; and what was sent."""

    pins: tuple[PinView, ...]
    bytes: int
    blocks: int


class _Sending:
    """One attempt to bring a source's blocks to a gateway; `done` bytes are there."""

    def __init__(
        self,
        client: Client,
        source: BlockSource,
        roots: Sequence[CID],
        progress: Progress | None,
    ) -> None:
        self._client = client
        self._source = source
        self._roots = roots
        self._progress = progress
        self._part_bytes = PART_BYTES
        self._done = 0
        self.bytes = 0
        self.blocks = 0

    def round(self) -> int:
        """Send what is missing; return how many blocks that were.

        A gateway that takes only smaller uploads gets smaller parts.
        """
        while True:
            try:
                return self._round()
            except BodyTooLargeError:
                if self._part_bytes <= PART_BYTES_LEAST:
                    raise
                self._part_bytes //= 4

    def _round(self) -> int:
        before = self.blocks
        self._done = 0
        with ThreadPoolExecutor(1, "upload-part") as ahead:
            waiting = None
            for part in self._parts():
                following = ahead.submit(self._spool, part)  # while the part before is sent
                if waiting is not None:
                    self._send(*waiting)
                waiting = following.result(), part
            if waiting is not None:
                self._send(*waiting)
        return self.blocks - before

    def _parts(self) -> Iterator[list[tuple[CID, int]]]:
        part: list[tuple[CID, int]] = []
        size = 0
        for cid, length in self._missing():
            is_full = size + length > self._part_bytes or len(part) == PART_BLOCKS_MAX
            # From half its size on a part ends where another file begins, which then is in one.
            if part and (is_full or (size >= self._part_bytes // 2 and cid.codec != RAW)):
                yield part
                part, size = [], 0
            part.append((cid, length))
            size += length
        if part:
            yield part

    def _missing(self) -> Iterator[tuple[CID, int]]:
        asked: list[tuple[CID, int]] = []
        for block in self._source.blocks():
            asked.append(block)
            if len(asked) == ASKED_MAX:
                yield from self._lacking(asked)
                asked = []
        yield from self._lacking(asked)

    def _lacking(self, asked: list[tuple[CID, int]]) -> list[tuple[CID, int]]:
        missing = set(self._client.missing([cid for cid, _ in asked])) if asked else set()
        self._tell(sum(size for cid, size in asked if cid not in missing))
        return [(cid, size) for cid, size in asked if cid in missing]

    def _spool(self, part: list[tuple[CID, int]]) -> Spool:
        return Spool(write_car(self._roots, ((cid, self._source.read(cid)) for cid, _ in part)))

    def _send(self, spool: Spool, part: list[tuple[CID, int]]) -> None:
        size = sum(length for _, length in part)
        before = self._done

        def tell(done: int, total: int) -> None:
            self._done = before + size * done // total
            self._tell(0)

        with spool:
            self._client.upload_part(spool, tell)
        self._done = before
        self._tell(size)
        self.bytes += size
        self.blocks += len(part)

    def _tell(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._source.blocks_bytes)


def send(
    client: Client,
    source: BlockSource,
    roots: Sequence[CID],
    progress: Progress | None = None,
) -> Sent:
    """Bring the DAGs below `roots` to the gateway and pin them there; send only what it lacks.

    `progress(done, total)` counts the bytes of blocks that are there. Pins name what is `missing`
    where the source does not have it either. Raises QuotaError.
    """
    sending = _Sending(client, source, roots, progress)
    pins = _pin(client, roots)
    for _ in range(ROUNDS_MAX):
        if not any(pin.missing for pin in pins):
            break
        sent = sending.round()
        pins = _pin(client, roots)
        if not sent:
            break
    return Sent(pins, sending.bytes, sending.blocks)


def _pin(client: Client, roots: Sequence[CID]) -> tuple[PinView, ...]:
    return tuple(client.pin(str(root), fetch=False) for root in dict.fromkeys(roots))
