"""What single names stand for, remembered: fresh links, stale ones, failures.

A link is fresh for its time to live. For a moment longer it is used at once while it is looked up
again behind the request; and as long as it is usable at all when that fails. Failures are
remembered, too, so that nobody makes this gateway ask in vain again and again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from lichen.cdn.names.dnslink import NoDnsLinkError
from lichen.cdn.names.store import Version
from lichen.cdn.names.values import Key, NameNotResolvedError
from lichen.content import CID
from lichen.errors import LichenError, PeerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LINKS_MAX: Final = 20_000
UNDER_WAY_MAX: Final = 1024  # whoever asks for slow domains is not to hold up all others
LOOKUP_S_MAX: Final = 10.0
ABSENT_S: Final = 5.0  # a name without a record is not looked for again so soon
NO_LINK_S: Final = 60.0  # nor a domain without a DNSLink
FAILED_S: Final = 5.0  # nor what could not be asked for
STALE_AT_ONCE_S: Final = 30.0

log = structlog.get_logger()


class Link(msgspec.Struct, frozen=True):
    """One step from a name: to content or to another name, with a path below; or an error.

    Times are monotonic seconds; `version` is the record that was read.
    """

    to: CID | Key | None
    below: str
    fresh_until: float
    usable_until: float
    ttl_s: int = 0
    version: Version | None = None
    error: LichenError | None = None


class Links:
    """The links of one gateway; its methods belong to one event loop."""

    def __init__(
        self,
        look_up: Callable[[Key], Awaitable[Link]],
        is_current: Callable[[Key, Link], bool],
        clock: Callable[[], float],
    ) -> None:
        """`look_up` makes a link or raises; `is_current` tells that nothing newer is known here."""
        self._look_up = look_up
        self._is_current = is_current
        self._clock = clock
        # Apart, so that whoever asks for names that do not exist drives out none that do.
        self._links: collections.OrderedDict[Key, Link] = collections.OrderedDict()
        self._failures: collections.OrderedDict[Key, Link] = collections.OrderedDict()
        self._under_way: dict[Key, asyncio.Task[Link]] = {}
        self.changes = 0  # grows with every link that is made

    def __len__(self) -> int:
        return len(self._links) + len(self._failures)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def last(self, key: Key) -> Link | None:
        """Return what was remembered last, be it over, or a failure."""
        return self._links.get(key) or self._failures.get(key)

    def at_hand(self, key: Key) -> Link | None:
        """Return a link that may be used at once; a stale one is looked up again behind it."""
        link = self.last(key)
        if link is None or not self._is_current(key, link):
            return None
        now = self._clock()
        if now < link.fresh_until:
            return link
        if now >= min(link.fresh_until + STALE_AT_ONCE_S, link.usable_until):
            return None
        with contextlib.suppress(PeerUnavailableError):  # too much is under way: the next one may
            self._start(key)
        return link

    async def get(self, key: Key) -> Link:
        """Return a link, an old one that holds where too much is under way to look it up.

        Raises PeerUnavailableError where that takes too long, or too much is under way.
        """
        link = self.at_hand(key)
        if link is not None:
            return link
        try:
            task = self._start(key)
        except PeerUnavailableError:
            before = self.last(key)
            if before is None or not self._is_usable(key, before):
                raise
            return before
        done, _ = await asyncio.wait({task}, timeout=LOOKUP_S_MAX + 1)
        if not done:
            raise _too_slow(key)
        return task.result()

    def _start(self, key: Key) -> asyncio.Task[Link]:
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= UNDER_WAY_MAX:
                raise PeerUnavailableError(
                    f"{UNDER_WAY_MAX} names are being resolved", hint="try again shortly"
                )
            task = asyncio.get_running_loop().create_task(self._renew(key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return task

    async def _renew(self, key: Key) -> Link:
        """Look a name up, and remember what came of it, be it a failure."""
        before = self.last(key)
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                link = await self._look_up(key)
        except NoDnsLinkError as error:
            link = self._failed(NO_LINK_S, error)
        except LichenError as error:
            link = self._after_failure(key, before, error)
        except TimeoutError:
            link = self._after_failure(key, before, _too_slow(key))
        self._remember(key, link)
        return link

    def _remember(self, key: Key, link: Link) -> None:
        good, bad = self._links, self._failures
        mine, other = (good, bad) if link.error is None else (bad, good)
        self.changes += 1
        other.pop(key, None)
        mine[key] = link
        mine.move_to_end(key)
        while len(mine) > LINKS_MAX:
            mine.popitem(last=False)

    def _after_failure(self, key: Key, before: Link | None, error: LichenError) -> Link:
        """Go on with the last answer while it is usable; else remember the failure shortly."""
        if before is not None and self._is_usable(key, before):
            log.info("an old answer for a name is used", name=str(key), error=error.what)
            until = min(self._clock() + FAILED_S, before.usable_until)
            return msgspec.structs.replace(before, fresh_until=until, ttl_s=int(FAILED_S))
        is_absent = isinstance(error, NameNotResolvedError)
        return self._failed(ABSENT_S if is_absent else FAILED_S, error)

    def _is_usable(self, key: Key, link: Link) -> bool:
        is_over = self._clock() >= link.usable_until
        return link.error is None and not is_over and self._is_current(key, link)

    def _failed(self, remembered_s: float, error: LichenError) -> Link:
        until = self._clock() + remembered_s
        return Link(None, "", until, until + STALE_AT_ONCE_S, error=error)


def _too_slow(key: Key) -> PeerUnavailableError:
    return PeerUnavailableError(
        f"{key} was not resolved within {LOOKUP_S_MAX:.0f} s", hint="try again shortly"
    )
