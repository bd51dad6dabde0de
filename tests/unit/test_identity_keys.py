"""Keys, addresses and base58: vectors from elsewhere, and what must never verify."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.errors import UserError
from lichen.identity import Address, KeyKind, PrivateKey, PublicKey, base58, recover, signing_digest

ORDER = {
    KeyKind.SECP256K1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    KeyKind.P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
KINDS = list(KeyKind)
DIGEST = bytes(range(32))
# The EIP-55 specification's own test cases.
EIP55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]
# Well-known secret and account pairs of Ethereum: scalar 1, and the first two of Hardhat and Anvil.
ETHEREUM = [
    ("00" * 31 + "01", "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"),
    (
        "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    ),
    (
        "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    ),
]


def key_of(kind, number=7):
    return PrivateKey(kind, number.to_bytes(32, "big"))


@pytest.mark.parametrize("text", EIP55)
def test_addresses_are_spelled_as_eip55_says(text):
    assert str(Address.parse(text.lower())) == text
    assert Address.parse(text) == Address(bytes.fromhex(text[2:]))


def test_a_mistyped_address_is_refused_and_lower_case_suggested():
    wrong = EIP55[4].replace("F3E94", "f3E94")
    with pytest.raises(UserError, match="checksum") as caught:
        Address.parse(wrong)
    assert wrong.lower() in caught.value.hint


@pytest.mark.parametrize("text", ["", "0x", "0x12", EIP55[0][2:], EIP55[0] + "0", "0x" + "g" * 40])
def test_text_that_is_no_address_is_refused(text):
    with pytest.raises(UserError):
        Address.parse(text)


def test_the_wire_form_of_an_address_is_its_eip55_spelling_only():
    with pytest.raises(ValueError, match="EIP-55"):
        Address.from_wire(EIP55[4].lower())
    assert Address.from_wire(EIP55[4]).to_wire() == EIP55[4]


@pytest.mark.parametrize("size", [0, 19, 21, 32])
def test_an_address_has_twenty_bytes(size):
    with pytest.raises(UserError):
        Address(bytes(size))


@pytest.mark.parametrize(("secret", "address"), ETHEREUM)
def test_a_secp256k1_account_has_its_ethereum_address(secret, address):
    assert str(PrivateKey(KeyKind.SECP256K1, bytes.fromhex(secret)).address) == address


def test_one_secret_has_a_different_account_per_kind():
    assert len({key_of(kind).address for kind in KINDS}) == 3


@pytest.mark.parametrize("kind", KINDS)
@given(number=st.integers(1, 2**255), digest=st.binary(min_size=32, max_size=32))
@settings(max_examples=25)
def test_a_signature_verifies_and_is_deterministic(kind, number, digest):
    key = key_of(kind, number)
    signature = key.sign(digest)
    assert key.sign(digest) == signature
    assert key.public.verify(digest, signature)
    assert PublicKey.from_wire(key.public.to_wire()) == key.public


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_any_flipped_bit_breaks_a_signature(kind, data):
    key = key_of(kind)
    signature = bytearray(key.sign(DIGEST))
    position = data.draw(st.integers(0, len(signature) * 8 - 1))
    signature[position // 8] ^= 1 << position % 8
    assert not key.public.verify(DIGEST, bytes(signature))


@pytest.mark.parametrize("kind", KINDS)
@given(signature=st.binary(max_size=80), digest=st.binary(max_size=40))
def test_verifying_garbage_says_no_and_never_raises(kind, signature, digest):
    assert key_of(kind).public.verify(digest, signature) is False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [-1, 1, -64])
def test_signatures_of_wrong_length_are_refused(kind, change):
    key = key_of(kind)
    good = key.sign(DIGEST)
    bad = good + b"\0" if change > 0 else good[:change]
    assert not key.public.verify(DIGEST, bad)
    assert not key.public.verify_message(DIGEST, bad)


@pytest.mark.parametrize("kind", [KeyKind.SECP256K1, KeyKind.P256])
def test_the_high_s_twin_of_a_signature_is_refused(kind):
    key = key_of(kind)
    signature = key.sign(DIGEST)
    s = int.from_bytes(signature[32:64], "big")
    assert s <= ORDER[kind] // 2
    twin = signature[:32] + (ORDER[kind] - s).to_bytes(32, "big")
    if kind is KeyKind.SECP256K1:
        twin += bytes([signature[64] ^ 1])
    assert not key.public.verify(DIGEST, twin)


def test_other_signers_of_p256_messages_need_not_normalise_s():
    key = key_of(KeyKind.P256)
    signature = key.sign_message(b"hello")
    s = int.from_bytes(signature[32:], "big")
    twin = signature[:32] + (ORDER[KeyKind.P256] - s).to_bytes(32, "big")
    assert key.public.verify_message(b"hello", signature)
    assert key.public.verify_message(b"hello", twin)


@pytest.mark.parametrize("kind", [KeyKind.SECP256K1, KeyKind.P256])
@pytest.mark.parametrize("r", [0, 1])
def test_zero_r_or_s_is_refused(kind, r):
    signature = r.to_bytes(32, "big") + bytes(32) + b"\0" * (kind is KeyKind.SECP256K1)
    assert not key_of(kind).public.verify(DIGEST, signature)


@pytest.mark.parametrize("kind", KINDS)
@given(message=st.binary(max_size=200))
@settings(max_examples=20)
def test_messages_of_any_length_are_signed_whole(kind, message):
    key = key_of(kind)
    signature = key.sign_message(message)
    assert key.public.verify_message(message, signature)
    assert not key.public.verify_message(message + b"\0", signature)


def test_ed25519_messages_follow_rfc_8032():
    key = PrivateKey(
        KeyKind.ED25519,
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
    )
    assert key.public.compressed.hex() == (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
    assert key.sign_message(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_secp256k1_signature_recovers_its_key():
    key = key_of(KeyKind.SECP256K1)
    assert recover(DIGEST, key.sign(DIGEST)) == key.public
    assert recover(DIGEST[:31], key.sign(DIGEST)) is None


def test_a_signature_that_ecrecover_cannot_check_is_none():
    """r + order is the x of a point for about half of the small r; ids 2 and 3 say so."""
    for r in range(1, 20):
        for recovery_id in (2, 3):
            signature = r.to_bytes(32, "big") + DIGEST + bytes([recovery_id])
            assert recover(DIGEST, signature) is None


@pytest.mark.parametrize("kind", KINDS)
def test_only_digests_of_32_bytes_are_signed(kind):
    with pytest.raises(ValueError, match="32-byte"):
        key_of(kind).sign(b"short")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 31, 33])
def test_secrets_have_32_bytes(kind, size):
    with pytest.raises(UserError):
        PrivateKey(kind, bytes(size))


@pytest.mark.parametrize("kind", [KeyKind.SECP256K1, KeyKind.P256])
def test_secrets_outside_of_the_curve_are_refused(kind):
    for scalar in (0, ORDER[kind], 2**256 - 1):
        with pytest.raises(UserError, match="range"):
            PrivateKey(kind, scalar.to_bytes(32, "big"))


@given(encoded=st.binary(max_size=40))
def test_bytes_that_are_no_public_key_are_a_user_error(encoded):
    try:
        key = PublicKey.decode(encoded)
    except UserError:
        return
    assert key.encode() == encoded


def test_ed25519_keys_of_small_order_are_refused():
    for compressed in (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
        with pytest.raises(UserError):
            PublicKey(KeyKind.ED25519, compressed)


def test_public_key_text_is_a_did_key():
    # The example of the did:key specification for Ed25519.
    text = "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
    assert PublicKey.from_wire(text).kind is KeyKind.ED25519
    assert PublicKey.from_wire(text).to_wire() == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_key_does_not_leak_by_printing_or_copying(kind):
    key = key_of(kind, 0xABCDEF)
    assert "abcdef" not in f"{key!r} {key}".lower().replace(str(key.address).lower(), "")
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="vault"):
            leak(key)


@given(st.binary(max_size=100))
def test_base58_round_trips(data):
    assert base58.decode(base58.encode(data)) == data


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"Hello World!", "2NEpo7TZRRrLZSi2U"), (b"\0\0\x28\x7f\xb4\xcd", "11233QC4")],
)
def test_base58_matches_the_internet_draft(raw, text):
    assert base58.encode(raw) == text
    assert base58.decode(text) == raw


@pytest.mark.parametrize("text", ["0", "O", "I", "l", " ", "é", "1" * 257])
def test_base58_refuses_other_letters_and_long_text(text):
    with pytest.raises(UserError):
        base58.decode(text)


def test_signing_digests_differ_by_domain_network_and_body():
    networks = (bytes(32), b"\x01" * 32)
    digests = {
        signing_digest(domain, network, body)
        for domain in ("lichen/a/1", "lichen/b/1")
        for network in networks
        for body in (b"1", b"2")
    }
    assert len(digests) == 8


@pytest.mark.parametrize(
    ("domain", "network"), [("", bytes(32)), ("a\0b", bytes(32)), ("a", bytes(31))]
)
def test_a_malformed_domain_or_network_is_a_mistake_of_the_caller(domain, network):
    with pytest.raises(ValueError, match=r"domain|network"):
        signing_digest(domain, network, b"")
