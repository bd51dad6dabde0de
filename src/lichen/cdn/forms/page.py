"""How pages look that the gateway itself makes of content: listings, documents, refusals. Pure.

They run nothing and load nothing; what comes from others has to be escaped by the caller.
"""

from __future__ import annotations

import html
from typing import Final

POLICY: Final = (
    b"content-security-policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    b"form-action 'none'\r\n"
)
STYLE: Final = """
:root{color-scheme:light dark;--line:#8883;--dim:#6b7280;--link:#0b6b4f;--row:#0b6b4f0d;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
@media(prefers-color-scheme:dark){:root{--dim:#9aa4b2;--link:#5fd3a8;--row:#5fd3a814}
body{background:#12161a;color:#e6e9ec}}
body{max-width:64rem;margin:0 auto;padding:2rem 1rem 3rem}
h1{font-size:1.25rem;font-weight:600;margin:0 0 .25rem;overflow-wrap:anywhere}
h1 a{font-weight:400}
a{color:var(--link);text-decoration:none}a:hover,a:focus-visible{text-decoration:underline}
p,footer{color:var(--dim);font-size:.875rem;margin:.25rem 0 1.25rem;overflow-wrap:anywhere}
code,pre{font:.8125rem/1.6 ui-monospace,SFMono-Regular,Menlo,monospace}
"""


def top(title: str, style: str = STYLE) -> str:
    """Return how a page begins; `title` is plain text."""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>"
    )


def message(title: str, text: str, hint: str) -> bytes:
    """Return a page that says one thing; all of it is plain text."""
    body = f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p><p>{html.escape(hint)}</p>"
    return f"{top(title)}{body}</body></html>\n".encode("utf-8", "replace")
