"""IPNS names and records: what is signed is read back, and nothing else passes for it."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import protobuf
from lichen.content.cid import CID, DAG_PB, LIBP2P_KEY, RAW
from lichen.content.ipns import (
    RECORD_BYTES_MAX,
    ExpiredRecordError,
    InvalidRecordError,
    Name,
    create_record,
    verify_record,
    verify_signature,
)
from lichen.content.ipns_time import parse_time, spell_time
from lichen.content.libp2p_key import KeyType, public_key, read_key, sign
from lichen.encoding import canonical
from lichen.errors import UserError
from lichen.identity import KeyKind, PrivateKey

NOW = 1_760_000_000 * 10**9
DAY = 86_400 * 10**9
VALUE = "/ipfs/bafkqaddwgevxmmraojswg33smq"
KEYS = {kind: PrivateKey(kind, bytes(range(1, 33))) for kind in KeyKind}
KEY = KEYS[KeyKind.ED25519]
NAME = Name.of(public_key(KEY))


def record(key=KEY, value=VALUE, **fields):
    return create_record(
        key, value, **{"sequence": 7, "eol_ns": NOW + DAY, "ttl_ns": 300 * 10**9, **fields}
    )


def pb(fields):
    """Spell a record's protobuf by field number."""
    return b"".join(
        protobuf.varint_field(field, value)
        if isinstance(value, int)
        else protobuf.bytes_field(field, value)
        for field, value in fields
    )


def signed(data, *, before=(), key=KEY):
    """A record around any signed bytes."""
    return pb([*before, (8, sign(key, b"ipns-signature:" + data)), (9, data)])


