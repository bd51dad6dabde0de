"""What people and scripts read: data on stdout, everything said on the way on stderr.

A step is one line with a check mark and its seconds. With `--json` stdout carries JSON alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from lichen.cli import options
from lichen.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FRAMED_ROWS_MAX = 1_000
CLEAR_LINE = "\r\x1b[2K"
_GREEN, _RED, _DIM, _RESET = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def say(text: str = "") -> None:
    """Write a line of chatter to stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(data: object, human: Callable[[], None]) -> None:
    """Write the command's result: JSON of `data` with `--json`, else whatever `human` prints."""
    if options.current().json:
        sys.stdout.write(msgspec.json.format(to_json(data), indent=2).decode() + "\n")
    else:
        human()
    sys.stdout.flush()


def emit_line(data: object, human: str) -> None:
    """Write one item of a stream: a JSON line with `--json`, else the text."""
    sys.stdout.write((to_json(data).decode() if options.current().json else clean(human)) + "\n")
    sys.stdout.flush()


class Step:
    """A step under way; `done` replaces its text for the final line."""

    def __init__(self, text: str) -> None:
        self.text = text

    def done(self, text: str) -> None:
        """Set what the finished line says."""
        self.text = text


@contextlib.contextmanager
def step(text: str) -> Iterator[Step]:
    """Show a step: on a terminal while it runs, everywhere when it ends, with its seconds."""
    under_way = Step(text)
    started_s = time.monotonic()
    if sys.stderr.isatty():
        sys.stderr.write(f"{_DIM}  {text} ...{_RESET}")
        sys.stderr.flush()
    try:
        yield under_way
    except BaseException:
        _finish(under_way.text, time.monotonic() - started_s, good=False)
        raise
    _finish(under_way.text, time.monotonic() - started_s, good=True)


def finished(text: str, seconds: float) -> None:
    """Show a step that another process finished."""
    _finish(text, seconds, good=True)


def _finish(text: str, seconds: float, *, good: bool) -> None:
    text = clean(text)
    mark, colour = ("✓", _GREEN) if good else ("✗", _RED)
    if sys.stderr.isatty():
        say(f"{CLEAR_LINE}{colour}{mark}{_RESET} {text} {_DIM}{seconds:.1f} s{_RESET}")
    else:
        say(f"{mark} {text}  {seconds:.1f} s")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table to stdout; cells whose column name starts with `>` are set to the right.

    Where stdout is no terminal the table is as wide as it needs to be, so that no cell is cut. One
    of FRAMED_ROWS_MAX rows and more comes as aligned text: drawing it would take longer than all
    the rest.
    """
    if len(rows) > FRAMED_ROWS_MAX:
        _plain_table(columns, rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        grid.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_escape(clean(str(cell))) for cell in row))
    width = None if sys.stdout.isatty() else 240
    Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False).print(grid)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.cells import cell_len

    heads = [column.lstrip(">") for column in columns]
    lines = [heads, *([clean(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        cells = []
        for column, cell, width in zip(columns, line, widths, strict=True):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if column.startswith(">") else cell + space)
        print("  ".join(cells).rstrip())


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"{name:<{width}}  {clean(str(value))}")


def clean(text: str, length_max: int = 4096) -> str:
    """Return text from outside without control letters, so that it cannot steer a terminal."""
    cut = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return "".join(letter if letter.isprintable() or letter == "\t" else "�" for letter in cut)
