"""UnixFS over paths and hosts: types, tags, listings, symlinks, redirects, and how long heads get."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.formats import LISTING_CACHE, LISTING_ENTRIES, LocationTooLongError
from lichen.cdn.forms.base import Conditions, Links, Place
from lichen.cdn.forms.listing import VERSION
from lichen.cdn.plan import plan
from lichen.cdn.sites.redirects import FILE_BYTES_MAX, RulesError, with_query
from lichen.cdn.wanted import Wanted, read_wanted
from lichen.content import (
    CID,
    DAG_PB,
    RAW,
    V1_2025,
    Link,
    MissingBlockError,
    dag_pb,
    import_directory,
    unixfs,
)
from lichen.errors import NotFoundError
from lichen.wire.answers import status_line

HEAD_BYTES_MAX = 2048
LISTENER = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n"


class Memory(dict):
    """Blocks in memory, and what they were asked for."""

    def get_block(self, cid):
        return self.get(cid)

    def raw(self, data):
        cid = CID.of(RAW, data)
        self[cid] = data
        return cid

    def node(self, links, message):
        block = dag_pb.encode(links, unixfs.encode(message))
        cid = CID.of(DAG_PB, block)
        self[cid] = block
        return cid

    def folder(self, entries):
        links = [
            Link(self.raw(found) if isinstance(found, bytes) else found, name, 7)
            for name, found in entries.items()
        ]
        return import_directory(links, V1_2025, self.__setitem__).cid

    def symlink(self, target):
        return self.node([], unixfs.UnixFS(unixfs.Kind.SYMLINK, target))

    def chunked(self, *chunks):
        links = [Link(self.raw(chunk), "", len(chunk)) for chunk in chunks]
        sizes = tuple(map(len, chunks))
        message = unixfs.UnixFS(unixfs.Kind.FILE, None, sum(sizes), sizes)
        return self.node(links, message)


class Answer:
    """A plan, carried out."""

    def __init__(self, found):
        self.status = found.status
        self.lines = found.headers
        parts = (line.partition(b": ") for line in found.headers.split(b"\r\n") if line)
        self.fields = {name.decode(): value.decode() for name, _, value in parts}
        self.body = b"".join(found.pieces or ())
        self.length = found.length


def ask(blocks, root, path="/", query="", *, place=None, conditions=None, **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    place = place or Place(root, path, prefix=f"/ipfs/{root}")
    found = plan(blocks, place, read_wanted(query, fields), conditions or Conditions())
    return Answer(found)


def at_host(root, path="/"):
    base = "//example.org:8080"
    return Place(root, path, "host", links=Links(f"{base}/ipfs/{root}", f"{base}/ipfs/"))


@pytest.fixture
def blocks():
    return Memory()


def test_an_index_page_has_the_tag_of_its_folder_and_the_roots_of_its_path(blocks):
    inner = blocks.folder({"index.html": b"<p>in"})
    root = blocks.folder({"a": inner, "b": b"x"})
    page = ask(blocks, root, "/a/")
    assert (page.status, page.body) == (200, b"<p>in")
    assert page.fields["etag"] == f'"{inner}"'
    assert page.fields["x-ipfs-roots"] == f"{root},{inner}"
    assert page.fields["x-ipfs-path"] == f"/ipfs/{root}/a/"
    assert "immutable" in page.fields["cache-control"]
    for tag in (f'"{inner}"', f'W/"{inner}"', f'"x", "{inner}"', "*"):
        known = ask(blocks, root, "/a/", conditions=Conditions(tag.encode()))
        assert (known.status, known.body) == (304, b"")
    file = ask(blocks, root, "/a/index.html")
    assert file.fields["etag"] == f'"{CID.of(RAW, b"<p>in")}"'


def test_a_listing_has_a_tag_of_its_look_and_page_and_is_kept_for_a_week(blocks):
    root = blocks.folder({"b": b"x"})
    page = ask(blocks, root)
    assert page.fields["etag"] == f'"DirIndex-{VERSION}_CID-{root}"'
    assert page.fields["cache-control"] == LISTING_CACHE.decode()
    for tag in (page.fields["etag"], "W/" + page.fields["etag"]):
        assert ask(blocks, root, conditions=Conditions(tag.encode())).status == 304
    other = ask(blocks, root, query="from=1000").fields["etag"]
    as_json = ask(blocks, root, accept="application/json").fields["etag"]
    assert len({page.fields["etag"], other, as_json}) == 3


def test_a_listing_leads_to_entries_folders_above_and_what_is_inside_by_its_cid(blocks):
    file = blocks.raw(b"x")
    inner = blocks.folder({"f \u00fc.txt": file})
    root = blocks.folder({"d&d": inner})
    at, text = f"/ipfs/{root}", ask(blocks, root, "/d&d/").body.decode()
    assert f'Index of /ipfs/<a href="{at}">{root}</a>/<a href="{at}/d%26d">d&amp;d</a>' in text
    assert f'<a href="{at}/d%26d/..">..</a>' in text
    assert f'<a href="{at}/d%26d/f%20%C3%BC.txt">f \u00fc.txt</a>' in text
    hashed = (
        f'<a class="ipfs-hash" translate="no" href="/ipfs/{file}?filename=f%2520%25C3%25BC.txt">'
    )
    assert hashed in text
    assert "..</a>" not in ask(blocks, root).body.decode()


def test_a_listing_at_a_host_leads_through_the_gateway_and_one_of_a_domain_to_an_explorer(blocks):
    file = blocks.raw(b"x")
    root = blocks.folder({"d": blocks.folder({"f": file})})
    text = ask(blocks, root, place=at_host(root, "/d/")).body.decode()
    above = f"//example.org:8080/ipfs/{root}"
    assert f'/ipfs/<a href="{above}">{root}</a>/<a href="{above}/d">d</a>' in text
    assert '<a href="/d/..">..</a>' in text
    assert '<a href="/d/f">f</a>' in text
    assert f'href="//example.org:8080/ipfs/{file}?filename=f">' in text
    domain = Place(root, "/d/", "host", name="/ipns/docs.test", links=Links("//docs.test", ""))
    text = ask(blocks, root, place=domain).body.decode()
    assert '/ipns/<a href="//docs.test/">docs.test</a>/<a href="//docs.test/d">d</a>' in text
    assert (
        f'href="https://cid.ipfs.tech/#{file}" target="_blank" rel="noreferrer noopener">' in text
    )


@given(st.dictionaries(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1,
       max_size=20).filter(lambda name: name not in {".", ".."}), st.just(b"x"), max_size=8))  # fmt: skip
def test_no_name_leaves_its_place_in_a_listing(entries):
    blocks = Memory()
    root = blocks.folder({name: data for name, data in entries.items() if name != "index.html"})
    text = ask(blocks, root).body.decode()
    tags = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(?!/?(?:a|td|tr|th|p|h1|code|table|thead|tbody|footer|title|html|meta|head|body"
                         r"|!doctype)\b)", tags)  # fmt: skip
    links = re.findall(r'href="([^"]*)"', tags)
    assert all(re.fullmatch(r"(?:/ipfs/[^/?]+(?:/[^/]*|\?.*)?|\?.*)", link) for link in links)


def test_a_page_of_a_listing_leads_to_the_next_one(blocks):
    root = blocks.folder({f"{number:05}": b"x" for number in range(LISTING_ENTRIES + 1)})
    following = f'href="?from={LISTING_ENTRIES}&amp;after={LISTING_ENTRIES - 1:05}"'
    assert following in ask(blocks, root).body.decode()
    assert "?from" not in ask(blocks, root, query=f"from={LISTING_ENTRIES}").body.decode()


@pytest.mark.parametrize(("place", "location"), [("path", "/ipfs/{}/a%20b/"), ("host", "/a%20b/")])
def test_a_folder_without_its_slash_is_a_redirect_that_keeps_the_query(blocks, place, location):
    root = blocks.folder({"a b": blocks.folder({"f": b"x"})})
    where = at_host(root, "/a b") if place == "host" else None
    moved = ask(blocks, root, "/a b", "x=%2F&y=1", place=where)
    assert (moved.status, moved.fields["location"]) == (301, location.format(root) + "?x=%2F&y=1")
    assert moved.fields["access-control-allow-origin"] == "*"
    with pytest.raises(LocationTooLongError):
        ask(blocks, root, "/a b", "x=" + "y" * 1500, place=where)


def test_a_symlink_is_sent_as_where_it_points(blocks):
    root = blocks.folder({"link": blocks.symlink(b"../f\xff"), "f": b"x"})
    link = ask(blocks, root, "/link")
    assert (link.status, link.body) == (200, b"../f\xff")
    assert link.fields["content-type"] == "inode/symlink"
    assert ">link<" in ask(blocks, root).body.decode()


def test_a_client_names_what_it_saves_and_by_that_its_type(blocks):
    root = blocks.folder({"f.txt": b"x"})
    for query, kind, name in (
        ("filename=a.png", "image/png", 'inline; filename="a.png"'),
        ("download=true", "text/plain; charset=utf-8", 'attachment; filename="f.txt"'),
        ("download=true&filename=%C3%BC.pdf", "application/pdf",
         "attachment; filename=\"_.pdf\"; filename*=UTF-8''%C3%BC.pdf"),
        ("filename=%25C3%25BC.pdf", "application/pdf",
         "inline; filename=\"_.pdf\"; filename*=UTF-8''%C3%BC.pdf"),
        ("filename=100%2525.txt", "text/plain; charset=utf-8", 'inline; filename="100_25.txt"'),
    ):  # fmt: skip
        answer = ask(blocks, root, "/f.txt", query)
        assert answer.fields["content-type"] == kind
        assert answer.fields["content-disposition"] == name
    shown = ask(blocks, root, "/f.txt", "filename=a.html")
    assert shown.fields["content-security-policy"].startswith("sandbox")
    assert "content-disposition" not in ask(blocks, root, "/f.txt").fields


def test_html_without_a_name_is_a_page_at_its_own_host_only(blocks):
    root = blocks.raw(b"<!doctype html><p>x")
    assert ask(blocks, root).fields["content-type"] == "text/plain; charset=utf-8"
    page = ask(blocks, root, place=Place(root, "/", "host"))
    assert page.fields["content-type"] == "text/html; charset=utf-8"
    assert "content-security-policy" not in page.fields


def test_a_range_needs_no_block_outside_of_it(blocks):
    parts = [bytes([number]) * 1000 for number in range(3)]
    root = blocks.chunked(*parts)
    for missing, first, last in ((0, 1500, 1600), (2, 10, 20), (1, 2100, 2200)):
        gone = CID.of(RAW, parts[missing])
        kept = blocks.pop(gone)
        wanted = Conditions(range=b"bytes=%d-%d" % (first, last))
        part = ask(blocks, root, conditions=wanted)
        assert (part.status, part.body) == (206, b"".join(parts)[first : last + 1])
        assert part.fields["content-range"] == f"bytes {first}-{last}/3000"
        blocks[gone] = kept
    del blocks[CID.of(RAW, parts[0])]
    with pytest.raises(MissingBlockError):
        ask(blocks, root)


RULES = (
    b"# names\n/old /new?a=1&b=2 302\r\n/p/:x/:y /q/:y/:x\n/s/* https://else.test/:splat 301\n"
    b"/gone/* /410.html 410\n/law /451.html 451\n/lost/* /404.html 404\n/f /never\n"
    b"/odd /:nobody\n/* /index.html?x=y 200\n"
)


def site(blocks, rules=RULES):
    pages = {f"{status}.html": b"%d" % status for status in (404, 410, 451)}
    return blocks.folder({"_redirects": rules, "index.html": b"home", "f": b"file", **pages})


@pytest.mark.parametrize(
    ("path", "query", "status", "location"),
    [
        ("/old", "", 302, "/new?a=1&b=2"),
        ("/old", "b=3&c=4", 302, "/new?a=1&b=3&c=4"),
        ("/p/1/2 3", "", 301, "/q/2%203/1"),
        ("/s/a/b", "x=1", 301, "https://else.test/a/b?x=1"),
        ("/odd", "", 301, "/:nobody"),
    ],
)
def test_a_rule_leads_elsewhere_and_passes_the_query_on(blocks, path, query, status, location):
    root = site(blocks)
    moved = ask(blocks, root, query=query, place=at_host(root, path))
    assert (moved.status, moved.fields["location"]) == (status, location)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/gone/x", 410, b"410"), ("/law", 451, b"451"), ("/lost/y", 404, b"404"),
     ("/any/thing", 200, b"home"), ("/f", 200, b"file"), ("/", 200, b"home")],
)  # fmt: skip
def test_a_rule_shows_a_file_with_its_tag_where_there_is_none(blocks, path, status, body):
    root = site(blocks)
    page = ask(blocks, root, place=at_host(root, path))
    assert (page.status, page.body) == (status, body)
    tag = root if path == "/" else CID.of(RAW, body)
    assert page.fields["etag"] == f'"{tag}"'
    assert page.fields["cache-control"] == "public, max-age=29030400, immutable"
    known = Conditions(page.fields["etag"].encode())
    again = ask(blocks, root, place=at_host(root, path), conditions=known)
    assert again.status == (304 if status == 200 else status)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (b"/ok /fine\n/a /b 301!\n", "line 2: the status 301!"),
        (b"/a\n", "line 1: a rule is: from to"),
        (b"/:a/:a /b\n", "line 1:"),
        (b"\xff\n", "line 1: the line is not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), "redirects file size cannot exceed 65536 bytes"),
    ],
)
def test_a_broken_rules_file_is_told_to_whom_only_it_could_answer(blocks, rules, says):
    root = site(blocks, rules)
    assert ask(blocks, root, place=at_host(root, "/f")).body == b"file"
    with pytest.raises(RulesError, match="could not parse _redirects:") as caught:
        ask(blocks, root, place=at_host(root, "/none"))
    assert says in caught.value.what
    assert (caught.value.status, bool(caught.value.hint)) == (500, True)
    with pytest.raises(NotFoundError):  # a path has no origin of its own, and so no rules
        ask(blocks, root, "/none")


@given(
    st.text(st.sampled_from("ab=&?%/"), max_size=12), st.text(st.sampled_from("ab=&"), max_size=8)
)
def test_a_visitors_parameters_win_and_stand_behind_the_rules_own(own, query):
    location = with_query("/to?" + own, query)
    assert location.startswith("/to?")
    if query:
        assert location.endswith(query)
        names = {part.partition("=")[0] for part in query.split("&")}
        before = location.removeprefix("/to?").removesuffix(query).strip("&").split("&")
        assert not names & {part.partition("=")[0] for part in before if "%" not in part and part}


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=120)


_KINDS = ("path", "host", "app", "folder")


def longest_head(path, field, filename, digest, kind):
    """Ask for a file below a path, under a rule of so many bytes; return the longest head."""
    blocks = Memory()
    found = leaf = CID(RAW, b"x" * digest, 0)  # an identity CID: the longest there are
    if kind == "folder":
        found = blocks.folder({"f": leaf})
    for name in reversed(path[1:]):
        found = blocks.folder({name: found})
    rules = b"/*\n  x-y: " + b"z" * field
    root = blocks.folder({path[0]: found, "_headers": rules})
    below = "/" + "/".join(path) + ("/" if kind == "folder" else "")
    place = at_host(root, below)
    if kind == "path":
        place = Place(root, below, prefix=f"/ipfs/{root}")
    elif kind == "app":
        place = Place(root, below, "site", "/app/shop")
    longest = 0
    for conditions in (Conditions(), Conditions(range=b"bytes=0-3")):
        wanted = Wanted(filename=filename, is_download=True)
        answer = plan(blocks, place, wanted, conditions)
        head = status_line(answer.status) + answer.headers + LISTENER
        longest = max(longest, len(head + b"content-length: 18446744073709551615\r\n\r\n"))
    return longest


@given(
    st.lists(_NAMES.filter(lambda name: name not in {".", "..", "index.html", "_headers"}),
             min_size=1, max_size=8),
    st.integers(0, 980),
    st.none() | _NAMES,
    st.integers(20, 128),
    st.sampled_from(_KINDS),
)  # fmt: skip
def test_a_head_stays_below_two_kibibytes_whatever_is_asked(path, field, filename, digest, kind):
    assert longest_head(path, field, filename, digest, kind) < HEAD_BYTES_MAX


@pytest.mark.parametrize("kind", _KINDS)
def test_a_head_stays_below_two_kibibytes_where_all_of_it_is_as_long_as_can_be(kind):
    found = [
        longest_head(path, field, filename, 128, kind)
        for path in (["a"] * 7, ["\u00fc" * 50], ["a" * 20] * 7)
        for field in (0, 500, 980)
        for filename in (None, "\u00fc" * 127, "a" * 255)
    ]
    assert 1400 < max(found) < HEAD_BYTES_MAX
