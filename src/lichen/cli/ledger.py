"""`lichen ledger`: the process that orders transactions."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cyclopts import App

from lichen.cli import console
from lichen.errors import UserError

app = App(name="ledger", help="Run the ledger.")


class LedgerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ledger's settings: `key` names the sequencer's key in the vault folder `keys`."""

    listen: str
    key: str | None = None
    keys: str = "keys"
    password_file: str | None = None


@app.command
def init(
    genesis: Path,
    /,
    *,
    home: Path = Path(".lichen/ledger"),
    listen: str = "127.0.0.1:8750",
    key: str | None = None,
    keys: Path = Path("keys"),
    password_file: Path | None = None,
) -> None:
    """Make a ledger's folder from a genesis file.

    Parameters
    ----------
    genesis
        The network's first state, as JSON.
    home
        The folder to make.
    listen
        Host and port to serve on.
    key
        The name of the key that signs blocks: the sequencer's, where the genesis names one.
    keys
        The vault folder that has it.
    password_file
        The file with its password; else LICHEN_PASSWORD or a question.
    """
    from lichen.cli.network.folder import listen_of, read_genesis, write_config
    from lichen.ledger.engine import create
    from lichen.ledger.types import check_genesis, network_id

    first = read_genesis(genesis)
    check_genesis(first)
    listen_of({"listen": listen}, Path("--listen"))
    if first.sequencer is not None and key is None:
        raise UserError(
            "this genesis names a sequencer, whose key signs every block",
            hint="name it: --key NAME --keys FOLDER",
        )
    create(home.absolute(), first)
    signing = {"key": key, "keys": str(keys.absolute()), "password_file": _text(password_file)}
    write_config(home.absolute(), {"listen": listen, **(signing if key else {})})
    network = network_id(first).hex()
    console.emit({"network": network, "home": str(home)}, lambda: print(f"network {network}"))


@app.command
def run(*, home: Path = Path(".lichen/ledger")) -> None:
    """Order transactions and serve blocks until stopped.

    Parameters
    ----------
    home
        The ledger's folder, with its config.toml.
    """
    from lichen.cli.network.folder import read_config
    from lichen.cli.serve import prepare
    from lichen.encoding import convert
    from lichen.identity.passwords import find_password
    from lichen.identity.vault import Vault
    from lichen.ledger.server import serve

    folder = home.absolute()
    config = convert(read_config(folder), LedgerConfig)
    host, port = prepare(folder, "ledger")
    key = None
    if config.key is not None:
        file = folder / config.password_file if config.password_file else None
        key = Vault(folder / config.keys).unlock(config.key, find_password(file=file))
    serve(folder, host, port, key)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
