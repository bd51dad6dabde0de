"""Who has what, as this server tells others: itself, and the nodes of the network.

A node answers for itself. A gateway asks the nodes that a block would be asked of (see `fetch`),
each for its own record: it is the node that says where it can be reached, and nobody is listed for
what he does not have.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from lichen.cdn.retrieval.health import HealthBook
from lichen.cdn.retrieval.origins import is_private
from lichen.cdn.retrieval.routers import read_document
from lichen.cdn.retrieval.sources import in_order
from lichen.cdn.routing.multiaddr import parse_http, parse_origin
from lichen.cdn.routing.records import HTTP_GATEWAY, JSON, PeerRecord, gateway_record
from lichen.content.ipns import Name
from lichen.content.libp2p_key import public_key
from lichen.errors import PeerError, UserError
from lichen.identity import PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from lichen.cdn.retrieval.origins import Origins
    from lichen.content import CID, BlockStore

ASKED_MAX = 8  # nodes asked for one CID
ANSWER_S_MAX = 0.5  # a node that is slower is left out
ANSWER_BYTES_MAX = 16 * 1024
ADDRESSES_MAX = 4
UNDER_WAY_MAX = 256
KEPT_MAX = 10_000
KEPT_S = 60.0
KEPT_EMPTY_S = 10.0
_ACCEPT = (b"accept", JSON.encode())


class Directory(Protocol):
    """Knows providers and peers, as the routing API tells them."""

    async def providers(self, cid: CID) -> Sequence[PeerRecord]:
        """Return who has a block."""
        ...

    async def peers(self, name: Name) -> Sequence[PeerRecord]:
        """Return what is known of a peer."""
        ...


class Node(msgspec.Struct, frozen=True):
    """A node of the network: its key, and where it was registered."""

    key: PublicKey
    endpoint: str


class OwnDirectory:
    """What this server says of itself."""

    def __init__(self, store: BlockStore, key: PublicKey, public_url: str) -> None:
        """Take where strangers reach this server; an empty URL lists it nowhere.

        Raises UserError for a URL that is none.
        """
        self._store = store
        self._name = Name.of(public_key(key))
        addresses = (parse_origin(public_url).multiaddr,) if public_url else ()
        self._record = gateway_record(key, addresses) if addresses else None

    def has(self, cid: CID) -> list[PeerRecord]:
        """Return this server's own record, if it has the block."""
        return [self._record] if self._record is not None and self._store.has(cid) else []

    def is_called(self, name: Name) -> list[PeerRecord]:
        """Return this server's own record, if that is its name."""
        return [self._record] if self._record is not None and name == self._name else []

    async def providers(self, cid: CID) -> list[PeerRecord]:
        """Return this server, if it has the block."""
        return self.has(cid)

    async def peers(self, name: Name) -> list[PeerRecord]:
        """Return this server, if that is its name."""
        return self.is_called(name)


class NetworkDirectory:
    """What a gateway knows: itself and, by asking them, the nodes of the network."""

    def __init__(
        self,
        own: OwnDirectory,
        nodes: Callable[[], Sequence[Node]],
        origins: Origins,
        *,
        private_nodes: bool,
    ) -> None:
        self._own = own
        self._nodes = nodes
        self._origins = origins
        self._private = private_nodes
        self._health = HealthBook()  # of answers to these questions, which are waited for shortly
        self._kept: collections.OrderedDict[CID, tuple[float, list[PeerRecord]]] = (
            collections.OrderedDict()
        )
        self._asking: dict[CID, asyncio.Task[list[PeerRecord]]] = {}

    async def close(self) -> None:
        """End what is under way."""
        tasks = [*self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def providers(self, cid: CID) -> list[PeerRecord]:
        """Return who has a block; a node that does not answer at once is left out."""
        until, kept = self._kept.get(cid, (0.0, []))
        if until > time.monotonic():
            return [*self._own.has(cid), *kept]
        task = self._asking.get(cid)
        if task is None and len(self._asking) < UNDER_WAY_MAX:
            task = self._asking[cid] = asyncio.ensure_future(self._ask_nodes(cid))
            task.add_done_callback(lambda _: self._asking.pop(cid, None))
        found = [] if task is None else await asyncio.shield(task)
        return [*self._own.has(cid), *found]

    async def peers(self, name: Name) -> list[PeerRecord]:
        """Return this gateway, or a node of the network, if that is its name."""
        own = self._own.is_called(name)
        node = next((node for node in self._nodes() if _name_of(node.key) == name), None)
        if own or node is None:
            return own
        return await self._ask(node, f"/routing/v1/peers/{name}")

    async def _ask_nodes(self, cid: CID) -> list[PeerRecord]:
        by_url = {node.endpoint.rstrip("/"): node for node in self._nodes()}
        now = time.monotonic()
        asked = [url for url in in_order(by_url, cid) if not self._health.rests(url, now)]
        asked = asked[:ASKED_MAX]
        target = f"/routing/v1/providers/{cid.as_v1()}"
        work: list[Coroutine[None, None, list[PeerRecord]]] = [
            self._ask(by_url[url], target) for url in asked
        ]
        found = [record for records in await asyncio.gather(*work) for record in records]
        self._kept[cid] = (time.monotonic() + (KEPT_S if found else KEPT_EMPTY_S), found)
        self._kept.move_to_end(cid)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return found

    async def _ask(self, node: Node, target: str) -> list[PeerRecord]:
        """Ask a node for its own record; nothing when it has none to give."""
        health, started = self._health.of(node.endpoint.rstrip("/")), time.monotonic()
        try:
            response = await self._origins.get(
                parse_origin(node.endpoint),
                target,
                [_ACCEPT],
                is_trusted=self._private,
                timeout_s=ANSWER_S_MAX,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
            said = read_document(response.body) if response.status == 200 else []
        except (PeerError, UserError):
            health.failed(time.monotonic())
            return []
        health.answered(time.monotonic() - started)
        peer_id = _name_of(node.key).peer_id
        addresses = [text for record in said if record.id == peer_id for text in record.addrs]
        usable = tuple(text for text in addresses[:ADDRESSES_MAX] if self._is_usable(text))
        return [PeerRecord(peer_id, usable, (HTTP_GATEWAY,))] if usable else []

    def _is_usable(self, text: str) -> bool:
        try:
            host = parse_http(text).host
        except UserError:
            return False
        return self._private or not is_private(host)


@functools.lru_cache(maxsize=4096)
def _name_of(key: PublicKey) -> Name:
    return Name.of(public_key(key))
