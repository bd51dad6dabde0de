"""The network folder: where everything of a local network is, and what its files say.

.lichen/
profile.toml       how the command line finds the network
genesis.json       its first state
password           opens the keys; readable by its owner only
keys/              the vault: developer, gateway, node-1, ...
ledger/            config.toml and the ledger's data; with validators also ledger-2, ...
node-1/ ...        config.toml and a node's data
gateway/           config.toml and the gateway's data
logs/              one file per process
run/               lock and state of the supervisor
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lichen.errors import CorruptionError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lichen.ledger.types import Genesis

CONFIG_FILE = "config.toml"
HOST = "127.0.0.1"
DEVELOPER = "developer"
GATEWAY = "gateway"
LEDGER = "ledger"
NODES_MAX = 64
VALIDATORS_MAX = 16
PORT_MAX = 65535
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class NetworkFolder(msgspec.Struct, frozen=True):
    """The paths of one network folder."""

    root: Path

    @property
    def genesis(self) -> Path:
        """The first state of the network, as JSON."""
        return self.root / "genesis.json"

    @property
    def password(self) -> Path:
        """The password of all keys of the folder."""
        return self.root / "password"

    @property
    def keys(self) -> Path:
        """The folder of the key vault."""
        return self.root / "keys"

    @property
    def lock(self) -> Path:
        """Held while a supervisor runs."""
        return self.root / "run" / "lock"

    @property
    def state(self) -> Path:
        """What the supervisor started."""
        return self.root / "run" / "state.json"

    def home(self, name: str) -> Path:
        """Return the folder of one process."""
        return self.root / name

    def log(self, name: str) -> Path:
        """Return the log of one process."""
        return self.root / "logs" / f"{name}.log"

    def nodes(self) -> list[str]:
        """Return the names of the nodes, in the order of their numbers."""
        found = (path.parent.name for path in self.root.glob(f"node-*/{CONFIG_FILE}"))
        numbered = [name for name in found if name[5:].isdecimal()]
        return sorted(numbered, key=lambda name: int(name[5:]))

    def ledgers(self) -> list[str]:
        """Return the names of the ledgers: one, or one for each validator."""
        found = (path.parent.name for path in self.root.glob(f"{LEDGER}-*/{CONFIG_FILE}"))
        numbered = [name for name in found if name[len(LEDGER) + 1 :].isdecimal()]
        return [LEDGER, *sorted(numbered, key=lambda name: int(name[len(LEDGER) + 1 :]))]

    def config(self, name: str) -> dict[str, Any]:
        """Read the configuration of one process; raise CorruptionError when it is not TOML."""
        return read_config(self.home(name))

    def url(self, name: str) -> str:
        """Return the address a process serves on."""
        host, port = self.listen(name)
        return f"http://{host}:{port}"

    def listen(self, name: str) -> tuple[str, int]:
        """Return the host and port a process listens on."""
        return listen_of(self.config(name), self.home(name) / CONFIG_FILE)


def read_config(home: Path) -> dict[str, Any]:
    """Read `home/config.toml`; raise an error that names the file."""
    path = home / CONFIG_FILE
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}", hint="check --home") from error
    except ValueError as error:
        raise CorruptionError(f"{path}: {error}", hint="mend that line") from error


def listen_of(config: Mapping[str, object], path: Path) -> tuple[str, int]:
    """Return host and port of a configuration's `listen`; raise an error that names the file."""
    host, _, port = str(config.get("listen", "")).rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise CorruptionError(
            f'{path}: listen is not "host:port"', hint='write, say, listen = "127.0.0.1:8080"'
        )
    return host.strip("[]"), int(port)


def read_genesis(path: Path) -> Genesis:
    """Read a genesis file."""
    from lichen.encoding import from_json
    from lichen.ledger.types import Genesis

    return from_json(path.read_bytes(), Genesis)


def write_config(home: Path, config: Mapping[str, object]) -> None:
    """Write `home/config.toml` in one step; values of None are left out."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_toml(home / CONFIG_FILE, config)


def write_toml(path: Path, values: Mapping[str, object]) -> None:
    """Write a TOML file of strings, integers, booleans, lists of these, and tables of these."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [_line(key, value) for key, value in values.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_line(key, value) for key, value in table.items())]
    write_private(path, "\n".join(line for line in lines if line is not None).lstrip() + "\n")


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file of the owner's alone; whole or not at all, also over a crash."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def _line(key: str, value: object) -> str | None:
    name = key if _BARE_KEY.fullmatch(key) else _spell(key)
    return None if value is None else f"{name} = {_spell(value)}"


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_spell(item) for item in value) + "]"
    return msgspec.json.encode(str(value)).decode()  # a JSON string is a TOML basic string
