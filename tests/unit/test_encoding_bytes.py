"""Bytes stay bytes in the canonical encoding, whatever they look like."""

from __future__ import annotations

import libipld
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.encoding import _encode, canonical, from_canonical
from lichen.errors import UserError

LOOKS_LIKE_A_CID = bytes.fromhex("01551220") + bytes(32)


class Envelope(msgspec.Struct, frozen=True):
    digest: bytes
    note: str = ""


def test_bytes_that_parse_as_a_cid_are_encoded_as_bytes():
    encoded = canonical(Envelope(LOOKS_LIKE_A_CID))
    assert b"\xd8\x2a" not in encoded
    assert b"\x58\x24" + LOOKS_LIKE_A_CID in encoded
    assert from_canonical(encoded, Envelope) == Envelope(LOOKS_LIKE_A_CID)


def test_bytes_that_hold_the_link_tag_are_encoded_as_any_others():
    value = Envelope(b"\xd8\x2a" * 16, "n" * 300)
    assert canonical(value) == bytes(
        libipld.encode_dag_cbor(msgspec.to_builtins(value, builtin_types=(bytes,)))
    )


class Count(msgspec.Struct, frozen=True):
    number: int


def test_an_integer_beyond_the_encodings_range_is_a_user_error():
    with pytest.raises(UserError):
        from_canonical(bytes(libipld.encode_dag_cbor({"number": -(2**64)})), Count)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.just(b"\xffdata"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=30), inner),
    max_leaves=20,
)


@given(plain)
def test_both_encoders_agree_where_no_bytes_look_like_a_cid(value):
    assert _encode(value) == bytes(libipld.encode_dag_cbor(value))
