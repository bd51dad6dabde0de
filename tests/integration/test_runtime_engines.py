"""Installing the engines: whole or not at all, once, and clear about what is missing."""

import os
import threading
from pathlib import Path

import pytest

from lichen.runtime import engines
from lichen.runtime.errors import EngineMissingError
from tests.integration.runtime_world import installed_engines


@pytest.fixture
def fake_npm(monkeypatch, tmp_path):
    """Installs links to the real engines, so that no test downloads 170 MB; counts its calls."""
    real = installed_engines()
    calls = []

    def run_npm(arguments, cwd, **_):
        calls.append(arguments)
        assert (Path(cwd) / "package-lock.json").exists()
        for path in (real.workerd, real.esbuild, real.quickjs):
            link = Path(cwd) / path[path.index("node_modules") :]
            link.parent.mkdir(parents=True)
            link.symlink_to(path)

    monkeypatch.setattr(engines, "run_npm", run_npm)
    monkeypatch.setenv("LICHEN_ENGINES", str(tmp_path / "engines"))
    return calls


def test_engines_are_installed_once_under_the_lock_files_hash(fake_npm, tmp_path):
    assert not engines.status().installed
    lines = []
    found = engines.ensure(lines.append)
    assert found.workerd.startswith(str(tmp_path / "engines"))
    assert engines.status().installed
    assert engines.ensure() == found
    assert len(fake_npm) == len(lines) == 1


def test_concurrent_starts_install_once(fake_npm):
    found = []
    threads = [threading.Thread(target=lambda: found.append(engines.ensure())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake_npm) == 1
    assert len(set(found)) == 1


def test_an_install_that_was_cut_short_is_done_again(fake_npm):
    found = engines.ensure()
    os.unlink(found.esbuild)
    assert not engines.status().installed
    assert engines.ensure() == found
    assert len(fake_npm) == 2


def test_without_a_network_the_error_says_so_and_leaves_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setenv("LICHEN_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(EngineMissingError, match="cannot be reached") as caught:
        engines.ensure()
    assert "LICHEN_ENGINES" in caught.value.hint
    assert [p.name for p in (tmp_path / "engines").iterdir()] == ["lock"]


def test_an_unknown_platform_is_named(monkeypatch):
    monkeypatch.setattr(engines.platform, "machine", lambda: "riscv64")
    with pytest.raises(EngineMissingError, match="riscv64"):
        engines.ensure()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LICHEN_ENGINES", str(tmp_path / "file" / "engines"))
    with pytest.raises(EngineMissingError, match="cannot be written"):
        engines.ensure()
