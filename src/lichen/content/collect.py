"""Mark and sweep, a little at a time: what no pin reaches may go, while everybody else goes on.

Marking follows links from the pins, and from what readers hold and additions rely on (see `keeps`).
It needs no snapshot: links never change, and new roots come by post. Sweeping first drops flat
files nobody needs, a few in each transaction, with which all blocks in them count as absent; then
it passes once over all blocks, and drops those that are not marked and the entries of files that
are gone. After a crash between any two steps the store is whole: what was dropped is gone, the rest
is there, and entries of files that are gone are swept by the next collection.

A flat file stays as long as any block in it is needed, and then with its whole DAG, so that what
the index says of it stays true.
"""

from __future__ import annotations

import enum
import itertools
import time
from typing import TYPE_CHECKING

from lichen.content.cid import CID, IDENTITY
from lichen.content.dag import LINKED_CODECS, links_of
from lichen.content.index import file_of, is_run
from lichen.content.scratch import ScratchTable
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lichen.content.index import Index, IndexReader
    from lichen.content.keeps import Keeps
    from lichen.content.recent import Recent

ROOTS_PER_STEP = 1024
FILES_PER_STEP = 64
FILES_DROPPED_MAX = 16_384  # before their entries are swept
BLOCKS_SEEN_PER_STEP = 512
BLOCKS_PER_STEP = 128
BLOCKS_UNTIL_LOOK = 16  # blocks marked between two looks at the clock
_CODEC_BITS = {codec: 2 << place for place, codec in enumerate(LINKED_CODECS)}
_NO_LINKS = 1


class Marker:
    """The blocks at or below some roots: shaded (marked, links not followed yet) or done.

    Missing blocks are passed over: a DAG may be here in part. One that comes later is found when
    whoever brings it shades it.
    """

    def __init__(
        self,
        index: Index,
        get_block: Callable[[CID], bytes | None],
        folder: str,
        *,
        with_files: bool,
    ) -> None:
        """`with_files` marks the DAGs of all flat files that hold any marked block, too."""
        self._index = index
        self._get_block = get_block
        self._with_files = with_files
        self._marks = ScratchTable(folder)
        self._shaded = ScratchTable(folder)

    def __contains__(self, multihash: bytes) -> bool:
        return self._marks.get(multihash) is not None

    @property
    def is_done(self) -> bool:
        """Tell whether nothing is left to follow."""
        return not self._shaded

    def shade(self, cids: Iterable[CID]) -> None:
        """Mark these, and have their links followed. A block counts once for each codec."""
        for cid in cids:
            if cid.hash_code != IDENTITY:
                found = self._marks.get(cid.multihash)
                codecs = found[0] if found else 0
                bit = _CODEC_BITS.get(cid.codec, _NO_LINKS)
                if codecs & bit:
                    continue
                self._marks.put(cid.multihash, bytes((codecs | bit,)))
            self._shaded.put(cid.as_v1().encode(), b"")

    def follow(self, until_s: float) -> None:
        """Follow a few links at least, until none is left or until that time (monotonic)."""
        with self._index.read() as reader:
            while not self.is_done:
                for _ in range(BLOCKS_UNTIL_LOOK):
                    popped = self._shaded.pop_any()
                    if popped is not None:
                        self._follow(reader, CID.decode(popped[0]))
                if time.monotonic() >= until_s:
                    return

    def _follow(self, reader: IndexReader, cid: CID) -> None:
        block: bytes | None = cid.digest
        if cid.hash_code != IDENTITY:
            entry = reader.entry(cid.multihash)
            if entry is None:
                self._marks.drop(cid.multihash)
                return
            if self._with_files and is_run(entry):
                self.shade((CID.decode(file_of(entry)),))
            if cid.codec not in _CODEC_BITS:
                return
            block = self._get_block(cid) if is_run(entry) else bytes(entry[1:])
        if block is not None:
            self.shade(_links(cid, block))

    def close(self) -> None:
        """Forget everything."""
        self._marks.close()
        self._shaded.close()


def _links(cid: CID, block: bytes) -> list[CID]:
    try:
        return links_of(cid, block)
    except UserError:  # stored by its hash although its codec cannot read it: nothing is below
        return []


class Phase(enum.Enum):
    """What a collection does next."""

    ROOTS = "roots"
    DOOMED = "doomed"
    FILES = "files"
    BLOCKS = "blocks"
    DONE = "done"