def document(**changes):
    fields = {
        "Value": VALUE.encode(),
        "Validity": spell_time(NOW + DAY),
        "ValidityType": 0,
        "Sequence": 7,
        "TTL": 300 * 10**9,
        **changes,
    }
    return canonical({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize("kind", KeyKind)
@pytest.mark.parametrize("with_v1", [True, False])
def test_a_record_reads_back_as_it_was_signed_with_every_kind_of_key(kind, with_v1):
    made = record(KEYS[kind], with_v1=with_v1)
    name = Name.of(public_key(KEYS[kind]))
    assert verify_record(name, made.encoded, NOW) == made
    assert (made.value, made.sequence, made.eol_ns) == (VALUE, 7, NOW + DAY)


# Made by this code, and read by Kubo 0.44 (`ipfs name inspect --verify`), which said the same.
KNOWN = {
    KeyKind.ED25519: "k51qzi5uqu5dj7skeind43o1an76ns1q5g2bupqw6o1hmcccenbkvalzo2olt0",
    KeyKind.SECP256K1: "kzwfwjn5ji4pumzbn760fmovn84lkimjectjbqenk9vmyqaoog6lopm9arfl4fk",
    KeyKind.P256: "k2k4r8nnvsune7aib3ulcg2pmrw7pdfanv7ls0y73azjfxiy7vj903to",
}


@pytest.mark.parametrize("kind", KeyKind)
def test_a_key_has_the_name_that_other_software_gives_it(kind):
    assert str(Name.of(public_key(KEYS[kind]))) == KNOWN[kind]


def test_small_keys_are_their_own_names_and_large_ones_are_hashed():
    assert NAME.cid.digest == public_key(KEY).encoded
    large = public_key(KEYS[KeyKind.P256])
    assert Name.of(large).cid.digest == hashlib.sha256(large.encoded).digest()


@pytest.mark.parametrize("kind", KeyKind)
def test_every_spelling_of_a_name_is_the_same_name(kind):
    name = Name.of(public_key(KEYS[kind]))
    old = CID.decode(b"\x01" + bytes((DAG_PB,)) + name.multihash)
    spellings = [str(name), name.peer_id, str(name.cid), old.to_base36(), str(old)]
    assert {Name.parse(text) for text in spellings} == {name}
    assert name.cid.codec == LIBP2P_KEY
    assert len(str(name)) <= 63


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Qm",
        "example.org",
        "k51",
        "k-51qzi5uqu5dlchigsomo01bprx6htfzqgu06apw91lyczy8f2jkme9c9nr3ht",
        "k5_1qzi5uqu5dlchigsomo01bprx6htfzqgu06apw91lyczy8f2jkme9c9nr3ht",
        "bafkqaaa",
        str(CID.of(RAW, b"content is no name")),
        "1" * 300,
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(UserError, match="IPNS name"):
        Name.parse(text)


def test_a_record_of_another_name_is_refused():
    other = Name.of(public_key(KEYS[KeyKind.SECP256K1]))
    with pytest.raises(InvalidRecordError, match="signature"):
        verify_record(other, record().encoded, NOW)
    with pytest.raises(InvalidRecordError, match="public key is another"):
        verify_record(NAME, record(KEYS[KeyKind.P256]).encoded, NOW)


def test_a_record_ends():
    made = record()
    assert verify_record(NAME, made.encoded, NOW + DAY - 1) == made
    with pytest.raises(ExpiredRecordError):
        verify_record(NAME, made.encoded, NOW + DAY)
    assert verify_signature(NAME, made.encoded) == made


@given(st.data())
def test_no_changed_byte_changes_what_a_record_says(data):
    """Only the unsigned signature of version 1 may differ; it decides nothing."""
    made = record()
    position = data.draw(st.integers(0, len(made.encoded) - 1))
    changed = bytearray(made.encoded)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        found = verify_record(NAME, bytes(changed), NOW)
    except InvalidRecordError:
        return
    assert (found.value, found.sequence, found.eol_ns) == (made.value, made.sequence, made.eol_ns)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_record_are_refused_as_such(data):
    with pytest.raises(InvalidRecordError):
        verify_record(NAME, data, NOW)


@given(st.binary(max_size=200))
def test_whatever_the_key_signs_is_a_record_or_refused(data):
    with pytest.raises(InvalidRecordError):
        verify_record(NAME, signed(data), NOW)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Value": None}, "Value"),
        ({"Validity": None}, "Validity"),
        ({"Sequence": None}, "Sequence"),
        ({"Sequence": -1}, "negative"),
        ({"TTL": -1}, "negative"),
        ({"Sequence": "7"}, "Sequence"),
        ({"ValidityType": 1}, "validity type"),
        ({"Validity": b"tomorrow"}, "RFC 3339"),
        ({"Value": b"/etc/passwd"}, "content path"),
        ({"Value": b"/ipfs/\xff"}, "UTF-8"),
        ({"Value": b"/ipfs/" + b"a" * 5000}, "content path"),
    ],
)
def test_a_signed_document_out_of_the_specification_is_refused(changes, why):
    with pytest.raises(InvalidRecordError, match=why):
        verify_record(NAME, signed(document(**changes)), NOW)


def test_fields_that_are_not_known_are_passed_over():
    encoded = signed(document(_note="mine")) + protobuf.bytes_field(40, b"later")
    assert verify_record(NAME, encoded, NOW).value == VALUE


def test_a_record_without_a_time_to_live_says_none():
    assert verify_record(NAME, signed(document(TTL=None)), NOW).ttl_ns == 0


def test_a_signature_of_version_1_is_never_enough():
    parts = dict(_walk(record().encoded))
    for missing in ({8}, {9}, {8, 9}):
        left = pb([(field, value) for field, value in parts.items() if field not in missing])
        with pytest.raises(InvalidRecordError, match="version 2"):
            verify_record(NAME, left, NOW)


@pytest.mark.parametrize(
    "change",
    [(1, b"/ipfs/other"), (3, 1), (4, spell_time(NOW + 9 * DAY)), (5, 8), (6, 1)],
)
def test_old_fields_have_to_say_what_is_signed(change):
    parts = dict(_walk(record().encoded)) | {change[0]: change[1]}
    with pytest.raises(InvalidRecordError, match="old fields"):
        verify_record(NAME, pb(parts.items()), NOW)


