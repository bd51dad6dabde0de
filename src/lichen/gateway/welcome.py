"""What a gateway shows at `/`: what this is, what runs here, and where to go on."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lichen.units import format_flk

if TYPE_CHECKING:
    from lichen.ledger.follower import Follower
    from lichen.ledger.types import App, Node

ROWS_MAX = 100
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 2rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }
td.n { font-variant-numeric: tabular-nums; } code { font-size: .9em; }
"""


def page(replica: Follower, port: str) -> bytes:
    """Render the page; `port` is what visitors' URLs end in (`:8080`, or empty)."""
    view = replica.state
    apps, nodes = view.apps()[:ROWS_MAX], view.nodes()[:ROWS_MAX]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{html.escape(replica.genesis.name)}: Lichen</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(replica.genesis.name)}</h1>",
        f"<p>A <a href=/api/v1/openapi.json>Lichen</a> gateway at block {replica.height}. ",
        "Deploy with <code>lichen deploy</code>, check a run with <code>lichen verify</code>.</p>",
        "<h2>Apps</h2>",
        _table(("app", "release", "description"), [_app_row(app, port) for app in apps]),
        "<h2>Nodes</h2>",
        _table(("node", "tiers", "per run", "per CPU second"), [_node_row(n) for n in nodes]),
    ]
    return "".join(parts).encode()


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    if not rows:
        return "<p>None yet.</p>"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _app_row(app: App, port: str) -> str:
    url = f"http://{app.name}.app.localhost{port}/" if port else f"/app/{app.name}/"
    return (
        f"<tr><td><a href='{html.escape(url)}'>{html.escape(app.name)}</a></td>"
        f"<td>v{app.active}</td><td>{html.escape(app.description)}</td></tr>"
    )


def _node_row(node: Node) -> str:
    prices = node.prices
    return (
        f"<tr><td><code>{node.address!s}</code></td><td>{html.escape(', '.join(node.tiers))}</td>"
        f"<td class=n>{format_flk(prices.request)} FLK</td>"
        f"<td class=n>{format_flk(prices.cpu_s)} FLK</td></tr>"
    )
