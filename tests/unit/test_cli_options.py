"""Global flags, exit codes and the two lines that an error prints."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from lichen.cli import failures, main, options
from lichen.errors import (
    LedgerError,
    LimitError,
    MachineError,
    PeerError,
    PeerUnavailableError,
    UserError,
    VerificationError,
)


@pytest.fixture(autouse=True)
def plain_options(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LICHEN_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    options.use(options.Options())
    yield
    options.use(options.Options())


def divide_by_zero() -> float:
    return 1 / 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a"), 1),
        (LimitError("a"), 1),
        (LedgerError("a"), 1),
        (MachineError("a"), 1),
        (options.UsageError("a"), 2),
        (PeerError("a"), 3),
        (PeerUnavailableError("a"), 3),
        (VerificationError("a"), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a"), 1),
    ],
)
def test_the_kind_of_error_decides_the_exit_code(error, code):
    assert failures.report(error) == code


def test_an_error_is_two_lines_what_and_what_to_do(capsys):
    failures.report(UserError("port 80 is taken", hint="choose another"))
    captured = capsys.readouterr()
    assert captured.err == "error: port 80 is taken\n   do: choose another\n"
    assert captured.out == ""


def test_with_json_an_error_is_an_object_on_stderr(capsys):
    options.use(options.Options(json=True))
    failures.report(UserError("no", hint="yes"))
    captured = capsys.readouterr()
    assert json.loads(captured.err) == {"error": "bad-request", "what": "no", "hint": "yes"}
    assert captured.out == ""


def test_text_from_outside_cannot_steer_the_terminal(capsys):
    failures.report(PeerError("\x1b[2Jgone\nforged: line", hint="\x07"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "\x1b" not in lines[0]


def test_an_unexpected_error_saves_its_traceback_and_says_where(capsys, tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        divide_by_zero()
    assert failures.report(caught.value) == 1
    saved = list((tmp_path / "state" / "lichen").glob("traceback-*.txt"))
    assert len(saved) == 1
    assert "in divide_by_zero" in saved[0].read_text()
    assert saved[0].stat().st_mode & 0o077 == 0
    shown = capsys.readouterr().err
    assert str(saved[0]) in shown
    assert "Traceback" not in shown


def test_saved_tracebacks_are_bounded(tmp_path):
    for _ in range(failures.TRACEBACKS_MAX + 5):
        failures.report(ZeroDivisionError("x"))
    kept = list((tmp_path / "state" / "lichen").glob("traceback-*.txt"))
    assert len(kept) == failures.TRACEBACKS_MAX


def test_debug_shows_the_traceback(capsys):
    options.use(options.Options(debug=True))
    failures.report(UserError("what", hint="do"))
    assert "UserError: what" in capsys.readouterr().err


def test_a_full_disk_is_explained(capsys):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data.mdb")
    assert failures.report(error) == 1
    assert "the disk is full: data.mdb" in capsys.readouterr().err


def test_global_flags_stand_anywhere_before_the_double_dash():
    chosen, rest = options.take(
        ["ls", "--json", "--profile", "p", "--config=c.toml", "x", "--", "--json"]
    )
    assert chosen.json
    assert chosen.profile == "p"
    assert str(chosen.config) == "c.toml"
    assert rest == ["ls", "x", "--", "--json"]


@pytest.mark.parametrize(
    "arguments",
    [["deplyo"], ["account", "sow"], ["init", "--tempalte", "x"], ["verify"], ["ls", "--config"]],
)
def test_a_wrong_command_line_exits_2_with_a_hint(arguments, capsys):
    assert main.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "   do: " in captured.err
    assert captured.out == ""


def test_a_misspelt_command_names_the_one_that_was_meant(capsys):
    main.main(["deplyo"])
    assert 'Did you mean "deploy"' in capsys.readouterr().err


def test_every_command_of_the_table_can_be_imported_and_shows_its_help(capsys):
    for _, name, _, _ in main.COMMANDS:
        assert main.main([name, "--help"]) == 0
        assert f"Usage: lichen {name}" in capsys.readouterr().out


def test_the_version_needs_no_heavy_import():
    code = "import sys; from lichen.cli.main import main; main(['--version']); print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    loaded = set(output.split())
    assert output.startswith("lichen ")
    assert not loaded & {"cyclopts", "rich", "msgspec", "asyncio", "cryptography"}


def test_without_a_network_the_command_says_how_to_start_one(capsys):
    assert main.main(["ls"]) == 1
    assert "lichen up" in capsys.readouterr().err
