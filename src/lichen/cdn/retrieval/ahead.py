"""Reading ahead: which blocks of a DAG will be asked for next, and fetching them before they are.

Whoever reads a file, a listing or a CAR asks for one block after the other. Over a network that
would be one block per round trip; so what stands behind a block in its parent is fetched meanwhile,
the more of it the longer reading goes on in order. For who reads everything, what comes next goes
on below the blocks that were fetched ahead, and behind the parent when that ends: depth first.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from lichen.content import BLOCK_BYTES_MAX, CID, DAG_PB
from lichen.content.dag import links_of
from lichen.errors import LichenError, NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

WINDOW_MAX = 32  # blocks of one reader
WINDOW_BYTES_MAX = 16 << 20
NODES_MAX = 8  # blocks with links of one reader, beyond its window
SCANNED_MAX = 256
SLOTS = 96  # blocks of all readers together
PARENTS_MAX = 8
DEPTH_MAX = 16
CHILDREN_MAX = 2048  # of one parent that are looked at
NODE_BYTES_MAX = 256 * 1024
PEEKED_MAX = 2 * WINDOW_MAX
NEAR = 64
WAIT_S_MAX = 12.0
EAGER = 4  # the first window of a reader that is known to read everything


class _Parent:
    """The children of one block, how far they were asked for, and where it stands itself."""

    __slots__ = ("above", "children", "last", "place")

    def __init__(self, children: list[CID], above: _Parent | None, place: int) -> None:
        self.children = children
        self.above = above
        self.place = place
        self.last = -1
        *_, top = self.and_above()
        top.above = None

    def and_above(self) -> Iterator[_Parent]:
        """Yield this and what stands above, at most DEPTH_MAX of them."""
        level: _Parent | None = self
        for _ in range(DEPTH_MAX):
            if level is None:
                return
            yield level
            level = level.above

    def find(self, cid: CID) -> int:
        """Return where a child stands, -1 for what is none; most often it is one of the next."""
        near = self.last + 1
        for first, end in ((near, near + NEAR), (0, len(self.children))):
            with contextlib.suppress(ValueError):
                return self.children.index(cid, first, end)
        return -1


class Order:
    """Which blocks come next, learned from the blocks that were read. Pure.

    `peek` returns a block that was fetched ahead, None for one that has not come.
    """

    def __init__(self, peek: Callable[[CID], bytes | None] | None = None) -> None:
        self.is_eager = False
        self._peek = peek
        self._window = 0
        self._unread: collections.deque[tuple[CID, bytes]] = collections.deque(maxlen=PARENTS_MAX)
        self._recent: collections.deque[_Parent] = collections.deque(maxlen=PARENTS_MAX)
        self._peeked: collections.OrderedDict[CID, list[CID]] = collections.OrderedDict()
        self._block_bytes = BLOCK_BYTES_MAX >> 2

    def saw(self, cid: CID, block: bytes) -> None:
        """Note a block that was read; its links are looked at when one of them is missing."""
        if cid.codec == DAG_PB and len(block) <= NODE_BYTES_MAX:
            self._unread.append((cid, block))
        self._block_bytes = max(len(block), self._block_bytes // 2, 1)

    def after(self, cid: CID) -> list[CID]:
        """Return what will probably be asked for after `cid`, which is not here.

        Blocks with links come early: what stands below them cannot be foreseen before.
        """
        while self._unread:
            name, block = self._unread.popleft()
            self._recent.append(_Parent(_children(name, block), *self._find(name)))
        parent, place = self._find(cid)
        if parent is None:
            return []
        self._widen(parent, place)
        room = min(self._window, max(WINDOW_BYTES_MAX // self._block_bytes, 1))
        upcoming = self._upcoming(parent, place)
        soon = list(itertools.islice(upcoming, room))
        later = itertools.islice(upcoming, SCANNED_MAX) if self.is_eager else ()
        nodes = (child for child in later if child.codec == DAG_PB)
        return [*soon, *itertools.islice(nodes, NODES_MAX)]

    def _find(self, cid: CID) -> tuple[_Parent | None, int]:
        """Return a parent and where a block stands in it: above the last one, or among the last."""
        if not self._recent:
            return None, -1
        for known in itertools.chain(self._recent[-1].and_above(), reversed(self._recent)):
            place = known.find(cid)
            if place >= 0:
                return known, place
        return None, -1

    def _widen(self, parent: _Parent, place: int) -> None:
        """Look further ahead while reading goes on in order, into the next parents too."""
        if self.is_eager:
            self._window = min(max(self._window * 2, EAGER), WINDOW_MAX)
        elif place == parent.last + 1 and place:
            self._window = min(max(self._window * 2, 2), WINDOW_MAX)
        elif place:
            self._window = 0
        parent.last = place

    def _upcoming(self, parent: _Parent, place: int) -> Iterator[CID]:
        if not self.is_eager:
            yield from parent.children[place + 1 : place + 1 + WINDOW_MAX]
            return
        for level in parent.and_above():
            for child in level.children[place + 1 : place + 1 + SCANNED_MAX]:
                yield child
                yield from self._below(child)
            place = level.place

    def _below(self, cid: CID) -> Iterator[CID]:
        children = self._peeked.get(cid)
        if children is None:
            block = self._peek(cid) if self._peek is not None and cid.codec == DAG_PB else None
            if block is None or len(block) > NODE_BYTES_MAX:
                return
            children = self._peeked[cid] = _children(cid, block)
            if len(self._peeked) > PEEKED_MAX:
                self._peeked.popitem(last=False)
        for child in children[:SCANNED_MAX]:
            yield child
            yield from self._below(child)


def _children(cid: CID, block: bytes) -> list[CID]:
    try:
        return links_of(cid, block)[:CHILDREN_MAX]
    except UserError:  # malformed: whoever reads it says so
        return []


class Slots:
    """Places for blocks that are fetched ahead, shared by all readers; for any thread."""

    def __init__(self, total: int = SLOTS) -> None:
        self._lock = threading.Lock()
        self.free = total

    def take(self, held: int) -> bool:
        """Take a place for a reader that holds some; who holds many leaves the last to others."""
        with self._lock:
            if self.free <= held // 2:
                return False
            self.free -= 1
            return True

    def give(self) -> None:
        """Give a place back."""
        with self._lock:
            self.free += 1


class Ahead:
    """Blocks of one reader that are under way. `start` begins a fetch; one thread uses this."""

    def __init__(self, start: Callable[[CID], Future[bytes]], slots: Slots) -> None:
        self._start = start
        self._slots = slots
        self._started: dict[CID, Future[bytes]] = {}

    def __contains__(self, cid: CID) -> bool:
        return cid in self._started

    def __len__(self) -> int:
        return len(self._started)

    def peek(self, cid: CID) -> bytes | None:
        """Return a block that has come and was not taken yet."""
        future = self._started.get(cid)
        if future is None or not future.done() or future.cancelled() or future.exception():
            return None
        return future.result()

    def begin(self, cid: CID) -> bool:
        """Begin to fetch a block; False when there are too many under way."""
        held = len(self._started)
        if held >= WINDOW_MAX + NODES_MAX or not self._slots.take(held):
            return False
        self._started[cid] = self._start(cid)
        return True

    def drop_all_but(self, wanted: Container[CID]) -> None:
        """Let go of what will not be asked for soon after all."""
        for cid in [cid for cid in self._started if cid not in wanted]:
            self._started.pop(cid).cancel()
            self._slots.give()

    def take(self, cid: CID) -> bytes | None:
        """Wait for a block that was begun; None when it was not, or when fetching it failed.

        Raises NotFoundError when nobody has it.
        """
        future = self._started.pop(cid, None)
        if future is None:
            return None
        try:
            return future.result(WAIT_S_MAX)
        except NotFoundError:
            raise
        except (LichenError, TimeoutError, CancelledError):
            return None
        finally:
            future.cancel()
            self._slots.give()

    def close(self) -> None:
        """Let go of what nobody asked for."""
        while self._started:
            self._started.popitem()[1].cancel()
            self._slots.give()
