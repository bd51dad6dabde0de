"""The bar is for people at a terminal; everybody else gets one line."""

import io

import pytest

from lichen.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_bytes_total_and_speed(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress("store 5 [bytes]") as update:
        update(1 << 20, None)
        for done in (2, 3):
            update(done << 20, 4 << 20)
    shown = terminal.getvalue()
    assert "store 5 [bytes]" in shown
    assert "3.0/4.0 MiB" in shown
    assert "/s" in shown
    assert shown.rstrip().endswith("s\x1b[0m")  # the line of the finished step
    assert capsys.readouterr().out == ""


def test_without_a_terminal_there_is_one_line_and_no_bar(capsys):
    with progress("store") as update:
        update(1, 2)
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("✓ store")


def test_what_fails_is_shown_as_failed(capsys):
    with pytest.raises(ZeroDivisionError), progress("store"):
        1 / 0  # noqa: B018 - something that fails
    assert capsys.readouterr().err.startswith("✗ store")
