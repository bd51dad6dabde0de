"""Which media type content is sent with."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.formats import _PASSIVE
from lichen.cdn.media import HTML, JSON, SNIFFED_BYTES, TEXT, UNKNOWN, media_type, type_of_bytes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/a/b.html", HTML),
        ("/photo.JPG", b"image/jpeg"),
        ("/font.woff2", b"font/woff2"),
        ("/app.mjs", b"text/javascript; charset=utf-8"),
        ("/picture.webp", b"image/webp"),
        ("/a.html.gz", UNKNOWN),
        ("/a.d/README", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_name_tells_the_type_without_a_look_at_the_content(name, kind):
    assert media_type(name) == kind
    if kind is not UNKNOWN:
        assert media_type(name, b"\x89PNG\r\n\x1a\n") == kind


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", TEXT),
        (b"hello", TEXT),
        (b"\xef\xbb\xbfgr\xc3\xbc\xc3\x9fe\r\n\tx", TEXT),
        (b'{"a": 1}', JSON),
        (b" [1, null]\n", JSON),
        (b"[1] see below", TEXT),
        (b"{a: 1}", TEXT),
        (b'"text"', TEXT),
        (b' [\n {"%b' % (b"x" * SNIFFED_BYTES), TEXT),
        (b' [\n {"id": 1, "text": "%b' % (b"x" * SNIFFED_BYTES), JSON),
        (b"[draft] {" + b"x" * SNIFFED_BYTES, TEXT),
        (b"a\x00b", UNKNOWN),
        (b"\xfc", UNKNOWN),
        (b"\x89PNG\r\n\x1a\n....", b"image/png"),
        (b"RIFF....WEBPVP8 ", b"image/webp"),
        (b"RIFF....WAVEfmt ", b"audio/wav"),
        (b"\x00\x00\x00\x18ftypmp42", b"video/mp4"),
        (b"\x00\x00\x00\x18ftypavif", b"image/avif"),
        (b"%PDF-1.7", b"application/pdf"),
        (b"\x00asm\x01\x00\x00\x00", b"application/wasm"),
        (b'<svg xmlns="x">', b"image/svg+xml; charset=utf-8"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg>', b"image/svg+xml; charset=utf-8"),
        (b"<?xml version='1.0'?><feed>", TEXT),
    ],
)
def test_a_file_without_a_telling_name_is_told_by_how_it_begins(start, kind):
    assert media_type("/README", start) == kind


@pytest.mark.parametrize("text", [b"<!DOCTYPE html>", b" <!-- x --><HTML>", b"<script >", b"<p>"])
def test_html_is_html_only_at_an_origin_of_its_own(text):
    assert type_of_bytes(text) == TEXT
    assert type_of_bytes(text, is_shared=False) == HTML


@pytest.mark.parametrize("letter", ["\u00fc", "\u20ac", "\U0001f33f"])
def test_a_letter_that_the_end_cuts_off_makes_no_text_binary(letter):
    for before in range(SNIFFED_BYTES - 5, SNIFFED_BYTES + 1):
        data = b"x" * before + letter.encode() * 3
        assert type_of_bytes(data) == TEXT
    cut = b"x" * 100 + letter.encode()[:-1]
    assert type_of_bytes(cut) == UNKNOWN  # there the content ends, and is no text


@pytest.mark.parametrize(
    "piece", [b"<!---->", b"<!--", b"<?xml>", b" ", b"<?xml", b"<!doctype svg"]
)
def test_no_beginning_takes_long_to_look_at(piece):
    start = time.process_time()
    for _ in range(100):
        type_of_bytes(piece * SNIFFED_BYTES, is_shared=False)
    assert time.process_time() - start < 1


@given(st.binary(max_size=700))
def test_nothing_that_shares_its_origin_is_taken_for_a_document_but_svg(data):
    kind = type_of_bytes(data)
    assert _PASSIVE.fullmatch(kind + b"\r\n") or kind in {
        b"image/svg+xml; charset=utf-8",
        b"application/ogg",
    }
