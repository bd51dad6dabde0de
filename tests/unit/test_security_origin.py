"""What content may do at an origin that it shares with other content and the gateway's pages."""

import pytest

from lichen.cdn.formats import SANDBOX, file_headers, shared_headers
from lichen.cdn.media import media_type
from lichen.cdn.sites.headers import parse_headers


def served(name: str, rules: str = "") -> bytes:
    """The header lines of a file at a shared origin, under a site's `_headers`."""
    headers, _ = parse_headers(rules.encode())
    lines = file_headers(media_type(name), f"/ipfs/x/{name}", b"c")
    return shared_headers(headers.apply(f"/{name}", lines))


@pytest.mark.parametrize(
    "name", ["index.html", "a.htm", "a.xhtml", "a.svg", "a.xml", "a.xsl", "a.rdf", "a.mht"]
)
def test_documents_get_an_origin_of_nobody(name: str) -> None:
    assert served(name).endswith(SANDBOX)


@pytest.mark.parametrize(
    "name",
    ["a.css", "a.js", "a.json", "a.png", "a.txt", "a.wasm", "a.mp4", "a.woff2", "a", "a.pdf"],
)
def test_what_shows_no_document_is_sent_as_it_is(name: str) -> None:
    assert b"content-security-policy" not in served(name)


@pytest.mark.parametrize(
    "rules",
    [
        "/*\n  Content-Type: text/html",
        "/*\n  content-type: TEXT/HTML",
        "/*\n  Content-Type: image/png, text/html",
        "/*\n  Content-Type: image/png\n/a.png\n  Content-Type: text/html",
        "/*\n  Content-Type: image/svg+xml",
        "/*\n  Content-Type: application/atom+xml",
        "/*\n  Content-Type: multipart/x-mixed-replace",
        "/*\n  Content-Type: image/png; x=y, text/html",
        "/*\n  Content-Type: nonsense",
        "/*\n  Content-Type:",
        "/*\n  ! Content-Type",
        "/*\n  Content-Security-Policy: default-src *\n  Content-Type: text/html",
        "/*\n  ! Content-Security-Policy\n  ! Content-Type",
    ],
)
def test_a_sites_own_headers_do_not_lead_out_of_it(rules: str) -> None:
    assert served("a.png", rules).endswith(SANDBOX)


@pytest.mark.parametrize(
    "field",
    ["Set-Cookie: a=b; Path=/", "Service-Worker-Allowed: /", 'Clear-Site-Data: "*"',
     "Alt-Svc: h2=evil:1", "Strict-Transport-Security: max-age=9"],
)  # fmt: skip
def test_content_rules_over_nothing_that_others_leave_in_the_browser(field: str) -> None:
    lines = served("a.html", f"/*\n  {field}\n  X-Kept: 1")
    assert field.partition(":")[0].lower().encode() not in lines
    assert b"x-kept: 1" in lines
