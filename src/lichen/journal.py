"""How the long-running processes log: one line an event, to standard output, and never fatally.

A log line that cannot be written (a full disk, a closed pipe) is dropped and counted; what it told
about matters less than the work that goes on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import TextIO


class Writer:
    """Writes lines to a stream; one that fails is dropped, and said as soon as writing works."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.dropped = 0

    def msg(self, message: str) -> None:
        """Write one line."""
        try:
            if self.dropped:
                self._stream.write(f"({self.dropped} lines could not be written)\n")
            self._stream.write(message + "\n")
            self._stream.flush()
            self.dropped = 0
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.dropped += 1

    log = debug = info = warn = warning = error = critical = exception = fatal = failure = msg


def printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Escape control letters in what is logged: some of it was written by others.

    A line can so neither be forged nor steer the terminal that it is read on.
    """
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            parts = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(map(_escaped, parts))
    return event


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def configure() -> None:
    """Set logging up for this process; called once by each long-running command."""
    writer = Writer(sys.stdout)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            printable,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
