"""Bodies: the same payload whatever the segments, and nothing but a strict framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.wire.errors import MalformedError
from lichen.wire.framing import (
    CHUNK_LINE_BYTES_MAX,
    LAST_CHUNK,
    TRAILER_BYTES_MAX,
    ChunkedFraming,
    Framing,
    LengthFraming,
    UntilCloseFraming,
    chunk,
    framing_for,
)
from lichen.wire.heads import CHUNKED, UNTIL_CLOSE


def read(framing: Framing, data: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool]:
    """Feed data cut at the given places; return payload, rest and done."""
    payload, at = b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        piece, at = data[at:cut], cut
        if framing.done:
            return payload, framing.rest + piece + data[at:], True
        payload += framing.feed(piece)
    return payload, framing.rest, framing.done


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    CUTS,
    st.binary(max_size=20),
    st.booleans(),
)
def test_chunks_are_read_alike_however_they_are_cut(
    pieces: list[bytes], cuts: list[int], after: bytes, extended: bool
) -> None:
    extension = b";name=value" if extended else b""
    trailer = b"X-Trailer: 1\r\n" if extended else b""
    wire = b"".join(b"%X%b\r\n%b\r\n" % (len(p), extension, p) for p in pieces)
    wire += b"0\r\n" + trailer + b"\r\n"
    payload, rest, done = read(ChunkedFraming(), wire + after, cuts)
    assert (payload, rest, done) == (b"".join(pieces), after, True)


@given(st.binary(max_size=200), CUTS, st.binary(max_size=20))
def test_a_body_of_known_length_ends_there(body: bytes, cuts: list[int], after: bytes) -> None:
    framing = framing_for(len(body))
    if body:
        assert read(framing, body + after, cuts) == (body, after, True)
    else:
        assert framing.done


@given(st.binary(max_size=200), CUTS)
def test_our_own_chunks_can_be_read_back(body: bytes, cuts: list[int]) -> None:
    assert read(ChunkedFraming(), chunk(body) + LAST_CHUNK, cuts) == (body, b"", True)


@given(st.binary(max_size=60), CUTS)
def test_garbage_is_refused_or_read_alike_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return read(ChunkedFraming(), data, cuts)
        except MalformedError:
            return "refused"

    whole, cut = outcome([]), outcome(cuts)
    if whole == "refused" or cut == "refused" or whole[2]:
        assert whole == cut


@pytest.mark.parametrize(
    "wire",
    [
        b"-1\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b" 1\r\na\r\n", b"1 \r\na\r\n", b"\r\n", b"1\na\r\n",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\r\n\r\n", b"g\r\n", b"1_0\r\n", b"1;\x00\r\n",
        b"1;a\rb\r\n", b"fffffffffffffffff\r\n", b"0\r\nX : 1\r\n\r\n", b"0\r\n X: 1\r\n\r\n",
        b"0\r\nX\r\n\r\n", b"0\r\n\n", b"1;" + b"x" * CHUNK_LINE_BYTES_MAX + b"\r\n",
        b"1" * (CHUNK_LINE_BYTES_MAX + 1), b"0\r\n" + b"x: 12345678\r\n" * (TRAILER_BYTES_MAX // 8),
    ],
)  # fmt: skip
def test_a_malformed_chunk_is_refused(wire: bytes) -> None:
    with pytest.raises(MalformedError):
        ChunkedFraming().feed(wire)


def test_each_length_has_its_framing() -> None:
    assert isinstance(framing_for(CHUNKED), ChunkedFraming)
    assert isinstance(framing_for(UNTIL_CLOSE), UntilCloseFraming)
    assert isinstance(framing_for(7), LengthFraming)
