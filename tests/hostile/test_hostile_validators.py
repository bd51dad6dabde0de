"""Validators in a storm, for LICHEN_CHAOS_MINUTES (2): see `validators_chaos`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from lichen.ledger.comet import binary

MINUTES = float(os.environ.get("LICHEN_CHAOS_MINUTES", "2"))
SETTLING_S_MAX = 600


def test_validators_agree_and_lose_nothing_whatever_is_done_to_one_of_them():
    if binary.find() is None:
        pytest.skip("CometBFT is not here: make cometbft")
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        pytest.skip("network namespaces take root, and ip, unshare and nsenter")
    command = ["-m", "tests.hostile.validators_chaos", "--minutes", str(MINUTES)]
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-u", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MINUTES + SETTLING_S_MAX,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
