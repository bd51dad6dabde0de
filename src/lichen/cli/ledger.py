"""`lichen ledger`: the process that orders transactions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from lichen.cli import console
from lichen.cli.proofs import check, prove
from lichen.errors import UserError
from lichen.ledger.comet.files import Settings

if TYPE_CHECKING:
    from lichen.ledger.types import Genesis

app = App(name="ledger", help="Run the ledger, or prove what stands in it.")


class EngineKind(StrEnum):
    """Who orders transactions: this process alone, or several operators with CometBFT."""

    EMBEDDED = "embedded"
    COMETBFT = "cometbft"


class LedgerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ledger's settings: `key` names the sequencer's key in the vault folder `keys`.

    With the engine `cometbft` there is no such key, but a table of settings for CometBFT.
    """

    listen: str
    engine: EngineKind = EngineKind.EMBEDDED
    key: str | None = None
    keys: str = "keys"
    password_file: str | None = None
    cometbft: Settings | None = None


@app.command
def init(
    genesis: Path,
    /,
    *,
    home: Path = Path(".lichen/ledger"),
    listen: str = "127.0.0.1:8750",
    engine: EngineKind = EngineKind.EMBEDDED,
    key: str | None = None,
    keys: Path = Path("keys"),
    password_file: Path | None = None,
    p2p: str = "0.0.0.0:26656",
    peer: tuple[str, ...] = (),
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
    engine
        embedded: this process orders alone. cometbft: the genesis's validators agree.
    key
        The name of the key that signs blocks: the sequencer's, where the genesis names one.
    keys
        The vault folder that has it.
    password_file
        The file with its password; else LICHEN_PASSWORD or a question.
    p2p
        Where other validators connect to (cometbft).
    peer
        Another validator, as ID@HOST:PORT; may be repeated (cometbft).
    """
    from lichen.cli.network.folder import listen_of, read_genesis, write_config
    from lichen.ledger.engine import create
    from lichen.ledger.types import check_genesis, network_id

    first = read_genesis(genesis)
    check_genesis(first)
    listen_of({"listen": listen}, Path("--listen"))
    config: dict[str, object]
    if engine is EngineKind.COMETBFT:
        config = _comet_config(first, home.absolute(), p2p, peer)
    else:
        if first.sequencer is not None and key is None:
            raise UserError(
                "this genesis names a sequencer, whose key signs every block",
                hint="name it: --key NAME --keys FOLDER",
            )
        signing = {"key": key, "keys": str(keys.absolute()), "password_file": _text(password_file)}
        config = dict(signing) if key else {}
    create(home.absolute(), first)
    write_config(home.absolute(), {"listen": listen, **config})
    network = network_id(first).hex()
    console.emit({"network": network, "home": str(home)}, lambda: print(f"network {network}"))


@app.command
def validator(*, home: Path = Path(".lichen/ledger")) -> None:
    """Show who this ledger is among validators; its keys are made on first use.

    The validator's key goes into the genesis, the peer id, with @HOST:PORT, to the others.

    Parameters
    ----------
    home
        The ledger's folder.
    """
    from lichen.ledger.comet.files import ensure_keys

    keys = ensure_keys(home.absolute())
    data = {"validator": keys.validator.to_wire(), "peer": keys.peer_id}
    console.emit(data, lambda: console.fields(list(data.items())))


@app.command
def setup() -> None:
    """Install CometBFT, which several operators agree by. Takes Go, and some minutes once."""
    from lichen.ledger.comet import binary

    with console.step("install CometBFT") as step:
        path = binary.install(console.say)
        step.done(f"CometBFT is {path}")
    console.emit({"cometbft": str(path)}, lambda: None)


@app.command
def run(*, home: Path = Path(".lichen/ledger"), engine: EngineKind | None = None) -> None:
    """Order transactions and serve blocks until stopped.

    Parameters
    ----------
    home
        The ledger's folder, with its config.toml.
    engine
        The engine that the folder was made for; without it, what config.toml says.
    """
    from lichen.cli.network.folder import read_config
    from lichen.cli.serve import prepare
    from lichen.encoding import convert

    folder = home.absolute()
    config = convert(read_config(folder), LedgerConfig)
    if engine is not None and engine is not config.engine:
        raise UserError(
            f"the folder {home} was made for the engine {config.engine}",
            hint=f"make one for this engine: lichen ledger init --engine {engine}",
        )
    host, port = prepare(folder, "ledger")
    if config.engine is EngineKind.COMETBFT:
        _run_cometbft(folder, config, host, port)
    else:
        _run_embedded(folder, config, host, port)


app.command(prove)
app.command(check)


def _run_embedded(folder: Path, config: LedgerConfig, host: str, port: int) -> None:
    from lichen.identity.passwords import find_password
    from lichen.identity.vault import Vault
    from lichen.ledger.server import serve

    key = None
    if config.key is not None:
        file = folder / config.password_file if config.password_file else None
        key = Vault(folder / config.keys).unlock(config.key, find_password(file=file))
    serve(folder, host, port, key)


def _run_cometbft(folder: Path, config: LedgerConfig, host: str, port: int) -> None:
    from lichen.cli.network.ports import require_free
    from lichen.ledger.comet.engine import CometEngine
    from lichen.ledger.comet.files import check_settings
    from lichen.ledger.server import serve_engine

    settings = config.cometbft
    if settings is None:
        raise UserError(
            f"{folder}/config.toml has no table [cometbft]", hint='add it, with p2p = "HOST:PORT"'
        )
    check_settings(settings)
    p2p_host, _, p2p_port = settings.p2p.rpartition(":")
    remedy = f"stop what listens there, or change p2p in {folder}/config.toml"
    require_free(p2p_host, int(p2p_port), who="CometBFT", remedy=remedy)
    serve_engine(lambda: CometEngine(folder, settings), host, port)


def _comet_config(
    genesis: Genesis, home: Path, p2p: str, peers: tuple[str, ...]
) -> dict[str, object]:
    """Check what CometBFT is told, make its keys, and return the part of the configuration."""
    from lichen.ledger.comet.files import check_settings, ensure_keys, genesis_document

    check_settings(Settings(p2p, peers))
    genesis_document(genesis)
    own = ensure_keys(home).validator
    if all(one.key != own for one in genesis.validators):
        console.say("the genesis does not name this validator: it follows, and has no vote")
    return {"engine": "cometbft", "cometbft": {"p2p": p2p, "peers": list(peers)}}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
