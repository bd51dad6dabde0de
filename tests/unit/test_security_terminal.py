"""What others wrote cannot steer the terminal, or forge a line, of whoever reads it."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

import pytest
import structlog

from lichen import journal
from lichen.cli import apps, console, failures
from lichen.cli.project import fetch
from lichen.content.blocks import CheckedBlocks
from lichen.content.cid import CID, DAG_PB
from lichen.content.dag_pb import Link, encode
from lichen.content.reader import stat
from lichen.content.unixfs import Kind, UnixFS
from lichen.content.unixfs import encode as encode_unixfs
from lichen.errors import LimitError
from lichen.gateway.api.views import LogLine

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\rroot# "
STEERING = "\x1b\x07\x9b\r"


def _is_tame(text: str) -> bool:
    return not any(letter in text for letter in STEERING)


def test_a_log_line_is_tame_in_all_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    apps._print_line(LogLine(1, "n" + EVIL, "f" + EVIL, "r", "l" + EVIL, "t" + EVIL))
    out = capsys.readouterr().out
    assert _is_tame(out)
    assert out.count("\n") == 1


def test_tables_fields_and_steps_are_tame(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("name",), [(EVIL,)])
    console.fields([("name", EVIL)])
    with console.step(EVIL) as step:
        step.done(EVIL)
    told = capsys.readouterr()
    assert _is_tame(told.out)
    assert _is_tame(told.err)


@pytest.mark.parametrize("text", [EVIL, "fake\n2026-01-01 [info] all is well", "\u202e", "\0"])
def test_a_process_logs_what_others_wrote_escaped(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    journal.configure()
    try:
        structlog.get_logger().warning("refused", why=text.replace(" ", ""))
        structlog.get_logger().error("failed", exc_info=ValueError(text))
    finally:
        structlog.reset_defaults()
    written = stream.getvalue()
    assert all(line.isprintable() for line in written.splitlines())
    assert written.count("[warning") == 1


def _fail(password: str) -> None:
    raise RuntimeError(len(password))


def test_a_saved_traceback_is_for_its_owner_and_holds_no_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        _fail("correct " + "horse" * 2)
    except RuntimeError as error:
        place = failures._save(error)
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o077 == 0
    assert "RuntimeError: 18" in place.read_text()
    assert "horsehorse" not in place.read_text()


def test_folders_within_folders_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder holds the next one twice: 2^40 folders in forty blocks."""
    monkeypatch.setattr(fetch, "FILES_MAX", 50)
    blocks: dict[CID, bytes] = {}
    links: list[Link] = []
    for _ in range(40):
        block = encode(links, encode_unixfs(UnixFS(Kind.DIRECTORY)))
        cid = CID.of(DAG_PB, block)
        blocks[cid] = block
        links = [Link(cid, name, len(block)) for name in ("a", "b")]
    checked = CheckedBlocks(blocks.get)
    with pytest.raises(LimitError, match="50 entries"):
        fetch.write(checked, stat(checked, cid), tmp_path / "out")
    made = sum(1 for _ in itertools.islice((tmp_path / "out").rglob("*"), 100))
    assert made <= 50
