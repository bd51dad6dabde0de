"""`lichen market`: the open market."""

from __future__ import annotations

from cyclopts import App

from lichen.cli import connect, console

app = App(name="market", help="The open market: nodes and prices.")


@app.command
def nodes() -> None:
    """List the nodes that offer work, with their prices."""
    with connect.reader() as client:
        offers = list(client.market_nodes())
    rows = [
        (
            offer.address,
            ", ".join(offer.tiers) or "-",
            connect.flk(offer.stake),
            connect.flk(offer.prices.request),
            connect.flk(offer.prices.cpu_s),
            connect.flk(offer.prices.memory_gib_s),
            connect.flk(offer.prices.egress_gib),
        )
        for offer in offers
    ]
    columns = ("node", "tiers", ">stake", ">request", ">CPU s", ">GiB s", ">GiB out")
    console.emit(offers, lambda: console.table(columns, rows))


@app.command
def prices() -> None:
    """Show the lowest, median and highest price of each unit."""
    with connect.reader() as client:
        market = client.market_prices()
    rows = [
        (
            price.unit,
            connect.flk(price.lowest),
            connect.flk(price.median),
            connect.flk(price.highest),
        )
        for price in market.prices
    ]
    columns = ("unit", ">lowest", ">median", ">highest")
    title = f"{market.nodes} nodes"
    console.emit(market, lambda: console.table(columns, rows, title=title))
