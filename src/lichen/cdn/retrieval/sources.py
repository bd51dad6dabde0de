"""Where a block may be had, and what is remembered while one DAG is being fetched. Pure."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

from lichen.cdn.routing.multiaddr import HttpAddress, parse_origin
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lichen.content import CID

GOOD_MAX = 4
LOOKUPS_MAX = 32  # questions to routers for the blocks of one DAG, beside the one for its root


class Source(msgspec.Struct, frozen=True):
    """A server that may have a block: a Lichen node, somebody's HTTP gateway, or our own Kubo.

    `is_trusted` tells that it may be at a private address.
    """

    kind: Literal["node", "provider", "kubo"]
    address: HttpAddress
    is_trusted: bool = False

    @property
    def url(self) -> str:
        """The origin, by which its health is known."""
        return self.address.url


class Session:
    """What was learned while fetching the blocks of one DAG: who had some is asked first.

    With `is_outside` what no node of the network has is looked for elsewhere.
    """

    def __init__(self, root: CID, *, is_outside: bool = True) -> None:
        self.root = root
        self.is_outside = is_outside
        self.good: list[Source] = []
        self._looked_up: set[CID] = set()

    def had(self, source: Source) -> None:
        """Note that a source had a block."""
        if self.good and self.good[0] == source:
            return
        self.good = [source, *(known for known in self.good if known != source)][:GOOD_MAX]

    def to_look_up(self, cid: CID) -> list[CID]:
        """Return what routers should be asked for to find a block: the root once, then itself."""
        wanted = [name for name in dict.fromkeys((self.root, cid)) if name not in self._looked_up]
        if len(self._looked_up) > LOOKUPS_MAX:
            return []
        self._looked_up.update(wanted)
        return wanted


@functools.lru_cache(maxsize=4096)
def node_source(url: str, *, is_trusted: bool) -> Source | None:
    """Return the source that a node's endpoint stands for; None for a URL that is none."""
    try:
        return Source("node", parse_origin(url), is_trusted)
    except UserError:
        return None


def in_order(urls: Iterable[str], cid: CID) -> list[str]:
    """Return peers in the order that a CID gives them (rendezvous hashing), the same everywhere."""

    def weight(url: str) -> bytes:
        return hashlib.blake2b(url.encode() + b"\0" + cid.multihash, digest_size=8).digest()

    return sorted(urls, key=weight)
