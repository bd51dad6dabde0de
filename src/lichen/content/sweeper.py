"""Carries collections on, step by step: marks, and deletes in short transactions in between."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from lichen.content.collect import Collection, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lichen.content.cid import CID
    from lichen.content.flat import FlatFiles
    from lichen.content.index import Index
    from lichen.content.keeps import Keeps
    from lichen.content.recent import Recent
    from lichen.content.turns import Turns


class Sweeper:
    """What may delete from a store; one collection at a time, its steps from any thread."""

    def __init__(
        self,
        index: Index,
        flats: FlatFiles,
        keeps: Keeps,
        turns: Turns,
        get_block: Callable[[CID], bytes | None],
        folder: str,
    ) -> None:
        """`folder` is for what is on its way out, and for notes that do not fit into memory."""
        self._index = index
        self._flats = flats
        self._keeps = keeps
        self._turns = turns
        self._get_block = get_block
        self._folder = folder
        self._collecting = threading.Lock()
        self._stepping = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Have a collection under way end, once its step is done."""
        with self._stepping:
            self._is_closed = True

    @contextlib.contextmanager
    def collecting(
        self,
        only: CID | None,
        bytes_min: int | None,
        recent: Recent | None,
        needed: Iterable[CID],
    ) -> Iterator[Collection]:
        """Begin a collection: see `BlockStore.collecting`."""
        with self._collecting:
            collection = Collection(
                self._index, self._keeps, self._get_block, self._folder,
                only=only, bytes_min=bytes_min, recent=recent, needed=needed,
            )  # fmt: skip
            try:
                yield collection
                self._use_freed_pages(collection)
            finally:
                collection.close()

    def step(self, collection: Collection, step_s: float) -> bool:
        """Carry a collection on for about that long; tell whether there is more to do."""
        until_s = time.monotonic() + step_s
        with self._stepping:
            while not self._is_closed and collection.phase is not Phase.DONE:
                if collection.mark(until_s):
                    self.sweep(collection)
                if time.monotonic() >= until_s:
                    break
            return not self._is_closed and collection.phase is not Phase.DONE

    def sweep(self, collection: Collection) -> None:
        """Delete a little, unless something came to be kept meanwhile."""
        graves: list[str] = []
        with self._turns.take():
            doomed = collection.choose()
            if not self._keeps.doom(frozenset(doomed.names)):
                return
            try:
                freed_bytes = self._drop(collection.phase, doomed.names)
                if collection.phase is Phase.FILES:
                    graves = self.bury(doomed.names)
            finally:
                self._keeps.spare()
            swept = collection.deleted(doomed, freed_bytes)
            if swept:
                with self._index.write() as writer:
                    writer.forget_dropped(swept)
        self.unlink(graves)
        self._turns.give_way()

    def bury(self, files: Iterable[bytes]) -> list[str]:
        """Take flat files away quickly; `unlink` what is returned without holding up anybody."""
        graves = [self._flats.bury(file, self._folder) for file in files]
        return [grave for grave in graves if grave is not None]

    @staticmethod
    def unlink(graves: list[str]) -> None:
        """Delete what was buried."""
        for grave in graves:
            os.unlink(grave)

    def _drop(self, phase: Phase, names: list[bytes]) -> int:
        if not names:
            return 0
        with self._index.write() as writer:
            if phase is Phase.FILES:
                writer.drop_files(names)
            else:
                for multihash in names:
                    writer.drop_block(multihash)
        return -writer.used_delta

    def _use_freed_pages(self, collection: Collection) -> None:
        """Let the next addition have the index's room, on a disk that has no other."""
        with self._stepping:
            if collection.freed_bytes and not self._is_closed:
                with self._turns.take():
                    self._index.turn_over()
