"""Makes ledger.json: proofs, vouchers and receipts that any implementation can be tried on.

python -m tests.vectors.ledger
"""

import hashlib
from pathlib import Path

import msgspec

from lichen.encoding import canonical, to_builtins, to_pretty_json
from lichen.ledger import keyspec, sign_voucher, voucher_digest
from lichen.ledger.proofs import Prover
from lichen.ledger.results import ProofAnswer
from lichen.ledger.transactions import CreateApp, Transfer
from lichen.ledger.types import network_id
from lichen.market import merkle
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import AMOUNT_MAX, Amount

FILE = Path(__file__).with_name("ledger.json")
ALICE, BOB, SEQUENCER = (key_of(name) for name in ("alice", "bob", "sequencer"))
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
GENESIS = msgspec.structs.replace(genesis_of("alice", "bob"), sequencer=SEQUENCER.public)
NETWORK = network_id(GENESIS)


class ProofCase(msgspec.Struct, frozen=True):
    """An answer of `GET /v1/proofs/{key}`, and whether it proves what it says."""

    name: str
    entry: str
    valid: bool
    answer: ProofAnswer


class VoucherCase(msgspec.Struct, frozen=True):
    """A voucher, hashes and signature in hex, and whether its signer signed it."""

    name: str
    valid: bool
    network: str
    channel: str
    cumulative: str
    digest: str
    signature: str
    signer: str


class ReceiptCase(msgspec.Struct, frozen=True):
    """A receipt's body and its path, in hex, and whether it leads to the root."""

    name: str
    valid: bool
    root: str
    body: str
    index: int
    count: int
    path: tuple[str, ...]


class Vectors(msgspec.Struct, frozen=True):
    """The whole file. `genesis_cbor` is what the network id is the SHA-256 of."""

    network: str
    sequencer: str
    genesis_cbor: str
    genesis: dict
    proofs: tuple[ProofCase, ...]
    vouchers: tuple[VoucherCase, ...]
    receipts: tuple[ReceiptCase, ...]


def make() -> Vectors:
    """Make them; the same bytes every time."""
    return Vectors(
        NETWORK.hex(),
        str(SEQUENCER.address),
        canonical(GENESIS).hex(),
        to_builtins(GENESIS),
        tuple(_proofs()),
        tuple(_vouchers()),
        tuple(_receipts()),
    )


def _proofs():
    ledger = MemoryLedger(GENESIS, SEQUENCER)
    yield _case("the state of the genesis", ledger, f"account/{BOB.address}")
    for number in range(12):
        other = key_of(f"account {number}").address
        ledger.submit(ALICE, Transfer(other, Amount(number + 1)))
    ledger.advance(1234)
    ledger.submit(BOB, CreateApp("shop", "sells"))
    good = _case("an account", ledger, f"account/{BOB.address}")
    yield good
    yield _case("an app", ledger, "app/shop")
    absent = [_case("absent", ledger, f"app/none-{number}") for number in range(40)]
    empty = next(case for case in absent if not case.answer.other)
    beside = next(case for case in absent if case.answer.other)
    yield msgspec.structs.replace(empty, name="absent, its place is empty")
    yield msgspec.structs.replace(beside, name="absent, another entry is in its place")
    yield from _refused(good, beside)


def _refused(good, beside):
    answer = good.answer
    own = hashlib.sha256(bytes.fromhex(answer.key)).hexdigest()
    value_hash = hashlib.sha256(bytes.fromhex(answer.value)).hexdigest()
    swapped = (answer.siblings[1], answer.siblings[0], *answer.siblings[2:])
    signature = bytes.fromhex(answer.signature)
    header = bytes.fromhex(answer.header)
    longer = header.replace(b"\x66height\x0d", b"\x66height\x18\x0d")
    yield _wrong(good, "another value", value=answer.value[:-2] + "39")
    yield _wrong(good, "siblings swapped", siblings=swapped)
    yield _wrong(good, "a sibling is missing", siblings=answer.siblings[:-1])
    yield _wrong(good, "a sibling too many", siblings=(*answer.siblings, "00" * 32))
    yield _wrong(good, "said to be absent, its place empty", value=None)
    yield _wrong(good, "said to be absent, beside itself", value=None, other=own + value_hash)
    yield _wrong(beside, "absent, the other leaf cut", other=beside.answer.other[:-2])
    yield _wrong(beside, "absent, the other leaf missing", other="")
    yield _wrong(good, "signed by somebody else", signature=ALICE.sign(bytes(32)).hex())
    yield _wrong(good, "the signature's high-s twin", signature=_twin(signature).hex())
    yield _wrong(good, "a byte behind the header", header=(header + b"\0").hex())
    yield _signed(good, "a signed header with a number not in its shortest form", longer)
    yield _signed(good, "a signed header with a byte behind it", header + b"\0")
    other = hashlib.sha256(b"another network").digest()
    yield _signed(good, "a header signed for another network", header, other)


def _case(name, ledger, entry):
    key = keyspec.parse_key(entry).encode()
    return ProofCase(name, entry, True, Prover().prove(ledger.state, key))


def _wrong(case, name, **changes):
    answer = msgspec.structs.replace(case.answer, **changes)
    return ProofCase(name, case.entry, False, answer)


def _signed(case, name, header, network=NETWORK):
    hash_ = hashlib.sha256(b"lichen/block/1\0" + network + header).digest()
    return _wrong(case, name, header=header.hex(), signature=SEQUENCER.sign(hash_).hex())


def _twin(signature):
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])


def _vouchers():
    channel = hashlib.sha256(b"a channel").digest()
    for cumulative in (0, 1, 10**18, AMOUNT_MAX):
        voucher = sign_voucher(NETWORK, ALICE, channel, cumulative)
        yield _voucher("a voucher", cumulative, voucher.signature)
    signature = voucher.signature
    yield _voucher("another amount", AMOUNT_MAX - 1, signature, valid=False)
    yield _voucher("the high-s twin", AMOUNT_MAX, _twin(signature), valid=False)
    wallet = signature[:64] + bytes([signature[64] + 27])
    yield _voucher("a recovery id as wallets write it", AMOUNT_MAX, wallet, valid=False)
    yield _voucher("another signer", AMOUNT_MAX, signature, BOB, valid=False)
    yield _voucher("cut", AMOUNT_MAX, signature[:64], valid=False)


def _voucher(name, cumulative, signature, signer=ALICE, *, valid=True):
    channel = hashlib.sha256(b"a channel").digest()
    digest = voucher_digest(NETWORK, channel, cumulative)
    return VoucherCase(
        name, valid, NETWORK.hex(), channel.hex(), str(cumulative), digest.hex(), signature.hex(),
        str(signer.address),
    )  # fmt: skip


def _receipts():
    for count in (1, 2, 5):
        bodies = [b"receipt %d" % number for number in range(count)]
        leaves = [merkle.leaf_hash(body) for body in bodies]
        for index, body in enumerate(bodies):
            path = tuple(one.hex() for one in merkle.path(leaves, index))
            root = merkle.root(leaves).hex()
            yield ReceiptCase("a receipt", True, root, body.hex(), index, count, path)
    yield ReceiptCase("another body", False, root, b"x".hex(), index, count, path)
    yield ReceiptCase("another place", False, root, body.hex(), 0, count, path)
    yield ReceiptCase("no such place", False, root, body.hex(), count, count, path)
    yield ReceiptCase("a sibling too many", False, root, body.hex(), index, count, path * 2)


if __name__ == "__main__":
    FILE.write_bytes(to_pretty_json(make()))
