"""The five minutes of the README, typed word for word into a shell in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.cli.network.ports import choose_free

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
COMMAND_S_MAX = 120
FOLLOW_S = 3


class Shell:
    """Types lines into bash, in the folder where the line before left off."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.here = folder
        self.port = str(choose_free(1)[0])
        self.words: dict[str, str] = {}

    def type(self, line: str, timeout_s: int = COMMAND_S_MAX) -> str:
        line = line.split("  #")[0].strip()
        line = re.sub(r"\b(RUN|CID)\b", lambda match: self.words[match.group()], line)
        line = line.replace(":8080", f":{self.port}")
        if line == "lichen up --detach":
            line += f" --port {self.port}"
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(self.folder / ".config"),
        }
        done = self._run(line, environment, timeout_s)
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _run(self, line: str, environment: dict, timeout_s: int) -> subprocess.CompletedProcess:
        where = self.folder / ".where"
        done = subprocess.run(
            ["bash", "-c", f"{line}\nstatus=$?; pwd > {where}; exit $status"],
            cwd=self.here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        self.here = Path(where.read_text().strip())
        return done


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8" + bytes(range(256)) * 40)
    shell = Shell(tmp_path)
    yield shell
    shell.type(f"cd {tmp_path} && lichen down")


def _lines(section: str) -> list[str]:
    text = (REPOSITORY / "README.md").read_text()
    part = text.split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_five_minutes_work_as_written(shell: Shell) -> None:
    lines = _lines("Five minutes")
    assert lines[0] == "source .venv/bin/activate"
    for line in lines[1:]:
        if line.startswith("lichen logs hello -f"):
            shell.type(f"timeout {FOLLOW_S} {line} || test $? = 124")
            continue
        if "photo.jpg" in line and line.startswith("lichen"):
            shell.type(f"cp {shell.folder}/photo.jpg . ")
        out = shell.type(line)
        if "--receipt" in line:
            shell.words["RUN"] = json.loads((shell.here / "run.json").read_text())["run"]
        if "storage add" in line:
            shell.words["CID"] = out.split()[0]
        if line.startswith("curl http://hello"):
            assert "Hello from Lichen!" in out
    assert (shell.here / "photo.jpg").read_bytes() == (shell.folder / "photo.jpg").read_bytes()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_to_a_file_of_ours_leads_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (REPOSITORY / page).read_text())
    ours = [target for target in targets if "://" not in target]
    assert ours
    for target in ours:
        assert (REPOSITORY / target).exists(), target
