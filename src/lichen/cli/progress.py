"""A bar for what takes long: on stderr, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from lichen.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bar

DRAWN_PER_S = 8


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show bytes done, of how many where that is known, and their speed; then a line as of a step.

    Gives the function that is told `(done, total)`. Without a terminal only the line comes.
    """
    if not sys.stderr.isatty():
        with console.step(text):
            yield _ignore
        return
    started_s = time.monotonic()
    with _bar() as bar:
        task = bar.add_task(text, total=None)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield update
    console.finished(text, time.monotonic() - started_s)


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(file=sys.stderr),
        transient=True,
        refresh_per_second=DRAWN_PER_S,
    )


def _ignore(_done: int, _total: int | None) -> None:
    return
