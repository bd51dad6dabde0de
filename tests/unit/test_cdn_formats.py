"""What a request asks for, and what is kept ready: pure parts of content over HTTP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.formats import (
    PATH_BYTES_MAX,
    SANDBOX,
    NotAcceptableError,
    decode_path,
    path_lines,
    shared_headers,
    split_content_path,
)
from lichen.cdn.kept import Keep
from lichen.cdn.wanted import Form, Wanted, read_wanted
from lichen.content import CID, RAW
from lichen.errors import UserError
from lichen.wire import ContentEntry, FlatFile, Ready
from lichen.wire.content import RANGES_MAX, byte_range, etag_matches

CID_OF_X = CID.of(RAW, b"x")


@pytest.mark.parametrize(
    ("query", "accept", "form"),
    [
        ("", "*/*", Form.PLAIN),
        ("", "text/html,application/xhtml+xml", Form.PLAIN),
        ("format=raw", "*/*", Form.RAW),
        ("format=car", "application/vnd.ipld.raw", Form.CAR),
        ("", "application/vnd.ipld.raw", Form.RAW),
        ("", "Application/vnd.ipld.car; version=1; order=dfs; dups=n", Form.CAR),
        ("", "application/vnd.ipld.car; order=unk, */*", Form.CAR),
    ],
)
def test_the_format_decides_before_the_accept_field(query, accept, form):
    assert read_wanted(query, {"accept": accept}).form is form


@pytest.mark.parametrize(
    "accept", ["application/vnd.ipld.car; version=2", "application/vnd.ipld.unknown"]
)
def test_a_form_that_is_not_offered_is_not_acceptable(accept):
    with pytest.raises(NotAcceptableError):
        read_wanted("", {"accept": accept})


@given(st.text(max_size=100), st.text(max_size=100))
def test_no_query_and_no_accept_field_breaks_the_reader(query, accept):
    try:
        wanted = read_wanted(query, {"accept": accept})
    except UserError:
        return
    assert isinstance(wanted, Wanted)


@pytest.mark.parametrize(
    ("path", "below"),
    [("", ""), ("/", "/"), ("/a%20b/c", "/a b/c"), ("/%2525", "/%25"), ("//a", "//a")],
)
def test_a_content_path_is_decoded_once_and_keeps_its_slash(path, below):
    assert split_content_path(f"/ipfs/{CID_OF_X}{path}".encode()) == (CID_OF_X, below)


@pytest.mark.parametrize(
    "path", [b"/../x", b"/a/%2e%2e/b", b"/.", b"/%00", b"/%ff", b"/" + b"a" * PATH_BYTES_MAX]
)
def test_a_path_that_could_mean_two_things_is_refused(path):
    with pytest.raises(UserError):
        decode_path(path)


def test_a_path_too_long_for_a_header_is_left_out():
    assert path_lines("/ipfs/x/\u00fc") == b"x-ipfs-path: /ipfs/x/%C3%BC\r\n"
    assert path_lines("/" + "x" * 600) == b""


@pytest.mark.parametrize(
    ("kind", "sandboxed"),
    [
        ("text/html; charset=utf-8", True),
        ("image/svg+xml", True),
        ("TEXT/HTML", True),
        ("image/png", False),
    ],
)
def test_what_runs_scripts_gets_an_origin_of_nobody_where_many_share_one(kind, sandboxed):
    block = f"content-type: {kind}\r\nset-cookie: a=b\r\nx: y\r\n".encode()
    shared = shared_headers(block)
    assert b"set-cookie" not in shared
    assert b"x: y\r\n" in shared
    assert shared.endswith(SANDBOX) == sandboxed


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 40))
def test_a_range_is_what_slicing_says(first, last, size):
    data = bytes(range(size))
    found = byte_range(b"bytes=%d-%d" % (first, last), size)
    if last < first:
        assert found is None
    elif first >= size:
        assert found[0] > found[1]
    else:
        assert data[found[0] : found[1] + 1] == data[first : last + 1]


@pytest.mark.parametrize(
    ("value", "size", "found"),
    [(b"bytes=-3", 10, (7, 9)), (b"bytes=-30", 10, (0, 9)), (b"bytes=-0", 10, (10, 9)),
     (b"bytes=5-", 10, (5, 9)), (b"bytes=-", 10, None), (b"Bytes= 3-4 , 0-1", 10, (3, 4)),
     (b"lines=1-2", 10, None), (b"", 10, None), (b"bytes=0-", 0, (0, -1)),
     (b"bytes=90-,0-1", 10, (0, 1)), (b"bytes=90-,80-", 10, (90, 9)),
     (b"bytes=0-1,x", 10, None), (b"bytes=0-1,", 10, None), (b"bytes=0-1,5-2", 10, None)],
)  # fmt: skip
def test_open_ranges_several_ranges_and_what_is_no_range(value, size, found):
    assert byte_range(value, size) == found


def test_more_ranges_than_the_bound_are_answered_by_the_whole():
    assert byte_range(b"bytes=" + b",".join([b"1-2"] * RANGES_MAX), 10) == (1, 2)
    assert byte_range(b"bytes=" + b",".join([b"1-2"] * (RANGES_MAX + 1)), 10) is None


def test_entity_tags_are_compared_weakly():
    assert etag_matches(b'"a"', b'W/"a"')
    assert etag_matches(b'W/"a"', b'"b", "a"')
    assert etag_matches(b'"a"', b"*")
    assert not etag_matches(b'"a"', b'"b"')
    assert not etag_matches(b'"a"', b"")


def test_the_least_used_answers_go_first():
    keep = Keep(entries_max=2)
    keep.put(b"a", None)
    keep.put(b"b", Ready.of(200))
    assert keep.get(b"a") is None
    assert b"a" in keep
    keep.put(b"c", None)
    assert (b"a" in keep, b"b" in keep, b"c" in keep) == (True, False, True)


def test_kept_answers_are_bounded_in_bytes_and_in_open_files():
    keep = Keep(bytes_max=100_000)
    for number in range(10):
        keep.put(b"%d" % number, ContentEntry(b'"x"', b"", bytes(20_000)))
    assert len(keep) == 2
    keep = Keep(files_max=3)
    for number in range(10):
        keep.put(b"%d" % number, ContentEntry(b'"x"', b"", file=FlatFile(0), size=5))
    assert len(keep) == 3


def test_an_answer_put_again_counts_once():
    keep = Keep(bytes_max=100_000)
    for _ in range(100):
        keep.put(b"same", ContentEntry(b'"x"', b"", bytes(20_000)))
    assert len(keep) == 1
    assert keep.get(b"same") is not None
