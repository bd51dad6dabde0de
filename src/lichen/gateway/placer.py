"""Where runs go: rankings kept up to date, links kept open, and what nodes did so far."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from lichen.errors import LichenError
from lichen.gateway.placement import BUSY_IN_FLIGHT, RESTING, Health, Ranking, choose, rank
from lichen.ledger.tables import APPS, CHANNELS, GRANTS, NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.gateway.links import Link, Links
    from lichen.gateway.routes import AppRoutes, FunctionRoute
    from lichen.gateway.runs import RunLog
    from lichen.ledger.blocks import Block
    from lichen.ledger.types import Node
    from lichen.ledger.views import View

RANKING_S_MAX = 1.0
RANKINGS_MAX = 20_000
BEHIND_S = 0.05
PLACE_POLL_S = 0.1
STALLED_S = 1.0


class Ranked:
    """A function's ranking with the links of its nodes, and until when it counts."""

    __slots__ = ("links", "ranking", "until")

    def __init__(self, ranking: Ranking, links: dict[bytes, Link], until: float) -> None:
        self.ranking = ranking
        self.links = links
        self.until = until


class Placer:
    """Chooses a link for each run."""

    def __init__(self, view: View, links: Links, runs: RunLog, *, replicas: int) -> None:
        self._view = view
        self._links = links
        self.runs = runs
        self._replicas = replicas
        self.health: dict[bytes, Health] = {}
        self._nodes: dict[bytes, Node] = {}
        self._ranked: dict[str, Ranked] = {}
        self._stale = True
        self._asking: dict[bytes, asyncio.Task[None]] = {}

    def on_block(self, block: Block, changed: frozenset[bytes]) -> None:
        """Notice new nodes, prices, grants and channels."""
        del block
        if any(key.startswith((NODES.prefix, GRANTS.prefix, CHANNELS.prefix)) for key in changed):
            self._stale = True
        if any(key.startswith(APPS.prefix) for key in changed):
            self._ranked.clear()

    def _rank(self, function: FunctionRoute) -> Ranked:
        now = time.monotonic()
        ranked = self._ranked.get(function.id)
        if ranked is not None and not self._stale and now < ranked.until:
            return ranked
        if self._stale:
            self._nodes = {bytes(node.address): node for node in self._view.nodes()}
            self._ranked.clear()
            self._stale = False
        ranking = rank(function, self._nodes.values(), self.health, int(now * 1000))
        links = {
            key: self._links.get(function, self._nodes[key])
            for key in ranking.nodes[: self._replicas]
        }
        if len(self._ranked) >= RANKINGS_MAX:
            self._ranked.clear()
        ranked = self._ranked[function.id] = Ranked(ranking, links, now + RANKING_S_MAX)
        return ranked

    def place(self, function: FunctionRoute) -> Link | None:
        """Return an open link for a run, or None when one has to be waited for."""
        ranked = self._rank(function)
        for link in ranked.links.values():  # most often the first will do, as `choose` would say
            if link.session and self.health[link.peer.address].in_flight < BUSY_IN_FLIGHT:
                return self._taken(link)
        open_nodes = [key for key, link in ranked.links.items() if link.session]
        key = choose(open_nodes, self.health)
        return None if key is None else self._taken(ranked.links[key])

    async def place_when_open(
        self, function: FunctionRoute, tried: Sequence[bytes], until: float
    ) -> Link | None:
        """Return a link to a node not tried yet, opened first if need be.

        When all are resting or cannot be reached it waits, `until` then (monotonic), for one that
        is back, tried before or not. Returns None when there is none, or waiting does not help.
        """
        while True:
            link = await self._next_open(function, tried)
            late = time.monotonic() > until
            if link is not None or late or not self._may_heal(function):
                return link
            self._wake_resting(function)
            await asyncio.sleep(PLACE_POLL_S)
            tried = ()

    def _may_heal(self, function: FunctionRoute) -> bool:
        """Tell whether a node may be back soon: it rests, or its link waits to be tried again."""
        ranked = self._rank(function)
        resting = any(refusal.code == RESTING for refusal in ranked.ranking.refusals.values())
        return resting or any(link.healing for link in ranked.links.values())

    def _wake_resting(self, function: FunctionRoute) -> None:
        """Probe the nodes that rest, so that nobody has to wait for the end of a rest."""
        for key, refusal in self._rank(function).ranking.refusals.items():
            if refusal.code == RESTING and key not in self._asking:
                self._asking[key] = asyncio.ensure_future(self._wake(key))

    async def _wake(self, key: bytes) -> None:
        try:
            peer = self._links.peer(self._nodes[key])
            if await peer.answers():
                self.health[key].rest_until_ms = 0
                self._links.retry_now(peer)
                self._ranked.clear()
        finally:
            del self._asking[key]

    async def _next_open(self, function: FunctionRoute, tried: Sequence[bytes]) -> Link | None:
        ranked = self._rank(function)
        untried = [key for key in ranked.links if key not in tried]
        open_nodes = [key for key in untried if ranked.links[key].session]
        key = choose(open_nodes, self.health, tried)
        if key is not None:
            return self._taken(ranked.links[key])
        for key in untried:
            if await self._links.opened(ranked.links[key]):
                return self._taken(ranked.links[key])
        return None

    def _taken(self, link: Link) -> Link:
        health = self.health[link.peer.address]
        health.in_flight += 1
        link.health = health
        return link

    def warm(self, routes: AppRoutes) -> None:
        """Open the links of an app before its first request."""
        for function in routes.functions:
            for link in self._rank(function).links.values():
                self._links.ready(link)

    def explain(self, function: FunctionRoute) -> str:
        """Say why no node takes a function, with the reasons counted."""
        ranked = self._rank(function)
        reasons = [link.problem for link in ranked.links.values() if not link.session]
        parts = [f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons)]
        if ranked.ranking.refusals or not parts:
            parts.append(ranked.ranking.explain())
        return ", ".join(parts)

    def ranking(self, function: FunctionRoute) -> Ranking:
        """Return the present ranking, for quotes."""
        return self._rank(function).ranking

    def succeeded(self, link: Link, latency_ms: float) -> None:
        """Note a good answer."""
        self.health[link.peer.address].succeeded(latency_ms)

    def broke_off(self, function: FunctionRoute, link: Link) -> None:
        """Note a response that ended early.

        A function can do that as well as a node, and must not be able to bring nodes into
        disrepute: it is tried elsewhere first for a while, and the node rests only if it does not
        answer a probe.
        """
        key = link.peer.address
        links = self._rank(function).links
        if key in links:
            links[key] = links.pop(key)
        if key not in self._asking:
            self._asking[key] = asyncio.ensure_future(self._ask(link))

    async def _ask(self, link: Link) -> None:
        try:
            if not await link.peer.answers():
                self.failed(link)
        finally:
            del self._asking[link.peer.address]

    def is_stalled(self, link: Link, sent: float) -> bool:
        """Tell whether a node hangs: it answers neither a request of `sent` nor a probe."""
        return time.monotonic() - sent > STALLED_S and link.peer.is_silent(sent)

    def failed(self, link: Link) -> None:
        """Note a node that broke off or cannot be reached: it rests, its sessions are void."""
        self.health[link.peer.address].failed(int(time.monotonic() * 1000))
        self._ranked.clear()

    async def mend(self, link: Link, status: int) -> bool:
        """Do what a node's refusal asks for; return whether the link can be used again.

        402: pay what is due. 401: the node restarted and forgot the session, open another one. 404:
        the node is a block behind, give it a moment. Its own failure: the node rests. Anything else
        it may refuse by right, and who asked may have wanted it to.
        """
        try:
            if status == HTTPStatus.PAYMENT_REQUIRED:
                await self._links.settle(link)
            elif status == HTTPStatus.UNAUTHORIZED:
                self._links.lost_session(link, link.session)
                await self._links.opened(link)
            elif status == HTTPStatus.NOT_FOUND:
                await asyncio.sleep(BEHIND_S)
            else:
                if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    self.failed(link)
                return False
        except (LichenError, TimeoutError):
            return False
        if link.session:
            self._taken(link)
        return bool(link.session)
