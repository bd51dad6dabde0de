"""CIDs and varints: one spelling each, and nothing but UserError on bad input."""

import base64
import contextlib
import hashlib

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import varint
from lichen.content.cid import BLAKE3, CID, DAG_PB, IDENTITY, RAW, SHA2_512
from lichen.errors import UserError
from lichen.identity import base58


@given(st.integers(0, 2**63 - 1))
def test_a_varint_reads_back(number):
    data = varint.encode(number)
    assert varint.decode(b"x" + data + b"y", 1) == (number, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9, b"\xff" * 1000])
def test_cut_off_endless_and_long_spelt_varints_are_refused(data):
    with pytest.raises(UserError):
        varint.decode(data)


def test_known_texts_name_known_content():
    empty = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert str(CID.of(RAW, b"")) == empty
    v0 = CID.parse("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n")
    v1 = CID.parse("bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
    assert v0.as_v1() == v1
    assert v1.as_version(0) == v0
    assert v0.multihash == v1.multihash


@given(st.sampled_from([RAW, DAG_PB, 0x0129]), st.binary(min_size=20, max_size=64))
def test_every_base_reads_back_to_the_same_cid(codec, digest):
    cid = CID(codec, digest, SHA2_512)
    base16 = "f" + cid.encode().hex()
    assert CID.parse(str(cid)) == CID.parse(base16) == CID.parse(str(cid).upper()) == cid
    assert CID.decode(cid.encode()) == cid
    assert hash(CID.parse(base16)) == hash(cid)


@pytest.mark.parametrize("codec", [RAW, DAG_PB, 0x71, 0x0129])
def test_a_cid_read_in_one_piece_has_all_its_parts(codec):
    made = CID(codec, hashlib.sha256(b"x").digest())
    cid, end = CID.read(b"before" + made.encode() + b"behind", 6)
    assert end == 6 + len(made.encode())
    for part in ("version", "codec", "hash_code", "digest", "multihash"):
        assert getattr(cid, part) == getattr(made, part)
    assert (cid, str(cid), cid.encode()) == (made, str(made), made.encode())
    for cut in range(len(made.encode())):
        with pytest.raises(UserError):
            CID.read(made.encode()[:cut], 0)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_cid_or_a_user_error(data):
    with contextlib.suppress(UserError):
        assert CID.decode(data).encode() == data


@given(st.text(max_size=80))
def test_random_text_is_a_cid_or_a_user_error(text):
    with contextlib.suppress(UserError):
        CID.parse(text)


def test_every_known_hash_function_tells_right_bytes_from_wrong():
    data = b"lichen"
    names = [
        CID.of(RAW, data),
        CID(RAW, hashlib.sha512(data).digest(), SHA2_512),
        CID(RAW, blake3(data).digest(), BLAKE3),
        CID(RAW, data, IDENTITY),
    ]
    for cid in names:
        assert cid.matches(data)
        assert not cid.matches(b"lichem")


@pytest.mark.parametrize("size", [0, 1, 19])
def test_a_digest_too_short_to_be_safe_is_refused(size):
    with pytest.raises(UserError):
        CID(RAW, blake3(b"x").digest(size), BLAKE3)


def test_an_unknown_hash_function_is_never_taken_for_a_match():
    with pytest.raises(UserError):
        CID(RAW, bytes(32), 0x1B).matches(b"")


@pytest.mark.parametrize(
    "text", ["k-1", "k 51q", "k5_1", "k051", "k+51", "f01 55", "f0155 1220", "k"]
)
def test_digits_that_only_python_reads_are_no_digits_of_a_cid(text):
    with pytest.raises(UserError):
        CID.parse(text)


@given(st.sampled_from([RAW, DAG_PB, 0x72]), st.binary(min_size=20, max_size=64))
def test_base36_reads_back_in_either_case(codec, digest):
    cid = CID(codec, digest, SHA2_512)
    assert CID.parse(cid.to_base36()) == cid == CID.parse(cid.to_base36().upper())


@given(codec=st.integers(0, 2**20), digest=st.binary(min_size=32, max_size=32))
def test_the_text_is_base32_of_version_1_and_base58_of_version_0(codec, digest):
    cid = CID(codec, digest)
    assert str(cid) == "b" + base64.b32encode(cid.encode()).decode().rstrip("=").lower()
    old = CID(DAG_PB, digest, version=0)
    assert str(old) == base58.encode(old.encode())
