"""`lichen gateway`: the HTTP front door."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

app = App(name="gateway", help="Run a gateway.")


@app.command
def run(*, home: Path = Path(".lichen/gateway")) -> None:
    """Serve names, content and functions over HTTP until stopped.

    Parameters
    ----------
    home
        The gateway's folder, with its config.toml.
    """
    from lichen.cli.serve import prepare
    from lichen.gateway.process import serve

    prepare(home.absolute(), "gateway")
    serve(str(home.absolute()))
