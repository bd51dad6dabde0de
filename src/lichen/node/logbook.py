"""What functions wrote: the newest lines of each app, and followers that get every further one.

Bounded everywhere: lines per app, apps, followers, and each follower's queue; one that reads too
slowly is told how many lines it missed.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING

import msgspec

from lichen.errors import LimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lichen.runtime.logs import LogLine

LINES_PER_APP_MAX = 2000
APPS_MAX = 1000
FOLLOWERS_MAX = 64
QUEUE_LINES_MAX = 1000


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line as owners see it. `time_ms` is since 1970; `run` is the run it was written in."""

    time_ms: int
    app: str
    function: str
    level: str
    text: str
    run: str | None = None


class Follower:
    """One reader of one app's lines."""

    __slots__ = ("app", "missed", "queue")

    def __init__(self, app: str) -> None:
        self.app = app
        self.missed = 0
        self.queue: asyncio.Queue[Entry] = asyncio.Queue(QUEUE_LINES_MAX)


class Logbook:
    """The lines of all apps on this node."""

    def __init__(self) -> None:
        self._lines: collections.OrderedDict[str, collections.deque[Entry]]
        self._lines = collections.OrderedDict()
        self._followers: set[Follower] = set()

    def write(self, function: str, line: LogLine) -> None:
        """Add a line that a function (`app/release/name`) wrote."""
        app, _, name = function.split("/", 2)
        entry = Entry(line.time_ms, app, name, line.level, line.text, line.run)
        lines = self._lines.get(app)
        if lines is None:
            while len(self._lines) >= APPS_MAX:
                self._lines.popitem(last=False)
            lines = self._lines[app] = collections.deque(maxlen=LINES_PER_APP_MAX)
        lines.append(entry)
        for follower in self._followers:
            if follower.app == app:
                _offer(follower, entry)

    def lines(self, app: str) -> list[Entry]:
        """Return the kept lines of an app, oldest first."""
        return list(self._lines.get(app, ()))

    async def follow(self, app: str) -> AsyncIterator[Entry]:
        """Yield the kept lines, then every further one."""
        if len(self._followers) >= FOLLOWERS_MAX:
            raise LimitError(
                f"{FOLLOWERS_MAX} readers follow logs here already", hint="try again later"
            )
        follower = Follower(app)
        kept = self.lines(app)
        self._followers.add(follower)
        try:
            for entry in kept:
                yield entry
            while True:
                entry = await follower.queue.get()
                if follower.missed:
                    text = f"{follower.missed} lines were missed: the reader is too slow"
                    yield Entry(entry.time_ms, app, entry.function, "warn", text)
                    follower.missed = 0
                yield entry
        finally:
            self._followers.discard(follower)


def _offer(follower: Follower, entry: Entry) -> None:
    try:
        follower.queue.put_nowait(entry)
    except asyncio.QueueFull:
        follower.missed += 1