def test_a_broken_signature_of_version_1_does_not_matter():
    parts = dict(_walk(record().encoded)) | {2: b"broken"}
    assert verify_record(NAME, pb(parts.items()), NOW).value == VALUE


def test_a_field_given_twice_is_refused():
    made = record().encoded
    with pytest.raises(InvalidRecordError, match="twice"):
        verify_record(NAME, made + pb([(9, document(Value=b"/ipfs/other"))]), NOW)


def test_a_record_over_ten_kib_is_refused():
    large = signed(document(_pad=b"x" * RECORD_BYTES_MAX))
    with pytest.raises(InvalidRecordError, match="over"):
        verify_record(NAME, large, NOW)


def test_the_newer_record_counts_by_sequence_and_then_by_its_end():
    first, later = record(), record(eol_ns=NOW + 2 * DAY)
    higher = record(sequence=8, eol_ns=NOW + 1)
    assert higher.is_newer_than(later)
    assert later.is_newer_than(first)
    assert not first.is_newer_than(first)
    assert not later.is_newer_than(higher)


@pytest.mark.parametrize(
    "fields",
    [{"value": "ipfs/x"}, {"value": "/ipfs/" + "x" * 5000}, {"sequence": -1}, {"ttl_ns": 2**64},
     {"eol_ns": -1}, {"eol_ns": 10**21}],
)  # fmt: skip
def test_nothing_is_signed_that_would_be_refused(fields):
    with pytest.raises(UserError):
        record(**fields)


def _walk(encoded):
    for field, _, value in protobuf.fields(encoded):
        yield field, value if isinstance(value, int) else bytes(value)


# --- keys of other software ---------------------------------------------------------------------


def key_pb(kind, data):
    return pb([(1, int(kind)), (2, data)])


