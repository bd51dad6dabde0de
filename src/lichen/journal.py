"""How the long-running processes log: one line an event, to standard output, and never fatally.

A log line that cannot be written (a full disk, a closed pipe) is dropped and counted; what it told
about matters less than the work that goes on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
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


def configure() -> None:
    """Set logging up for this process; called once by each long-running command."""
    writer = Writer(sys.stdout)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
