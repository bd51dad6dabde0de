"""Moves a tenant's output from its pipe to whoever listens, and never lets it pile up."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from lichen.runtime.logs import (
    WINDOW_MS,
    FloodGauge,
    LineSplitter,
    LogLimiter,
    LogLine,
    dropped_line,
    is_console_line,
    parse_line,
)

READ_BYTES: Final = 64 * 1024
LAST_WORDS_MAX: Final = 5
LAST_WORD_CHARS_MAX: Final = 300
ENGINE_STACK: Final = b"stack: "

LogCallback = Callable[[LogLine], None]


class LogPump:
    """Reads the pipe as it fills; listeners get at most what `LogLimiter` admits.

    Listeners are called from the event loop and must return at once. `on_flood` is called when the
    amount passes all reason. `last_words` are the last lines of the engine itself.
    """

    def __init__(self, descriptor: int, on_flood: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_flood = on_flood
        self._loop = asyncio.get_running_loop()
        self._splitter, self._limiter, self._gauge = LineSplitter(), LogLimiter(), FloodGauge()
        self._listeners: list[LogCallback] = []
        self._timer: asyncio.TimerHandle | None = None
        self._words: list[str] = []
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    @property
    def last_words(self) -> str:
        """The last lines that were no console calls, in one."""
        return " ".join(self._words)

    def listen(self, callback: LogCallback) -> None:
        """Call `callback` with every line from now on."""
        self._listeners.append(callback)

    def close(self) -> None:
        """Read what is left (at most one pipe full), say what was dropped, and stop."""
        if self._descriptor < 0:
            return
        self._read()
        if self._descriptor >= 0:
            self._end()
        if self._limiter.dropped:
            self._tell(dropped_line(self._limiter.dropped, _now_ms()))
            self._limiter.dropped = 0
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        now_ms = _now_ms()
        if self._gauge.add(now_ms, len(data)):
            self._on_flood()
        for raw in self._splitter.feed(data):
            self._take(raw, now_ms)
        if self._limiter.dropped and self._timer is None:
            self._timer = self._loop.call_later(WINDOW_MS / 1000, self._tell_dropped)

    def _take(self, raw: bytes, now_ms: int) -> None:
        if raw.startswith(ENGINE_STACK):
            return  # addresses in the engine: of no use to the function's owner
        if not is_console_line(raw):
            words = parse_line(raw, now_ms).text[:LAST_WORD_CHARS_MAX]
            self._words = [*self._words[1 - LAST_WORDS_MAX :], words]
        if self._limiter.admit(now_ms, len(raw)):
            self._tell(parse_line(raw, now_ms))

    def _tell_dropped(self) -> None:
        self._timer = None
        now_ms = _now_ms()
        if dropped := self._limiter.take_dropped(now_ms):
            self._tell(dropped_line(dropped, now_ms))
        elif self._limiter.dropped:
            self._timer = self._loop.call_later(WINDOW_MS / 1000, self._tell_dropped)

    def _tell(self, line: LogLine) -> None:
        for listener in self._listeners:
            listener(line)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
