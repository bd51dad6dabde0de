"""Who may read what `lichen up` writes."""

import os
import socket
from pathlib import Path

import pytest

from lichen.cli.network.create import Faults, create
from lichen.cli.network.folder import write_private
from lichen.gateway.config import load_gateway_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = os.umask(0)  # the least careful user there is
    try:
        folder = tmp_path_factory.mktemp("network") / ".lichen"
        return create(folder, nodes=2, port=18080, faults=Faults()).root
    finally:
        os.umask(before)


def test_others_cannot_enter_a_network_folder(root: Path) -> None:
    assert root.stat().st_mode & 0o777 == 0o700


def test_keys_password_and_configurations_are_their_owners_alone(root: Path) -> None:
    secret = [root / "password", root / "profile.toml", *root.glob("keys/*"),
              *root.glob("*/config.toml")]  # fmt: skip
    assert len(secret) >= 2 + 4 + 4
    for path in secret:
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert (root / "keys").stat().st_mode & 0o777 == 0o700


def test_no_file_holds_a_key_or_the_password_in_clear(root: Path) -> None:
    password = (root / "password").read_text().strip()
    for path in root.rglob("*"):
        if path.is_file() and path != root / "password":
            assert password.encode() not in path.read_bytes(), path


def test_a_private_file_is_private_from_its_first_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_a_local_network_dials_private_addresses(root: Path) -> None:
    assert load_gateway_config(str(root / "gateway")).private_nodes
    text = (root / "gateway" / "config.toml").read_text().replace("private_nodes = true\n", "")
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    write_private(elsewhere / "config.toml", text)
    assert not load_gateway_config(str(elsewhere)).private_nodes


def test_a_local_network_listens_on_loopback_alone(root: Path) -> None:
    for path in root.glob("*/config.toml"):
        listen = next(x for x in path.read_text().splitlines() if x.startswith("listen"))
        host = listen.split('"')[1].rpartition(":")[0]
        assert socket.inet_aton(host)[0] == 127
