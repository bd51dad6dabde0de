import libipld
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content.cid import CID, RAW
from lichen.encoding import canonical, to_builtins
from lichen.errors import VerificationError
from lichen.identity import PrivateKey
from lichen.identity.digest import Digest
from lichen.market import merkle
from lichen.market.pricing import Meter
from lichen.market.receipt import (
    NO_BATCH,
    FunctionRef,
    Price,
    ReceiptBody,
    RequestDigest,
    ResponseDigest,
    Verification,
    assemble,
    sign_batch,
    write_receipt,
)
from lichen.units import Amount
from lichen.verify.receipt import verify_receipt

NETWORK = Digest(bytes(range(32)))
KEY = PrivateKey.generate()


def make_body(run: int = 0, amount: int = 5) -> ReceiptBody:
    return ReceiptBody(
        network=NETWORK,
        run=f"ab-{run}",
        function=FunctionRef(CID.of(RAW, b"code"), "hello", 1, "api"),
        profile="workerd",
        request=RequestDigest(Digest(bytes(32)), 0),
        response=ResponseDigest(Digest(merkle.EMPTY_ROOT), 0, 200),
        meter=Meter(1, 2, 3, 4),
        price=Price(Amount(10), Amount(amount), Digest(bytes(32))),
        tier="process",
        node=KEY.address,
        started_at=5,
        verification=Verification("none", (), "unverified"),
    )


def make_file(count: int = 7, index: int = 3, amount: int = 5) -> bytes:
    bodies = [canonical(make_body(run, amount)) for run in range(count)]
    leaves = [merkle.leaf_hash(body) for body in bodies]
    _, signature = sign_batch(KEY, NETWORK, 4, NO_BATCH, leaves)
    return write_receipt(assemble(bodies[index], KEY.public, 4, NO_BATCH, leaves, index, signature))


def test_a_receipt_checks_out_offline_and_has_the_cid_of_its_body() -> None:
    report = verify_receipt(make_file(), network=NETWORK, response=b"")
    assert report.id == CID.of(0x71, canonical(make_body(3)))
    assert len(report.checks) == 5


def test_a_change_of_any_single_byte_is_noticed() -> None:
    data = make_file()
    for position in range(len(data)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= flip
            with pytest.raises(VerificationError):
                verify_receipt(bytes(changed))


def test_a_byte_added_or_removed_anywhere_is_noticed() -> None:
    data = make_file(count=2, index=1)
    for position in range(len(data)):
        for changed in (
            data[:position] + data[position + 1 :],
            data[:position] + b" " + data[position:],
        ):
            if changed != data:
                with pytest.raises(VerificationError):
                    verify_receipt(changed)


def test_a_bill_over_the_ceiling_does_not_verify() -> None:
    with pytest.raises(VerificationError, match="above the agreed ceiling"):
        verify_receipt(make_file(amount=11))


def test_another_networks_receipt_does_not_verify() -> None:
    with pytest.raises(VerificationError, match="network"):
        verify_receipt(make_file(), network=bytes(32))


def test_a_receipt_signed_by_somebody_else_does_not_verify() -> None:
    other = PrivateKey.generate()
    body = canonical(make_body())
    leaves = [merkle.leaf_hash(body)]
    _, signature = sign_batch(other, NETWORK, 0, NO_BATCH, leaves)
    data = write_receipt(assemble(body, other.public, 0, NO_BATCH, leaves, 0, signature))
    with pytest.raises(VerificationError, match="names node"):
        verify_receipt(data)


def test_an_unsigned_receipt_does_not_verify() -> None:
    receipt = verify_receipt(make_file()).receipt
    data = write_receipt(msgspec.structs.replace(receipt, signatures=()))
    with pytest.raises(VerificationError, match="nobody signed"):
        verify_receipt(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_one_type(data: bytes) -> None:
    with pytest.raises(VerificationError):
        verify_receipt(data)


def test_canonical_bytes_are_those_of_plain_dag_cbor() -> None:
    body = make_body()
    assert libipld.encode_dag_cbor(to_builtins(body)) == canonical(body)


@given(st.integers(1, 70), st.data())
def test_a_merkle_path_leads_every_leaf_to_the_root_and_nothing_else(
    count: int, data: st.DataObject
) -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(count)]
    index = data.draw(st.integers(0, count - 1))
    path = merkle.path(leaves, index)
    assert merkle.root_from_path(leaves[index], index, count, path) == merkle.root(leaves)
    wrong = data.draw(
        st.integers(0, count - 1).filter(lambda number: number != index)
        if count > 1
        else st.just(count)
    )
    assert merkle.root_from_path(leaves[index], wrong, count, path) != merkle.root(leaves)
    assert merkle.root_from_path(leaves[index], index, count, (*path, bytes(32))) is None
