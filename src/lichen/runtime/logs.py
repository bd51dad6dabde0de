"""Console output: from a pipe that the tenant fills to lines that its owner reads, bounded.

workerd writes one JSON object per console call (structured logging); engines' own last words come
as plain text on the same pipe. Tenants are not trusted with the amount: beyond a rate, lines are
dropped and counted; beyond a flood, the process is killed by whoever owns the pipe.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

LINE_BYTES_MAX = 64 * 1024
TEXT_CHARS_MAX = 16 * 1024
RUN_CHARS_MAX = 128
WINDOW_MS = 1000
LINES_PER_WINDOW_MAX = 500
BYTES_PER_WINDOW_MAX = 512 * 1024
FLOOD_BYTES_MAX = 64 * 2**20
FLOOD_WINDOW_MS = 10_000

LogLevel = Literal["debug", "info", "log", "warn", "error"]

_LEVELS: dict[str, LogLevel] = {
    "debug": "debug",
    "info": "info",
    "log": "log",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
}
_STAMP = b'{"timestamp":'
_MARK = "\u0001"
_ESCAPE_BYTES_MAX = len(r"\u1234")
_INNER_FRAME = re.compile(r"\n +at [^\n]*lichen-entry\.js[^\n]*")


class LogLine(msgspec.Struct, frozen=True):
    """One console call. `time_ms` since 1970; `run` is the run it belongs to, as the code says."""

    level: LogLevel
    text: str
    time_ms: int
    run: str | None = None


class _Entry(msgspec.Struct):
    """A line of workerd's structured log."""

    level: str = "error"
    message: str = ""
    timestamp: int | str = 0


_decoder = msgspec.json.Decoder(_Entry)


class LineSplitter:
    """Cuts a byte stream into lines, keeping at most LINE_BYTES_MAX of each."""

    __slots__ = ("_head", "_skipping")

    def __init__(self) -> None:
        self._head = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes; a line over the bound is cut at the bound."""
        *whole, rest = data.split(b"\n")
        lines: list[bytes] = []
        for piece in whole:
            self._append(piece)
            if self._head:
                lines.append(self._head)
            self._head, self._skipping = b"", False
        self._append(rest)
        return lines

    def _append(self, piece: bytes) -> None:
        if self._skipping:
            return
        room = LINE_BYTES_MAX - len(self._head)
        self._skipping = len(piece) > room
        self._head += piece[:room]


class LogLimiter:
    """Admits a bounded number of lines and bytes per second and counts what it drops."""

    __slots__ = ("_bytes", "_lines", "_window_ms", "dropped")

    def __init__(self) -> None:
        self._window_ms = 0
        self._lines = self._bytes = 0
        self.dropped = 0

    def admit(self, now_ms: int, size_bytes: int) -> bool:
        """Return whether a line of this size may pass now."""
        self._turn(now_ms)
        if self.exhausted(now_ms) or self._bytes + size_bytes > BYTES_PER_WINDOW_MAX:
            self.dropped += 1
            return False
        self._lines += 1
        self._bytes += size_bytes
        return True

    def exhausted(self, now_ms: int) -> bool:
        """Return whether nothing more passes in this window."""
        self._turn(now_ms)
        return self._lines >= LINES_PER_WINDOW_MAX or self._bytes >= BYTES_PER_WINDOW_MAX

    def take_dropped(self, now_ms: int) -> int:
        """Return the number of lines dropped in windows that are over, once."""
        if now_ms < self._window_ms + WINDOW_MS:
            return 0
        dropped, self.dropped = self.dropped, 0
        return dropped

    def _turn(self, now_ms: int) -> None:
        if now_ms >= self._window_ms + WINDOW_MS:
            self._window_ms, self._lines, self._bytes = now_ms, 0, 0


class FloodGauge:
    """Tells noise from a flood: more than FLOOD_BYTES_MAX within FLOOD_WINDOW_MS."""

    __slots__ = ("_bytes", "_since_ms")

    def __init__(self) -> None:
        self._since_ms = self._bytes = 0

    def add(self, now_ms: int, size_bytes: int) -> bool:
        """Count bytes; return whether this has become a flood."""
        if now_ms >= self._since_ms + FLOOD_WINDOW_MS:
            self._since_ms, self._bytes = now_ms, 0
        self._bytes += size_bytes
        return self._bytes > FLOOD_BYTES_MAX


def dropped_line(dropped: int, now_ms: int) -> LogLine:
    """Return the line that stands for those that were dropped."""
    return LogLine("warn", f"{dropped} lines dropped: too much log output", now_ms)


def is_console_line(raw: bytes) -> bool:
    """Tell a console call from what the engine itself says, whose time is no number or absent."""
    return raw.startswith(_STAMP) and raw[len(_STAMP) : len(_STAMP) + 1].isdigit()


def parse_line(raw: bytes, now_ms: int) -> LogLine:
    """Read one line of workerd's output; whatever it is, it becomes a line."""
    entry = _decode(raw)
    if entry is None:
        return LogLine("error", cut_text(raw.decode("utf-8", "replace")), now_ms)
    run, text = _split_mark(entry.message)
    stamp = entry.timestamp
    time_ms = stamp if isinstance(stamp, int) and stamp > 0 else now_ms
    text = _INNER_FRAME.sub("", text)
    return LogLine(level_of(entry.level), cut_text(text), time_ms, run)


def _decode(raw: bytes) -> _Entry | None:
    if not raw.startswith(_STAMP):
        return None
    if entry := _try_decode(raw):
        return entry
    if len(raw) < LINE_BYTES_MAX:
        return None
    # The splitter cut it: drop what may be half a character or escape, close string and object.
    tries = (raw[: len(raw) - cut] + b'"}' for cut in range(_ESCAPE_BYTES_MAX))
    return next((entry for text in tries if (entry := _try_decode(text))), None)


def _try_decode(raw: bytes) -> _Entry | None:
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _split_mark(message: str) -> tuple[str | None, str]:
    if not message.startswith(_MARK):
        return None, message
    run, found, text = message[1:].partition(_MARK)
    if not found or not 0 < len(run) <= RUN_CHARS_MAX:
        return None, message
    return run, text.removeprefix(f"{_MARK} ")


def level_of(name: str) -> LogLevel:
    """Return the level that a console method names; what is unknown is an error."""
    return _LEVELS.get(name, "error")


def cut_text(text: str) -> str:
    """Return at most TEXT_CHARS_MAX of a line, saying how much is missing."""
    if len(text) <= TEXT_CHARS_MAX:
        return text
    return f"{text[:TEXT_CHARS_MAX]} ... ({len(text) - TEXT_CHARS_MAX} characters cut)"
