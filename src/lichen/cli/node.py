"""`lichen node`: offer this machine."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from lichen.cli import connect, console, keys
from lichen.cli import profile as profiles

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


@app.command
def status(name: str = "", /) -> None:
    """Show the nodes of the network, or one of them: reachable, load, stake.

    Parameters
    ----------
    name
        A key's name or an address; all nodes without it.
    """
    profile = profiles.current()
    with connect.reader(profile) as client:
        found = [client.node(keys.resolve(profile, name))] if name else list(client.nodes())
    rows = [
        (
            view.node.address,
            view.node.status.value,
            "yes" if view.reachable else "no",
            view.in_flight,
            f"{view.latency_ms} ms",
            view.failures,
            connect.flk(view.node.stake),
            view.node.endpoint,
        )
        for view in found
    ]
    columns = (
        "node", "status", "reachable", ">in flight", ">latency", ">failures", ">stake", "endpoint",
    )  # fmt: skip
    console.emit(found, lambda: console.table(columns, rows))


@app.command
def earnings(name: str = "", /) -> None:
    """Show what nodes have earned: settled on the ledger, and receipts behind it.

    Parameters
    ----------
    name
        A key's name or an address; all nodes without it.
    """
    from lichen.cli.earnings import earned_by

    profile = profiles.current()
    with connect.reader(profile) as client:
        nodes = [client.node(keys.resolve(profile, name))] if name else list(client.nodes())
        found = [earned_by(client, view.node.address) for view in nodes]
    rows = [
        (
            each.node,
            connect.flk(each.day),
            connect.flk(each.week),
            connect.flk(each.total),
            each.receipts,
            each.epochs,
        )
        for each in found
    ]
    columns = ("node", ">24 h", ">7 days", ">in all", ">receipts", ">epochs")
    console.emit(found, lambda: console.table(columns, rows))


@app.command
def doctor() -> None:
    """Say what this machine can offer, tier by tier, and how to mend the rest."""
    from lichen.cli.doctor import doctor as examine

    examine()


@app.command
def init(
    name: str = "node",
    /,
    *,
    ledger: str,
    endpoint: str,
    listen: str = "0.0.0.0:8770",
    home: Path | None = None,
) -> None:
    """Make the folder of a node that joins a network: its key and its config.toml.

    Parameters
    ----------
    name
        What to call the node's key.
    ledger
        The URL of the network's ledger.
    endpoint
        The URL at which others reach this node.
    listen
        Host and port to serve on.
    home
        The folder to make; ./NAME without it.
    """
    from lichen.cli.join import make_home

    folder = (home or Path(name)).absolute()
    address = make_home(folder, name, ledger=ledger, endpoint=endpoint, listen=listen)
    data = {"home": str(folder), "address": address}
    console.emit(
        data,
        lambda: print(
            f"node {address} is ready. Send it FLK for its stake, then: "
            f"lichen node run --home {folder}"
        ),
    )
