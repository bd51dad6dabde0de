"""Kubo's importer: its answers to cases, from a repository of its own, offline."""

import os
import subprocess

from tests.conformance.unixfs_cases import write
from tests.interop.world import find_kubo

COMMAND_S_MAX = 180


class Kubo:
    """A repository with one import profile; only hashes are asked for."""

    def __init__(self, home, profile):
        self._program = find_kubo()
        self._environment = {**os.environ, "IPFS_PATH": str(home), "IPFS_TELEMETRY": "off"}
        self._run("init", "--empty-repo", "--profile", "test")
        self._run("config", "profile", "apply", profile)

    def root_of(self, path):
        return self._run("add", "--offline", "-Q", "-r", "-n", "--hidden", str(path)).strip()

    def roots_of(self, cases, folder):
        """Return the root CID of each case; one process adds them all."""
        tops = {}
        for number, (name, entries) in enumerate(cases.items()):
            top = folder / f"case-{number}"
            os.rename(write(entries, folder), top)
            tops[top.name] = name
        paths = [str(folder / top) for top in tops]
        said = self._run("add", "--offline", "-r", "-n", "--hidden", *paths)
        added = (line.split(" ", 2) for line in said.splitlines() if line.startswith("added "))
        return {tops[name]: cid for _, cid, name in added if name in tops}

    def _run(self, *arguments):
        done = subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
