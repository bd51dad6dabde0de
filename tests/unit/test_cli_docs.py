"""The generated pages are those of the code."""

from __future__ import annotations

from pathlib import Path

from lichen.cli import reference
from lichen.cli.main import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_of_the_command_line_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference.cli_page(), "run: make docs"


def test_every_command_stands_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    for _, name, _, _ in COMMANDS:
        assert f"\n## lichen {name}\n" in text
