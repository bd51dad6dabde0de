"""Reading ahead: which blocks of a DAG will be asked for next, and fetching them before they are.

Whoever reads a file, a listing or a CAR asks for one block after the other. Over a network that
would be one block per round trip; so what stands behind a block in its parent is fetched meanwhile,
the more of it the longer reading goes on in order.
"""

from __future__ import annotations

import collections
import contextlib
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from lichen.content import BLOCK_BYTES_MAX, CID, DAG_PB
from lichen.content.dag import links_of
from lichen.errors import LichenError, NotFoundError, UserError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

WINDOW_MAX = 16  # blocks of one reader
WINDOW_BYTES_MAX = 16 << 20
SLOTS = 64  # blocks of all readers together
PARENTS_MAX = 8
CHILDREN_MAX = 2048  # of one parent that are looked at
NODE_BYTES_MAX = 256 * 1024
NEAR = 64
WAIT_S_MAX = 12.0
EAGER = 4  # the first window of a reader that is known to read everything


class _Parent:
    """The children of one block, and how far they were asked for."""

    __slots__ = ("children", "last", "window")

    def __init__(self, children: list[CID], window: int) -> None:
        self.children = children
        self.last = -1
        self.window = window

    def find(self, cid: CID) -> int:
        """Return where a child stands, -1 for what is none; most often it is one of the next."""
        near = self.last + 1
        for first, end in ((near, near + NEAR), (0, len(self.children))):
            with contextlib.suppress(ValueError):
                return self.children.index(cid, first, end)
        return -1


class Order:
    """Which blocks come next, learned from the blocks that were read. Pure."""

    def __init__(self) -> None:
        self.is_eager = False
        self._unread: collections.deque[tuple[CID, bytes]] = collections.deque(maxlen=PARENTS_MAX)
        self._parents: collections.deque[_Parent] = collections.deque(maxlen=PARENTS_MAX)
        self._block_bytes = BLOCK_BYTES_MAX >> 2

    def saw(self, cid: CID, block: bytes) -> None:
        """Note a block that was read; its links are looked at when one of them is missing."""
        if cid.codec == DAG_PB and len(block) <= NODE_BYTES_MAX:
            self._unread.append((cid, block))
        self._block_bytes = max(len(block), self._block_bytes // 2, 1)

    def after(self, cid: CID) -> list[CID]:
        """Return what will probably be asked for after `cid`, which had to be fetched."""
        while self._unread:
            parent, block = self._unread.popleft()
            with contextlib.suppress(UserError):  # malformed: whoever reads it says so
                children = links_of(parent, block)[:CHILDREN_MAX]
                self._parents.append(_Parent(children, self._first_window()))
        for known in reversed(self._parents):
            place = known.find(cid)
            if place >= 0:
                return self._behind(known, place)
        return []

    def _first_window(self) -> int:
        return EAGER if self.is_eager else 0

    def _behind(self, parent: _Parent, place: int) -> list[CID]:
        if place == parent.last + 1 and place:
            parent.window = min(max(parent.window * 2, 2), WINDOW_MAX)
        elif place:
            parent.window = self._first_window()
        parent.last = place
        room = min(parent.window, max(WINDOW_BYTES_MAX // self._block_bytes, 1))
        return parent.children[place + 1 : place + 1 + room]


class Ahead:
    """Blocks of one reader that are under way. `start` begins a fetch; one thread uses this."""

    def __init__(
        self, start: Callable[[CID], Future[bytes]], slots: threading.BoundedSemaphore
    ) -> None:
        self._start = start
        self._slots = slots
        self._started: dict[CID, Future[bytes]] = {}

    def __contains__(self, cid: CID) -> bool:
        return cid in self._started

    def begin(self, cid: CID) -> bool:
        """Begin to fetch a block; False when there are too many under way."""
        if len(self._started) >= WINDOW_MAX or not self._slots.acquire(blocking=False):
            return False
        self._started[cid] = self._start(cid)
        return True

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
            self._slots.release()

    def close(self) -> None:
        """Let go of what nobody asked for."""
        while self._started:
            self._started.popitem()[1].cancel()
            self._slots.release()
