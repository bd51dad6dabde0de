"""Probing for sandboxes that are absent, broken, hanging or lying."""

import time

import pytest

from lichen.runtime import probe
from lichen.runtime.sandbox import NoSandbox


@pytest.fixture
def bwrap(monkeypatch, tmp_path):
    """Puts a script of that name first in PATH."""

    def install(script):
        path = tmp_path / "bwrap"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        tmp_path.chmod(0o755)
        monkeypatch.setattr(probe, "find_bwrap", lambda: str(path))
        # The job drops to a uid that may not look into pytest's own folder.
        monkeypatch.setattr("lichen.runtime.bwrap.os.geteuid", lambda: 1000)

    return install


def test_without_bubblewrap_the_tier_is_missing_and_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    (tier,) = probe.tiers()
    assert not tier.available
    assert tier.reason == "bubblewrap is not installed"
    assert "apt-get install bubblewrap" in tier.mend
    assert isinstance(probe.detect().sandbox, NoSandbox)


def test_a_bubblewrap_that_fails_is_reported_with_its_own_words(bwrap):
    bwrap("echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    (tier,) = probe.tiers()
    assert not tier.available
    assert "No permissions to create new namespace" in tier.reason
    assert "unprivileged" in tier.mend


def test_a_bubblewrap_that_hangs_is_killed_in_time(bwrap, monkeypatch):
    monkeypatch.setattr(probe, "PROBE_S_MAX", 0.3)
    bwrap("exec sleep 60")
    began = time.monotonic()
    (tier,) = probe.tiers()
    assert not tier.available
    assert "hung" in tier.reason
    assert time.monotonic() - began < 5


def test_a_bubblewrap_that_confines_nothing_is_not_believed(bwrap):
    bwrap("cat /proc/self/status")
    (tier,) = probe.tiers()
    assert not tier.available
    assert "not confined" in tier.reason
