"""`_redirects` and `_headers`: what the lines mean, and which lines are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.sites.headers import ADDED_BYTES_MAX, RULES_MAX, parse_headers
from lichen.cdn.sites.patterns import parse_pattern
from lichen.cdn.sites.redirects import (
    DYNAMIC_RULES_MAX,
    FILE_BYTES_MAX,
    LINE_BYTES_MAX,
    STATIC_RULES_MAX,
    Target,
    parse_redirects,
)
from lichen.errors import UserError


def target_of(text: str, path: str) -> Target | None:
    rules, faults = parse_redirects(text.encode())
    assert faults == ()
    return rules.find(path)


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("/a", "/a", {}),
        ("/a", "/a/", None),
        ("/a/*", "/a/b/c", {"splat": "b/c"}),
        ("/a/*", "/a/", {"splat": ""}),
        ("/a/*", "/a", None),
        ("/*", "/", {"splat": ""}),
        ("/*.js", "/x/y.js", {"splat": "x/y"}),
        ("/*.js", "/x.css", None),
        ("/b*", "/blog", {"splat": "log"}),
        ("/:year/:slug", "/2024/x", {"year": "2024", "slug": "x"}),
        ("/:year/:slug", "/2024/", None),
        ("/:user/*", "/ann/a/b", {"user": "ann", "splat": "a/b"}),
    ],
)
def test_a_pattern_matches_whole_segments_and_any_text_at_its_star(pattern, path, values):
    assert parse_pattern(pattern).match(path) == values


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_path_and_no_pattern_breaks_the_matcher(pattern, path):
    try:
        parsed = parse_pattern("/" + pattern)
    except UserError:
        return
    found = parsed.match("/" + path)
    assert found is None or set(found) == parsed.names


def test_the_first_rule_that_matches_decides():
    text = "/a/* /first 302\n/a/b /second 302\n/c /third\n/c /fourth"
    assert target_of(text, "/a/b") == Target("/first", 302)
    assert target_of(text, "/c") == Target("/third", 301)
    assert target_of("/a/b /second 302\n/a/* /first 302", "/a/b") == Target("/second", 302)


def test_placeholders_are_filled_in_and_escaped():
    text = "/news/:year/:slug https://example.org/:slug?y=:year 308"
    found = target_of(text, "/news/2024/a b\r\nx: 1")
    assert found == Target("https://example.org/a%20b%0D%0Ax%3A%201?y=2024", 308)


@pytest.mark.parametrize("path", ["/go//evil.example", "/go/\\evil.example", "/go/%5cevil"])
def test_a_local_redirect_never_leads_to_another_host(path):
    found = target_of("/go/* /:splat 302", path)
    assert not found.to.startswith(("//", "/\\"))


def test_a_rule_for_all_paths_shows_one_page():
    assert target_of("/* /index.html 200", "/some/where") == Target("/index.html", 200)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("/a", "from to"),
        ("/a /b 301 x", "from to"),
        ("/a /b 999", "999"),
        ("/a /b yes", "yes"),
        ("a /b", "begin with /"),
        ("/a //evil.example", "neither a path nor a URL"),
        ("/a ftp://x/", "neither a path nor a URL"),
        ("/a https://\0.example/", "neither a path nor a URL"),
        ("/a https://user@x.example/", "neither a path nor a URL"),
        ("/a/:b https://:b/", "neither a path nor a URL"),
        ("/a https://ä.example/", "neither a path nor a URL"),
        ("/a https://example.org/ 200", "shows a file"),
        ("/a /:b", ":b"),
        ("/a/*/b* /c", "behind a *"),
        ("/:x/:x /c", "twice"),
        ("/a /b\x01", "neither a path"),
        ("/a /" + "x" * LINE_BYTES_MAX, "over"),
    ],
)
def test_a_wrong_redirect_is_named_with_its_line_and_the_others_hold(line, what):
    rules, faults = parse_redirects(f"# old names\n\n{line}\n/ok /fine".encode())
    (fault,) = faults
    assert fault.line == 3
    assert what in fault.what
    assert fault.hint
    assert rules.find("/ok") == Target("/fine", 301)


def test_the_number_of_rules_is_bounded():
    for limit, pattern in ((STATIC_RULES_MAX, "/{}"), (DYNAMIC_RULES_MAX, "/{}/*")):
        lines = [f"{pattern.format(n)} /x" for n in range(limit + 1)]
        _, faults = parse_redirects("\n".join(lines).encode())
        assert [fault.line for fault in faults] == [limit + 1]
    _, faults = parse_redirects(b"#" * (FILE_BYTES_MAX + 1))
    assert faults


HEADERS = b"""\
# for all
/*
  X-Frame-Options: DENY
  X-Robots: a
/secret/*
  ! X-Frame-Options
  X-Robots: b
  Cache-Control: no-store
"""


def test_headers_of_all_matching_paths_are_joined_in_order():
    rules, faults = parse_headers(HEADERS)
    assert faults == ()
    base = b"content-type: text/html\r\ncache-control: public\r\n"
    assert rules.apply("/x", base) == base + b"x-frame-options: DENY\r\nx-robots: a\r\n"
    assert rules.apply("/secret/x", base) == (
        b"content-type: text/html\r\nx-robots: a, b\r\ncache-control: no-store\r\n"
    )


def test_without_a_matching_path_headers_stay_as_they_are():
    rules, _ = parse_headers(b"/a\n  x: y\n")
    assert rules.apply("/b", b"a: b\r\n") == b"a: b\r\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("  x: y", 1, "before any path"),
        ("/a\n  nocolon", 2, "no colon"),
        ("/a\n  Content-Length: 3", 2, "set by the gateway"),
        ("/a\n  Lichen-Run: 3", 2, "set by the gateway"),
        ("/a\n  x y: 3", 2, "no header name"),
        ("/a\n  x: \x01", 2, "not plain ASCII"),
        ("/a\n  x: \u00e9", 2, "not plain ASCII"),
        ("/a b", 1, "is no path"),
        ("https://x.example/a", 1, "begin with /"),
        ("/a\n  x: " + "y" * 990 + "\n  z: " + "y" * 100, 3, "over"),
    ],
)
def test_a_wrong_header_line_is_named(text, line, what):
    _, faults = parse_headers(text.encode())
    assert [fault.line for fault in faults] == [line]
    assert what in faults[0].what


def test_headers_are_bounded_in_paths_and_in_bytes_for_each_answer():
    lines = "".join(f"/p{n}\n  x-{n}: y\n" for n in range(RULES_MAX + 1))
    _, faults = parse_headers(lines.encode())
    assert faults[0].line == 2 * RULES_MAX + 1
    rules, faults = parse_headers(("/*\n  a: " + "y" * 900 + "\n/x\n  b: " + "y" * 900).encode())
    assert faults == ()
    assert len(rules.apply("/x", b"")) <= ADDED_BYTES_MAX


@given(st.binary(max_size=300))
def test_no_file_breaks_the_parsers_or_an_answer(data):
    parse_redirects(data)[0].find("/x")
    block = parse_headers(data)[0].apply("/x", b"a: b\r\n")
    assert all(b":" in line for line in block.split(b"\r\n") if line)
