"""Transactions and vouchers: what is signed, what is refused, what a mistake cannot do."""

from __future__ import annotations

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import UserError
from lichen.identity import KeyKind, keccak256
from lichen.ledger import (
    BadTransactionError,
    ExitNode,
    OpenChannel,
    Transfer,
    Voucher,
    decode_transaction,
    encode_transaction,
    sign_transaction,
    sign_voucher,
    transaction_id,
    verify_voucher,
    voucher_digest,
)
from lichen.ledger.transactions import TRANSACTION_BYTES_MAX
from lichen.testing.ledger import key_of
from lichen.units import Amount

NETWORK = bytes(range(32))
ALICE, BOB = key_of("alice"), key_of("bob")


@pytest.mark.parametrize("kind", list(KeyKind))
def test_what_was_signed_is_what_is_read_for_every_kind_of_key(kind):
    key = key_of("any", kind)
    signed = sign_transaction(NETWORK, key, 2**40, Transfer(BOB.address, Amount(2**127)))
    received = decode_transaction(encode_transaction(signed))
    assert received.signed == signed
    assert received.id == transaction_id(signed)
    assert received.signature_holds()


@given(st.integers(0, 400), st.integers(1, 2**128 - 1))
def test_every_signature_survives_the_wire(nonce, amount):
    """Also those whose first bytes look like a CID: one in a few hundred does."""
    signed = sign_transaction(NETWORK, ALICE, nonce, Transfer(BOB.address, Amount(amount)))
    assert decode_transaction(encode_transaction(signed)).signature_holds()


@given(st.data())
def test_no_flipped_bit_leaves_a_valid_transaction(data):
    raw = encode_transaction(sign_transaction(NETWORK, ALICE, 7, Transfer(BOB.address, Amount(5))))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    broken = bytearray(raw)
    broken[position // 8] ^= 1 << position % 8
    try:
        received = decode_transaction(bytes(broken))
    except BadTransactionError:
        return
    assert not received.signature_holds()


@given(st.binary(max_size=200))
def test_junk_is_refused_as_a_bad_transaction(junk):
    with pytest.raises(BadTransactionError):
        decode_transaction(junk)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.data())
def test_no_value_in_any_field_gets_past_the_typed_refusal(data):
    signed = sign_transaction(NETWORK, ALICE, 0, Transfer(BOB.address, Amount(1)))
    fields = libipld.decode_dag_cbor(encode_transaction(signed))
    target = data.draw(st.sampled_from([fields, fields["body"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(plain)
    try:
        received = decode_transaction(bytes(libipld.encode_dag_cbor(fields)))
    except BadTransactionError:
        return
    assert received.signed == signed or not received.signature_holds()


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": -(2**64)},
        {"nonce": 2**64 - 1, "extra": 1},
        {"network": b"short"},
        {"signature": b""},
        {"body": {"kind": "mint", "amount": "1"}},
        {"body": {"kind": "transfer", "to": str(BOB.address), "amount": "01"}},
        {"body": {"kind": "transfer", "to": str(BOB.address), "amount": 1}},
        {"body": {"kind": "transfer", "to": str(BOB.address).lower(), "amount": "1"}},
        {"signer": "zzzz"},
    ],
)
def test_another_spelling_or_shape_is_refused(change):
    signed = sign_transaction(NETWORK, ALICE, 0, ExitNode())
    plain = libipld.decode_dag_cbor(encode_transaction(signed))
    with pytest.raises(BadTransactionError):
        decode_transaction(bytes(libipld.encode_dag_cbor(plain | change)))


def test_a_longer_spelling_of_a_number_is_refused():
    raw = encode_transaction(sign_transaction(NETWORK, ALICE, 0, ExitNode()))
    longer = raw.replace(b"\x65nonce\x00", b"\x65nonce\x18\x00")
    assert libipld.decode_dag_cbor(longer) == libipld.decode_dag_cbor(raw)
    with pytest.raises(BadTransactionError):
        decode_transaction(longer)


def test_deep_nesting_and_long_bodies_are_refused():
    with pytest.raises(BadTransactionError):
        decode_transaction(b"\x81" * 60_000)
    with pytest.raises(BadTransactionError):
        decode_transaction(bytes(TRANSACTION_BYTES_MAX + 1))


def test_a_signature_is_for_one_network_only():
    body = OpenChannel(BOB.address, ALICE.address, "", Amount(1), None)
    first = sign_transaction(NETWORK, ALICE, 0, body)
    second = sign_transaction(bytes(32), ALICE, 0, body)
    assert transaction_id(first) != transaction_id(second)
    assert not ALICE.public.verify(transaction_id(second), first.signature)


def test_the_voucher_digest_is_eip_712s():
    """Packed here once more, as the specification writes it down."""

    def word(text: str) -> bytes:
        return keccak256(text.encode())

    channel, cumulative = bytes(range(32, 64)), 10**18
    domain = keccak256(
        word("EIP712Domain(string name,string version,bytes32 salt)")
        + word("Lichen")
        + word("1")
        + NETWORK
    )
    struct = keccak256(
        word("Voucher(bytes32 channel,uint128 cumulative)")
        + channel
        + cumulative.to_bytes(32, "big")
    )
    expected = keccak256(b"\x19\x01" + domain + struct)
    assert voucher_digest(NETWORK, channel, cumulative) == expected


def test_a_voucher_is_its_signers_for_one_channel_amount_and_network():
    channel = bytes(32)
    voucher = sign_voucher(NETWORK, ALICE, channel, 5)
    assert verify_voucher(NETWORK, voucher, ALICE.address)
    assert not verify_voucher(NETWORK, voucher, BOB.address)
    assert not verify_voucher(bytes(32), voucher, ALICE.address)
    assert not verify_voucher(
        NETWORK, Voucher(bytes([1] * 32), voucher.cumulative, voucher.signature), ALICE.address
    )
    assert not verify_voucher(
        NETWORK, Voucher(channel, Amount(6), voucher.signature), ALICE.address
    )
    assert not verify_voucher(NETWORK, Voucher(b"", Amount(5), b""), ALICE.address)


def test_only_keys_that_contracts_can_check_sign_vouchers():
    with pytest.raises(UserError):
        sign_voucher(NETWORK, key_of("ed", KeyKind.ED25519), bytes(32), 5)
