"""`lichen ledger`: the process that orders transactions."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from lichen.cli import console

app = App(name="ledger", help="Run the ledger.")


@app.command
def init(
    genesis: Path, /, *, home: Path = Path(".lichen/ledger"), listen: str = "127.0.0.1:8750"
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
    """
    from lichen.cli.network.folder import listen_of, read_genesis, write_config
    from lichen.ledger.engine import create
    from lichen.ledger.types import check_genesis, network_id

    first = read_genesis(genesis)
    check_genesis(first)
    listen_of({"listen": listen}, Path("--listen"))
    create(home.absolute(), first)
    write_config(home.absolute(), {"listen": listen})
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
    from lichen.cli.serve import prepare
    from lichen.ledger.server import serve

    host, port = prepare(home.absolute(), "ledger")
    serve(home.absolute(), host, port)
