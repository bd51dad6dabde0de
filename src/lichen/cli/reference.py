"""Writing docs/cli.md and docs/lichen.schema.json from the code: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lichen.cli.main import COMMANDS, GLOBAL_FLAGS, build_app

INTRODUCTION = """# The command line

This page is generated from the commands by `make docs`.

"""


def cli_page() -> str:
    """Return the help of all commands as markdown."""
    table = "| command | does |\n|---|---|\n"
    table += "".join(f"| `lichen {name}` | {text} |\n" for _, name, _, text in COMMANDS)
    full = build_app().generate_docs("markdown", heading_level=2, flatten_commands=True)
    full = re.sub(
        r" -m [\w.]+", "", full
    )  # cyclopts takes part of `python -m NAME` for the command
    commands = full[full.index(f"## lichen {COMMANDS[0][1]}\n") :]
    return f"{INTRODUCTION}{GLOBAL_FLAGS}\n\n{table}\n{commands.strip()}\n"


def main(folder: Path) -> None:
    """Write both files."""
    from lichen.cli.project.manifest import json_schema

    (folder / "cli.md").write_text(cli_page(), encoding="utf-8")
    (folder / "lichen.schema.json").write_bytes(json_schema())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
