"""`lichen node`: offer this machine."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

app = App(name="node", help="Offer this machine: run a node and watch it earn.")


@app.command
def run(*, home: Path = Path(".lichen/node-1")) -> None:
    """Run a node until stopped; it registers itself on the ledger when it is new there.

    Parameters
    ----------
    home
        The node's folder, with its config.toml.
    """
    from lichen.cli.serve import prepare
    from lichen.node.process import serve

    prepare(home.absolute(), "node")
    serve(str(home.absolute()))