class Doomed:
    """What one step would delete: its position afterwards is `start`, None at the end."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.bytes = 0
        self.start: bytes | None = None


class Collection:
    """One mark and sweep, used by one thread at a time. `freed_bytes` counts what it deleted."""

    def __init__(
        self,
        index: Index,
        keeps: Keeps,
        get_block: Callable[[CID], bytes | None],
        folder: str,
        *,
        only: CID | None = None,
        bytes_min: int | None = None,
        recent: Recent | None = None,
        needed: Iterable[CID] = (),
    ) -> None:
        """Delete nothing but what is below `only`, stop at `bytes_min`, spare what is `recent`.

        And what is below `needed`.
        """
        self._index = index
        self._keeps = keeps
        self._live = Marker(index, get_block, folder, with_files=True)
        self._only: Marker | None = None
        if only is not None:
            self._only = Marker(index, get_block, folder, with_files=False)
            self._only.shade((only,))
        self._bytes_min = bytes_min
        self._recent = recent
        self.freed_bytes = 0
        self.phase = Phase.ROOTS
        self._start = b""
        self._next_file = b""
        self._stale: frozenset[bytes] = frozenset()
        # Of files used lately the whole DAG stays, of other blocks just themselves.
        files = recent.files() if recent is not None else []
        self._roots = itertools.chain(
            keeps.begin_collection(), list(needed), map(CID.decode, files)
        )

    def mark(self, until_s: float) -> bool:
        """Mark until that time; tell whether there is (for now) nothing left to mark."""
        self._live.shade(self._keeps.take_post())
        if self.phase is Phase.ROOTS:
            self._take_roots()
        self._live.follow(until_s)
        if self.phase is Phase.DOOMED:
            self._follow_only(until_s)
        return self._live.is_done and self.phase not in {Phase.ROOTS, Phase.DOOMED}

    def _take_roots(self) -> None:
        roots = list(itertools.islice(self._roots, ROOTS_PER_STEP))
        self._live.shade(roots)
        if roots:
            return
        with self._index.read_pins() as txn:
            page = self._index.pins.page(txn, self._start, ROOTS_PER_STEP)
        self._live.shade(map(CID.decode, page))
        if len(page) == ROOTS_PER_STEP:
            self._start = page[-1]
            return
        self._start = b""
        self.phase = Phase.DOOMED

    def _follow_only(self, until_s: float) -> None:
        if self._only is not None:
            self._only.follow(until_s)
        if self._only is None or self._only.is_done:
            self.phase = Phase.FILES

    def choose(self) -> Doomed:
        """Look for what the next step deletes. Nothing else may write to the index meanwhile."""
        return self._choose_files() if self.phase is Phase.FILES else self._choose_blocks()

    def _choose_files(self) -> Doomed:
        found = Doomed()
        wanted = self._wanted()
        with self._index.read() as reader:
            for seen, (file, size) in enumerate(reader.files(self._next_file)):
                full = len(found.names) == FILES_PER_STEP or seen == BLOCKS_SEEN_PER_STEP
                if full or (wanted is not None and found.bytes >= wanted):
                    found.start = file
                    break
                if self._goes(CID.decode(file).multihash):
                    found.names.append(file)
                    found.bytes += size
        return found

    def _choose_blocks(self) -> Doomed:
        found = Doomed()
        wanted = self._wanted()
        stale = self._stale & self._index.dropped  # a file may be here again meanwhile
        with self._index.read() as reader:
            for seen, (multihash, entry) in enumerate(reader.blocks(self._start)):
                if len(found.names) == BLOCKS_PER_STEP or seen == BLOCKS_SEEN_PER_STEP:
                    found.start = multihash
                    break
                if is_run(entry):
                    if file_of(entry) in stale:
                        found.names.append(multihash)
                elif (wanted is None or found.bytes < wanted) and self._goes(multihash):
                    found.names.append(multihash)
                    found.bytes += len(entry) - 1
        return found

    def _goes(self, multihash: bytes) -> bool:
        if multihash in self._live or (self._recent is not None and multihash in self._recent):
            return False
        return self._only is None or multihash in self._only

    def _wanted(self) -> int | None:
        return None if self._bytes_min is None else self._bytes_min - self.freed_bytes

    def deleted(self, doomed: Doomed, freed_bytes: int) -> list[bytes]:
        """Go on behind what was deleted; return the files of which no entry speaks any more."""
        self.freed_bytes += freed_bytes
        if self.phase is Phase.FILES:
            self._after_files(doomed)
            return []
        if doomed.start is not None:
            self._start = doomed.start
            return []
        swept = self._stale
        self._start = b""
        self.phase = Phase.FILES if self._next_file else Phase.DONE
        return list(swept)

    def _after_files(self, doomed: Doomed) -> None:
        """Sweep blocks once all files were seen, enough is freed, or too many are gone."""
        wanted = self._wanted()
        enough = wanted is not None and wanted <= 0
        self._next_file = b"" if enough else doomed.start or b""
        if self._next_file and len(self._index.dropped) < FILES_DROPPED_MAX:
            return
        self._stale = self._index.dropped
        self.phase = Phase.BLOCKS if self._stale or not enough else Phase.DONE

    def close(self) -> None:
        """Forget everything; whoever waited on the marks may delete them."""
        self._keeps.end_collection()
        self._live.close()
        if self._only is not None:
            self._only.close()