def der(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def test_rsa_records_are_believed(rsa_key):
    key = read_key(key_pb(KeyType.RSA, der(rsa_key)))
    data = document()
    signature = rsa_key.sign(b"ipns-signature:" + data, padding.PKCS1v15(), SHA256())
    encoded = pb([(7, key.encoded), (8, signature), (9, data)])
    assert verify_record(Name.of(key), encoded, NOW).value == VALUE
    assert Name.of(key).peer_id.startswith("Qm")
    with pytest.raises(InvalidRecordError, match="signature"):
        verify_record(Name.of(key), pb([(7, key.encoded), (8, b"x" * 256), (9, data)]), NOW)
    with pytest.raises(InvalidRecordError, match="public key"):
        verify_record(Name.of(key), pb([(8, signature), (9, data)]), NOW)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_ecdsa_records_are_believed_on_every_usual_curve(curve):
    theirs = ec.generate_private_key(curve)
    key = read_key(key_pb(KeyType.ECDSA, der(theirs)))
    data = document()
    signature = theirs.sign(b"ipns-signature:" + data, ec.ECDSA(SHA256()))
    encoded = pb([(7, key.encoded), (8, signature), (9, data)])
    assert verify_record(Name.of(key), encoded, NOW).value == VALUE


def test_unsafe_and_malformed_keys_are_refused(rsa_key):
    weak = rsa.generate_private_key(65537, 1024)
    ed = public_key(KEY).encoded
    for data in (
        key_pb(KeyType.RSA, der(weak)),
        key_pb(KeyType.RSA, der(ec.generate_private_key(ec.SECP256R1()))),
        key_pb(KeyType.ECDSA, der(rsa_key)),
        key_pb(KeyType.ECDSA, der(ec.generate_private_key(ec.SECP256K1()))),
        key_pb(KeyType.ECDSA, b"\x30\x03"),
        key_pb(KeyType.ED25519, bytes(32)),
        key_pb(KeyType.ED25519, b"short"),
        key_pb(KeyType.SECP256K1, bytes(33)),
        pb([(1, 9), (2, b"x")]),
        pb([(1, 1)]),
        pb([(2, b"x")]),
        ed + ed,
        ed[:-1],
        b"x" * 5000,
    ):
        with pytest.raises(UserError):
            read_key(data)


# Made by Kubo 0.44 (`ipfs name publish --ttl=7m`), with an Ed25519, an RSA and a secp256k1 key.
OF_KUBO = {
    "k51qzi5uqu5djw04qmj2yuqj17dwul5tkkvq5usqebah7f3069s417skgxbwxq": (
        "ChYvaXBmcy9iYWZrcWFhYS9vZi1zZWxmEkD2ZZNY6G5rrn27kzvNIiDGiY6ZUIFYeV7xBDOlGztxfLVf0fpP2byL"
        "9BSO7iWX4LYGm3gZn/30p/+FYSi075cIGAAiHjIwMzYtMTEtMTlUMTI6NDQ6MjAuNTE0OTQzMjMxWigBMIDQzc+c"
        "DEJAM00A3PgBSd7HBX72/ne8qTbNs7/b80VnHIcYfN9r91cddtujt5P9GoWT4Spo5ctnTVR4KDYgfwc1A3wQKSTB"
        "BEpspWNUVEwbAAAAYcnzaABlVmFsdWVWL2lwZnMvYmFma3FhYWEvb2Ytc2VsZmhTZXF1ZW5jZQFoVmFsaWRpdHlY"
        "HjIwMzYtMTEtMTlUMTI6NDQ6MjAuNTE0OTQzMjMxWmxWYWxpZGl0eVR5cGUA"
    ),
    "k2k4r8l8mnsjxxppglgu7pqbutj27l27nnh4tgwefy7biuly8stdhbnj": (
        "ChMvaXBmcy9iYWZrcWFhYS9vZi1yEoACaGBjc7otP9+YBJr+ikwTU3lXqr7O+aR267LBDHTCOGAnwTkFj6ZUfChl"
        "8rFvsSbnrUzu0e9cGfKD1T9jOMcNobwwye8smvdIc6GxAuXquHCsZNTDvUDD/BmH/urhXmkJ41dqhZ2SdNVVwJzJ"
        "fA9R18Sy7h4KA6D4pn3XirRLPEKP+8U60b7EDTx2DKf9iPU1zHpZvHNtZgZPi4XxTaM7MxSBX2LK66ex8GJmeJgb"
        "a5cqWzTFF+e6F7ARZZvzjf+f7nwK1R6CwP+fRpf4H6mhrc8ZYIMX3HSsTMdUZE5Bp0exGaTW4GgpmCA7NVBgh4Tm"
        "3i7RCqxI7xRnw4rB1+DADBgAIh0yMDM2LTExLTE5VDEyOjQ0OjIwLjU2MjY4ODQzWigBMIDQzc+cDDqrAggAEqYC"
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmXV94SZG/QO5T6ZDojSyNtCqfkAm0qKFdlAEfk6rEgSR"
        "/v0wN7Bd9dLBdguYemPzj9O3UsySjctWfX7jqJUEzocQKuHPbjb2QhmP06qmnDr1bXVfXRyx0j0b2oqNnFEdzcEt"
        "sVjCwH2cqwghVluukHuf7Hk3A0BH6h9wRiH7RvfRKaRJvM5Y48sH6KnzVF0HIVapeU57YlIWplABCvn+9atTAEKv"
        "PkexFNgNZz38PVAubCtuHX8mjMkpwtxxxAho4ZusjGbZ+JCdyoRi9N1KJ1l2Sfk1Ngo5cFJ7O9j7SxqFDOIfIQgq"
        "gHLBnH2wgvDPx4fpgj83eqU/gTqrjok8zQIDAQABQoACNXZAUVoNmlW/oNjL4c4oHFbsZ0Vt5OVRZWPuX5Ukcj7H"
        "Hzg5/NaVMJhxwmtMK9zHIsRy5Cqi1fnLMGlKNRhpvBHilnHqfXvrMyv0tBZtjYJzv46DEv13q3pcGFXhYktG+pbl"
        "rXRNYevwxSkhJ9aSkADyWkvvykNvTDeOKPDhN/JRvCEVzOfKUYVmkkr6T1uc2D7hecSrHnNMaKIM9tzQxEius6Z3"
        "ZuskAcWXYlJ7pAPW0iONaGcMW9ME419BkGHbi4IW3ErZW6fvWepmx9CtcxcmHcUdPMP3ec2YoQSbXzJEsCsBmdQF"
        "SAANlDCvOh/gL/Oado664XK+AzXQOj6k1EpopWNUVEwbAAAAYcnzaABlVmFsdWVTL2lwZnMvYmFma3FhYWEvb2Yt"
        "cmhTZXF1ZW5jZQFoVmFsaWRpdHlYHTIwMzYtMTEtMTlUMTI6NDQ6MjAuNTYyNjg4NDNabFZhbGlkaXR5VHlwZQA="
    ),
    "kzwfwjn5ji4puldmgo3rtb07fbssf5tdrkp4u8wgn5er5zp37mmr95jztmbi66j": (
        "ChMvaXBmcy9iYWZrcWFhYS9vZi1zEkcwRQIhAJn4vePGsSp/LLczta2Zm25D+jR1w5EzR70rPUhT4QL7AiA8dA8E"
        "R09hhP4rA+i3Y0CIZBFAQfWY0mx1ja+nyKGk+xgAIh4yMDM2LTExLTE5VDEyOjQ0OjIwLjYxMDAzMzI3NVooATCA"
        "0M3PnAxCRzBFAiEArdjXhfpheHphyenRjDEbTXNeQH4HXBiZb8SWtT14RIQCIECW6GdorYKXxE9DM2HAKVxSajFQ"
        "D5tq+jSzRt+h/wpuSmmlY1RUTBsAAABhyfNoAGVWYWx1ZVMvaXBmcy9iYWZrcWFhYS9vZi1zaFNlcXVlbmNlAWhW"
        "YWxpZGl0eVgeMjAzNi0xMS0xOVQxMjo0NDoyMC42MTAwMzMyNzVabFZhbGlkaXR5VHlwZQA="
    ),
}


@pytest.mark.parametrize("text", OF_KUBO)
def test_records_that_kubo_made_are_believed(text):
    made = verify_record(Name.parse(text), base64.b64decode(OF_KUBO[text]), NOW)
    assert made.value.startswith("/ipfs/bafkqaaa/of-")
    assert (made.sequence, made.ttl_ns) == (1, 420 * 10**9)
    assert str(Name.parse(text)) == text


# --- times --------------------------------------------------------------------------------------


@given(st.integers(0, 253_402_300_799 * 10**9))
def test_a_time_is_read_as_it_was_written(time_ns):
    assert parse_time(spell_time(time_ns)) == time_ns


def test_times_of_other_software_are_read():
    assert parse_time(b"1970-01-01T00:00:01Z") == 10**9
    assert parse_time(b"1970-01-01T02:00:00.5+02:00") == 5 * 10**8
    assert parse_time(b"2033-05-18T03:33:20.000000001Z") == 2 * 10**18 + 1


@pytest.mark.parametrize(
    "text",
    [b"", b"2033-05-18", b"2033-05-18T03:33:20", b"2033-13-18T03:33:20Z", b"2033-05-18T25:33:20Z",
     b"2033-05-18T03:33:20.0000000001Z", b"2033-05-18 03:33:20Z", b"0000-01-01T00:00:00Z",
     b"9999-12-31T23:59:59-23:59Z", "２033-05-18T03:33:20Z".encode()],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UserError):
        parse_time(text)
