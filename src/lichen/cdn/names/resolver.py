"""From a mutable name to content: IPNS keys by their records, domains by DNSLink, step by step.

A name stands for a path, which may begin with another name. Each step is a link (`name_links`). A
walk over links in memory waits for nothing: `ready`. A record that is published here counts from
that moment on; the operator's own map wins over DNS.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from lichen.cdn.names.dnslink import DnsLinks, NoDnsLinkError, dns_name
from lichen.cdn.names.links import FAILED_S, Link, Links
from lichen.cdn.names.values import (
    Key,
    NameNotResolvedError,
    read_domain,
    read_mapped,
    read_value,
)
from lichen.content import CID
from lichen.content.ipns import InvalidRecordError, Name, Record, verify_signature
from lichen.errors import LichenError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.cdn.names.store import NameStore

STEPS_MAX: Final = 32
NAMES_READ_MAX: Final = 20_000
TTL_S_DEFAULT: Final = 60  # of records that do not say, and of the operator's own map
TTL_S_MIN: Final = 1
TTL_S_MAX: Final = 24 * 3600
DOMAIN_STALE_S: Final = 3600.0  # a domain's last answer, while no name server says another
LINK_S_MAX: Final = 3.0
FETCHES_MAX: Final = 256
FETCH_S_MAX: Final = 8.0
FETCH_BESIDE_S_MAX: Final = 1.0  # where a record is here, others are waited for only so long
AGE_STEPS: Final = 8
UNCOUNTED: Final = -1
_NS_PER_S: Final = 10**9

Fetch = Callable[[Name], Awaitable[bytes | None]]

log = structlog.get_logger()


class NameLoopError(UserError):
    """The name leads to names without end."""

    code = "name-loop"


class Resolved(msgspec.Struct, frozen=True):
    """What a name stands for now: `below` is a path from `root`, empty or with a slash in front.

    It may be believed for `ttl_s`: the rest of the shortest time to live on the way, rounded down
    in steps of an eighth, so that it does not change with every second. `token` tells one from
    another.
    """

    root: CID
    below: str
    ttl_s: int
    token: bytes = b""


class _Walk(msgspec.Struct, frozen=True):
    """A way that was gone lately: where it led, until when, over which links.

    `changes` counts what links and records had changed by then: while nothing has since, the way
    is the same.
    """

    resolved: Resolved
    until: float
    steps: tuple[tuple[Key, Link], ...]
    changes: int


class Names:
    """Resolves names for one gateway; its methods belong to one event loop."""

    def __init__(
        self,
        store: NameStore,
        *,
        static: Mapping[str, str] | None = None,
        domains: DnsLinks | None = None,
        fetch: Fetch | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `static`, a map from hosts to content paths; raise UserError for a wrong path.

        `domains` asks DNS; without it only the map counts. `fetch` asks others for a name's
        record: its bytes, or None when they have none; they are verified here.
        """
        self._store = store
        self._static = {
            host.lower(): Link(*read_mapped(path), math.inf, math.inf, TTL_S_DEFAULT)
            for host, path in (static or {}).items()
        }
        self._domains = domains
        self._fetch = fetch
        self._fetching: dict[Name, asyncio.Task[None]] = {}
        self._now_ns = now_ns
        self._clock = clock
        self._links = Links(self._look_up, self._is_current, clock)
        self._walks: dict[str, _Walk] = {}
        self.key = functools.lru_cache(maxsize=NAMES_READ_MAX)(self._read_key)

    def _read_key(self, text: str) -> Key:
        """Read a name as it stands in a path or host; raise UserError for what is none."""
        host = text.lower()
        if host in self._static:
            return host
        return Name.parse(text) if "." not in text else read_domain(text)

    async def close(self) -> None:
        """End what is under way."""
        await self._links.close()
        tasks = [*self._fetching.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- asking ----------------------------------------------------------------------------------

    def ready(self, text: str) -> Resolved | None:
        """Resolve a name from memory alone; None when that takes waiting, or fails."""
        walk = self._walks.get(text)
        if walk is not None and self._holds(text, walk):
            return walk.resolved
        steps: list[tuple[Key, Link]] = []
        key = self.key(text)
        while len(steps) < STEPS_MAX:
            link = self._at_hand(key)
            if link is None or link.to is None:
                return None
            steps.append((key, link))
            if isinstance(link.to, CID):
                return self._arrive(text, steps, link.to)
            key = link.to
        return None

    async def resolve(self, text: str) -> Resolved:
        """Resolve a name.

        Raises UserError for what is no name, NameLoopError, NoDnsLinkError for a domain without
        content, NameNotResolvedError and PeerUnavailableError.
        """
        steps: list[tuple[Key, Link]] = []
        key = self.key(text)
        while len(steps) < STEPS_MAX:
            link = self._at_hand(key) or await self._links.get(key)
            if link.to is None:
                raise _again(link.error or _not_resolved(key))
            steps.append((key, link))
            if isinstance(link.to, CID):
                return self._arrive(text, steps, link.to)
            key = link.to
        raise NameLoopError(
            f"{text[:80]} leads through over {STEPS_MAX} names", hint="point it at /ipfs/CID"
        )

    def _holds(self, text: str, walk: _Walk) -> bool:
        """Tell whether a way is still the one to go."""
        changes = self._links.changes + self._store.changes
        if self._clock() >= walk.until:
            return False
        if changes == walk.changes:
            return True
        for key, link in walk.steps:
            if self._links.last(key) is not link or not self._is_current(key, link):
                return False
        self._walks[text] = msgspec.structs.replace(walk, changes=changes)
        return True

    def _arrive(self, text: str, steps: Sequence[tuple[Key, Link]], root: CID) -> Resolved:
        """Join the links of a way, and remember it for as long as it says the same."""
        resolved, until = _join(root, [link for _, link in steps], self._clock())
        changing = tuple(step for step in steps if step[1].fresh_until < math.inf)
        self._walks[text] = _Walk(resolved, until, changing, UNCOUNTED)
        if len(self._walks) > NAMES_READ_MAX:
            del self._walks[next(iter(self._walks))]
        return resolved

    def is_linked(self, host: str) -> bool | None:
        """Tell from memory whether a host has content of its own; None when that takes waiting."""
        if host in self._static:
            return True
        name = None if self._domains is None else dns_name(host)
        if name is None:
            return False
        link = self._links.at_hand(name)
        return None if link is None else link.error is None

    async def find_link(self, host: str) -> bool:
        """Tell whether a host has content of its own; asks DNS where that is not known.

        A host that DNS says nothing about in LINK_S_MAX counts as the gateway's own: it may be
        reached by names that are nowhere in DNS.
        """
        known = self.is_linked(host)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(LINK_S_MAX):
                return (await self._links.get(read_domain(host))).error is None
        except (LichenError, TimeoutError):
            return False

    async def record(self, name: Name) -> Record:
        """Return the record of a name that counts now; raise NameNotResolvedError."""
        link = await self._links.get(name)
        record = self._stored(name)
        if record is None:
            raise _again(link.error or _not_resolved(name))
        return record

    def _at_hand(self, key: Key) -> Link | None:
        link = self._static.get(key) if isinstance(key, str) else None
        return link or self._links.at_hand(key)

    # --- looking up ------------------------------------------------------------------------------

    def _is_current(self, key: Key, link: Link) -> bool:
        return isinstance(key, str) or link.version is self._store.version(key)

    async def _look_up(self, key: Key) -> Link:
        return await (self._by_record(key) if isinstance(key, Name) else self._by_dns(key))

    async def _by_record(self, name: Name) -> Link:
        before = self._links.last(name)
        was_published = before is not None and not self._is_current(name, before)
        is_heard = was_published or await self._ask_others(name)
        version, record = self._store.version(name), self._stored(name)
        if record is None:
            raise _not_resolved(name)
        to, below = read_value(record.value)
        left_s = (record.eol_ns - self._now_ns()) / _NS_PER_S
        ttl_s = min(max(record.ttl_ns // _NS_PER_S or TTL_S_DEFAULT, TTL_S_MIN), TTL_S_MAX)
        if not is_heard:
            ttl_s = min(ttl_s, int(FAILED_S))
        now, fresh_s = self._clock(), min(ttl_s, left_s)
        return Link(to, below, now + fresh_s, now + left_s, math.ceil(fresh_s), version)

    async def _ask_others(self, name: Name) -> bool:
        """Let others bring a newer record into the store; tell whether they were heard in time."""
        task = self._fetching.get(name)
        if self._fetch is None or (task is None and len(self._fetching) >= FETCHES_MAX):
            return self._fetch is None
        if task is None:
            task = asyncio.get_running_loop().create_task(self._bring(name, self._fetch))
            self._fetching[name] = task
            task.add_done_callback(lambda _: self._fetching.pop(name, None))
        is_here = self._store.get(name) is not None
        done, _ = await asyncio.wait({task}, timeout=FETCH_BESIDE_S_MAX if is_here else None)
        return bool(done)

    async def _bring(self, name: Name, fetch: Fetch) -> None:
        try:
            async with asyncio.timeout(FETCH_S_MAX):
                encoded = await fetch(name)
            if encoded is not None:
                await self._store.publish(name, encoded, self._now_ns())
        except InvalidRecordError as error:
            log.warning("somebody sent a wrong IPNS record", name=str(name), error=error.what)
        except (LichenError, TimeoutError) as error:
            log.info("others were not heard about a name", name=str(name), error=str(error))

    def _stored(self, name: Name) -> Record | None:
        encoded = self._store.get(name)
        return None if encoded is None else verify_signature(name, encoded)

    async def _by_dns(self, host: str) -> Link:
        if self._domains is None:
            raise NoDnsLinkError(
                f"this gateway does not ask DNS for {host}", hint="ask for its CID under /ipfs/"
            )
        link = await self._domains.lookup(read_domain(host))
        to, below = read_value(link.path)
        fresh_until = self._clock() + link.ttl_s
        return Link(to, below, fresh_until, fresh_until + DOMAIN_STALE_S, link.ttl_s)


def _join(root: CID, links: Sequence[Link], now: float) -> tuple[Resolved, float]:
    """Return where links lead, and until when it can be said in the same words."""
    below = "".join(link.below for link in reversed(links))
    nearest = min(links, key=lambda link: link.fresh_until)
    until, left_s = nearest.fresh_until, nearest.ttl_s
    if until < math.inf:
        left_s = min(left_s, math.ceil(until - now))
        left_s -= left_s % max(1, nearest.ttl_s // AGE_STEPS)
        until = min(until, until - left_s + 1)
    ttl_s = max(TTL_S_MIN, left_s)
    token = b"%b%b\n%d" % (root.encode(), below.encode(), ttl_s)
    return Resolved(root, below, ttl_s, token), until


def _not_resolved(key: Key) -> NameNotResolvedError:
    return NameNotResolvedError(
        f"no valid record of {key} was found", hint="publish one: lichen name publish"
    )


def _again(error: LichenError) -> LichenError:
    """Return a remembered error as one of its own: each raising writes into the object."""
    return type(error)(error.what, hint=error.hint)
