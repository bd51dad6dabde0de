"""What must stay although no pin names it, and how that is agreed with a collection under way.

A collection marks what is to stay a little at a time, while readers and additions go on. Links
never change, so what it has marked stays right; only new roots can appear, and each of them is told
to it here before anybody relies on it (the write barrier): `rely`, `hold` and `keep` put it into
the collection's post. Before each step in which something is deleted, the collection declares it
doomed, which fails while there is post; and from then on `rely` calls it missing. So between being
relied on and being deleted, one always comes first and the other one knows.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lichen.errors import LimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lichen.content.cid import CID

RELIED_BLOCKS_MAX = 1 << 20


class Keeps:
    """Safe from any thread; nothing here waits for the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[CID, int] = {}
        self._additions: dict[int, dict[bytes, CID]] = {}
        self._post: list[CID] | None = None
        self._doomed: frozenset[bytes] = frozenset()

    def hold(self, cid: CID) -> None:
        """Keep a DAG until `let_go`."""
        with self._lock:
            self._held[cid] = self._held.get(cid, 0) + 1
            self._send(cid)

    def let_go(self, cid: CID) -> None:
        """End one `hold`."""
        with self._lock:
            self._held[cid] -= 1
            if not self._held[cid]:
                del self._held[cid]

    def begin_addition(self, relied_on: dict[bytes, CID]) -> None:
        """Keep what `relied_on` names, now and later, until `end_addition`."""
        with self._lock:
            self._additions[id(relied_on)] = relied_on

    def end_addition(self, relied_on: dict[bytes, CID]) -> None:
        """Forget an addition."""
        with self._lock:
            self._additions.pop(id(relied_on), None)

    def rely(
        self, relied_on: dict[bytes, CID], cid: CID, where: Callable[[bytes], bytes | None]
    ) -> bool:
        """Tell whether a block is here; if so it stays until the addition ends.

        `where` is as `Index.where`. Raises LimitError beyond RELIED_BLOCKS_MAX.
        """
        with self._lock:
            if cid.multihash in relied_on:
                return True
            file = where(cid.multihash)
            if file is None or not self._doomed.isdisjoint((cid.multihash, file)):
                return False
            if len(relied_on) >= RELIED_BLOCKS_MAX:
                raise LimitError(
                    f"over {RELIED_BLOCKS_MAX} blocks of one addition are here already",
                    hint="split it into parts",
                )
            relied_on[cid.multihash] = cid
            self._send(cid)
            return True

    def is_doomed(self, name: bytes) -> bool:
        """Tell whether a multihash or flat file is being deleted at this moment."""
        with self._lock:
            return name in self._doomed

    def keep(self, cids: Iterable[CID]) -> None:
        """Have a collection under way keep these: what a transaction just added or pinned."""
        with self._lock:
            if self._post is not None:
                self._post.extend(cids)

    # What a collection asks

    def begin_collection(self) -> list[CID]:
        """Return what is held and relied on now, and take post from now on."""
        with self._lock:
            self._post = []
            relied = [cid for addition in self._additions.values() for cid in addition.values()]
            return [*self._held, *relied]

    def end_collection(self) -> None:
        """Take no more post."""
        with self._lock:
            self._post = None
            self._doomed = frozenset()

    def take_post(self) -> list[CID]:
        """Return what has come to be kept since the last call."""
        with self._lock:
            post = self._post or []
            if post:
                self._post = []
            return post

    def doom(self, names: frozenset[bytes]) -> bool:
        """Declare multihashes and flat files deleted, unless there is post: then do nothing."""
        with self._lock:
            if self._post:
                return False
            self._doomed = names
            return True

    def spare(self) -> None:
        """Declare that nothing is being deleted any more."""
        with self._lock:
            self._doomed = frozenset()

    def _send(self, cid: CID) -> None:
        if self._post is not None:
            self._post.append(cid)
