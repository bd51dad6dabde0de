"""The vectors for other implementations: made by this code, and judged by it as they say."""

import hashlib

import pytest

from lichen.encoding import convert, from_canonical, from_json, to_pretty_json
from lichen.errors import VerificationError
from lichen.identity import Address
from lichen.ledger import keyspec
from lichen.ledger.light import Verifier
from lichen.ledger.types import Genesis
from lichen.ledger.voucher import Voucher, verify_voucher, voucher_digest
from lichen.market import merkle
from lichen.units import Amount
from tests.vectors import ledger as vectors

FILE = from_json(vectors.FILE.read_bytes(), vectors.Vectors)


def test_the_file_is_what_the_code_makes():
    made = to_pretty_json(vectors.make())
    assert vectors.FILE.read_bytes() == made, "run: python -m tests.vectors.ledger"


def test_the_network_is_its_genesis():
    raw = bytes.fromhex(FILE.genesis_cbor)
    assert hashlib.sha256(raw).hexdigest() == FILE.network
    genesis = from_canonical(raw, Genesis)
    assert convert(FILE.genesis, Genesis) == genesis
    assert str(genesis.sequencer.address) == FILE.sequencer


@pytest.mark.parametrize("case", FILE.proofs, ids=lambda case: case.name)
def test_a_proof_is_judged_as_the_vectors_say(case):
    verifier = Verifier(from_canonical(bytes.fromhex(FILE.genesis_cbor), Genesis))
    key = keyspec.parse_key(case.entry).encode()
    assert case.answer.key == key.hex()
    if case.valid:
        verifier.check(key, case.answer)
    else:
        with pytest.raises(VerificationError):
            verifier.check(key, case.answer)


@pytest.mark.parametrize("case", FILE.vouchers, ids=lambda case: case.name)
def test_a_voucher_is_judged_as_the_vectors_say(case):
    network, channel = bytes.fromhex(case.network), bytes.fromhex(case.channel)
    cumulative = Amount(int(case.cumulative))
    assert voucher_digest(network, channel, cumulative).hex() == case.digest
    voucher = Voucher(channel, cumulative, bytes.fromhex(case.signature))
    assert verify_voucher(network, voucher, Address.parse(case.signer)) == case.valid


@pytest.mark.parametrize("case", FILE.receipts, ids=lambda case: case.name)
def test_a_receipts_path_is_judged_as_the_vectors_say(case):
    path = [bytes.fromhex(one) for one in case.path]
    leaf = merkle.leaf_hash(bytes.fromhex(case.body))
    root = merkle.root_from_path(leaf, case.index, case.count, path)
    assert (root == bytes.fromhex(case.root)) == case.valid
