"""What Python accepts the contracts accept, and what it refuses they refuse.

Every test asks both about the same: proofs, vouchers, headers, and what becomes of them when they
are tampered with. `test_contract_records.py` does so for receipts and records.
"""

import hashlib
import random

import coincurve
import libipld
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.conformance import evm as evms
from tests.conformance.evm import flipped, words
from tests.vectors import ledger as vectors

from lichen.encoding import canonical, from_json
from lichen.errors import UserError, VerificationError
from lichen.identity import Address, KeyKind, PublicKey
from lichen.ledger import tables
from lichen.ledger.blocks import Header
from lichen.ledger.light import Verifier
from lichen.ledger.proofs import Prover
from lichen.ledger.transactions import CreateApp, Transfer
from lichen.ledger.tree import Proof, Tree, verify_proof
from lichen.ledger.types import Account, GenesisAccount
from lichen.ledger.voucher import Voucher, sign_voucher, verify_voucher, voucher_digest
from lichen.market import merkle
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import AMOUNT_MAX, FLK, Amount

NETWORK = hashlib.sha256(b"a network").digest()
HASH = st.binary(min_size=32, max_size=32)
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # secp256k1's order
P = 2**256 - 2**32 - 977  # and its field


# --- the state tree ------------------------------------------------------------------------------


class Claim:
    """That under a root a key has a value (None: is absent), with what shall prove it."""

    def __init__(self, root, key, value, siblings, other=b""):
        self.root, self.key, self.value, self.siblings = root, key, value, list(siblings)
        self.other = other

    def with_(self, **changes):
        return Claim(**(vars(self) | changes))

    def holds(self):
        proof = Proof(tuple(self.siblings), self.other)
        return verify_proof(self.root, self.key, self.value, proof)

    def call(self):
        if self.value is None:
            return "excludes", (self.root, self.key, self.siblings, self.other)
        return "includes", (self.root, self.key, self.value, self.siblings)


def claim_of(tree, values, key):
    proof = tree.prove(key)
    return Claim(tree.root, key, values.get(key), proof.siblings, proof.other)


def tree_of(values):
    tree = Tree(lambda _: None)
    tree.adopt(tree.update(values))
    return tree


def tampered(claim, at, bit, stranger):
    """Yield what a liar could make of a claim: every part changed, cut, extended or swapped."""
    siblings, other = claim.siblings, claim.other
    yield claim.with_(root=flipped(claim.root, at, bit))
    yield claim.with_(key=flipped(claim.key, at, bit))
    yield claim.with_(key=claim.key + b"\0")
    yield claim.with_(siblings=[*siblings, bytes(32)])
    yield claim.with_(siblings=[bytes(32), *siblings])
    yield claim.with_(siblings=siblings + [bytes(32)] * (257 - len(siblings)))
    if siblings:
        place = at % len(siblings)
        changed = flipped(siblings[place], at, bit)
        yield claim.with_(siblings=[*siblings[:place], changed, *siblings[place + 1 :]])
        yield claim.with_(siblings=siblings[:-1])
        yield claim.with_(siblings=siblings[1:])
        yield claim.with_(siblings=[*siblings, siblings[-1]])
        yield claim.with_(siblings=siblings[place:] + siblings[:place])
        yield claim.with_(siblings=siblings[::-1])
    own = hashlib.sha256(claim.key).digest()
    if claim.value is None:
        yield claim.with_(value=b"", other=b"")
        yield claim.with_(value=own, other=b"")
        for spelled in (b"", stranger, own + stranger[32:], other[:32], other + b"\0", other[1:]):
            yield claim.with_(other=spelled)
        if other:
            yield claim.with_(other=flipped(other, at, bit))
            yield claim.with_(other=other[32:] + other[:32])
    else:
        yield claim.with_(value=claim.value + b"\0")
        yield claim.with_(value=claim.value[:-1])
        yield claim.with_(value=flipped(claim.value or b"\0", at, bit))
        yield claim.with_(value=None)
        yield claim.with_(value=None, other=own + hashlib.sha256(claim.value).digest())
        yield claim.with_(value=None, other=stranger)


def agree(harness, claims):
    """Require that both sides say the same of each claim; return what they say."""
    ours = [claim.holds() for claim in claims]
    assert harness.accepts(claim.call() for claim in claims) == ours
    return ours


@settings(max_examples=300)
@given(
    values=st.dictionaries(st.binary(max_size=40), st.binary(max_size=100), max_size=24),
    absent=st.binary(max_size=40),
    at=st.integers(0, 2**16),
    bit=st.integers(0, 7),
)
def test_proofs_of_any_state_are_judged_alike(harness, values, absent, at, bit):
    tree = tree_of(values)
    keys = [*list(values)[at % 4 :: 6], absent]
    true = [claim_of(tree, values, key) for key in keys]
    assert all(agree(harness, true))
    first = next(iter(values), b"")
    stranger = hashlib.sha256(first).digest() + hashlib.sha256(values.get(first, b"")).digest()
    agree(harness, [wrong for claim in true for wrong in tampered(claim, at, bit, stranger)])


def test_a_thousand_proofs_hold_and_a_thousand_tampered_ones_do_not(harness):
    dice = random.Random(5)
    values = {dice.randbytes(28): dice.randbytes(90) for _ in range(5000)}
    tree = tree_of(values)
    keys = dice.sample(list(values), 500) + [dice.randbytes(28) for _ in range(500)]
    claims = [claim_of(tree, values, key) for key in keys]
    assert agree(harness, claims) == [True] * 1000
    wrong = []
    for claim in claims:
        place = dice.randrange(len(claim.siblings))
        siblings = list(claim.siblings)
        siblings[place] = flipped(siblings[place], dice.randrange(32), dice.randrange(8))
        wrong.append(claim.with_(siblings=siblings))
    assert agree(harness, wrong) == [False] * 1000


def test_a_path_of_every_depth_is_climbed_alike(harness):
    """Trees that deep cannot be made from hashes, but proofs can: 256 siblings, and not 257."""
    key, value, siblings = b"key", b"value", [bytes([depth % 256]) * 32 for depth in range(257)]
    path = int.from_bytes(hashlib.sha256(key).digest(), "big")
    claims = []
    for depth in (0, 1, 2, 7, 8, 9, 255, 256):
        leaf = hashlib.sha256(b"\0" + hashlib.sha256(key).digest() + hashlib.sha256(value).digest())
        node = leaf.digest()
        for level in reversed(range(depth)):
            pair = (siblings[level], node) if path >> (255 - level) & 1 else (node, siblings[level])
            node = hashlib.sha256(b"\1" + pair[0] + pair[1]).digest()
        claims.append(Claim(node, key, value, siblings[:depth]))
    assert agree(harness, claims) == [True] * len(claims)
    longer = claims[-1].with_(siblings=siblings)
    assert agree(harness, [longer]) == [False]
    assert harness.calls([longer.call()]) == [bytes(32)]  # false, and not a failure


# --- vouchers ------------------------------------------------------------------------------------


def voucher_call(network, channel, cumulative, signature, signer):
    return "voucherHolds", (network, channel, cumulative, signature, signer)


def python_holds(network, channel, cumulative, signature, signer):
    try:
        voucher = Voucher(channel, Amount(cumulative), signature)
    except UserError:  # such an amount can be in no voucher
        return False
    return verify_voucher(network, voucher, Address(signer))


def high_s(signature):
    s = N - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])


def misspelled(signature, at, bit):
    rs, v = signature[:64], signature[64:]
    yield high_s(signature)
    yield flipped(rs, at, bit) + v
    yield from (rs + bytes([id_]) for id_ in (v[0] ^ 1, 2, 3, 4, 27, 28, 255))
    yield from (b"", rs, signature[1:], signature + b"\0", bytes(65))
    yield bytes(32) + signature[32:]
    yield rs[:32] + bytes(32) + v
    yield N.to_bytes(32, "big") + signature[32:]


@settings(max_examples=60)
@given(
    name=st.text(max_size=4),
    network=HASH,
    channel=HASH,
    cumulative=st.integers(0, AMOUNT_MAX),
    at=st.integers(0, 63),
    bit=st.integers(0, 7),
)
@example("", bytes(32), bytes(32), 0, 0, 0)
@example("", bytes(32), bytes(32), AMOUNT_MAX, 0, 0)
def test_vouchers_are_judged_alike(harness, name, network, channel, cumulative, at, bit):
    key = key_of(name)
    signature = sign_voucher(network, key, channel, cumulative).signature
    true = (network, channel, cumulative, signature, key.address)
    wrong = [
        (flipped(network, at, bit), *true[1:]),
        (network, flipped(channel, at, bit), *true[2:]),
        (network, channel, cumulative ^ 1 << at, *true[3:]),
        (network, channel, cumulative + 2**128, *true[3:]),
        (*true[:4], bytes(20)),
        (*true[:4], flipped(key.address, at, bit)),
        *((*true[:3], spelled, key.address) for spelled in misspelled(signature, at, bit)),
    ]
    theirs = harness.accepts(voucher_call(*one) for one in [true, *wrong])
    assert theirs == [True] + [False] * len(wrong)
    assert python_holds(*true)
    assert not any(python_holds(*one) for one in wrong)
    digest = harness.call("voucherDigest", network, channel, cumulative)
    assert digest == voucher_digest(network, channel, cumulative)


def test_a_signature_whose_r_is_over_the_order_is_none(harness):
    """A key can be chosen for one, after the message; ecrecover has no such recovery ids."""
    digest = voucher_digest(NETWORK, bytes(32), 1)
    found = 0
    for r in range(1, 20):  # r + N is the x of a point for about half of them
        signature = r.to_bytes(32, "big") + (1).to_bytes(32, "big") + b"\2"
        try:
            native = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
        except Exception:  # noqa: BLE001 - coincurve's way to say that no point has this x
            continue
        signer = PublicKey(KeyKind.SECP256K1, native.format()).address
        one = (NETWORK, bytes(32), 1, signature, signer)
        assert harness.accepts([voucher_call(*one)]) == [python_holds(*one)] == [False]
        found += 1
    assert found
    assert r + N < P


# --- headers -------------------------------------------------------------------------------------

SEQUENCER = key_of("sequencer")
GENESIS = msgspec.structs.replace(genesis_of("alice", "bob"), sequencer=SEQUENCER.public)
LIGHT = Verifier(GENESIS)
NUMBER = st.sampled_from([0, 1, 23, 24, 255, 256, 2**16, 2**32 - 1, 2**32, 2**63, 2**64 - 1])


@pytest.fixture
def head(evm):
    return evm.deploy("LichenHead", LIGHT.network, SEQUENCER.address)


@pytest.fixture(scope="module")
def new_head(evm):
    """A contract that only calls are made to, so that it stays at height 0."""
    return evm.deploy("LichenHead", LIGHT.network, SEQUENCER.address)


def signed(header, network=LIGHT.network, key=SEQUENCER):
    """Sign any bytes as if they were a header."""
    return header, key.sign(hashlib.sha256(b"lichen/block/1\0" + network + header).digest())


def python_reads(header, signature):
    try:
        LIGHT.header(header, signature)
    except VerificationError:
        return False
    return True


def agree_on_headers(head, pairs):
    ours = [python_reads(*pair) for pair in pairs]
    theirs = [answer is not None for answer in head.calls(("advance", pair) for pair in pairs)]
    assert theirs == ours
    return ours


def respelled(header):
    """Yield other CBOR of the same values, or nearly so."""
    fields = libipld.decode_dag_cbor(header)
    names = sorted(fields, key=lambda name: (len(name), name))
    heads = {name: bytes([0x60 + len(name)]) + name.encode() for name in names}

    def number(n, width):
        return bytes([0x18 + width.bit_length() - 1]) + n.to_bytes(width, "big")

    def spell(order=names, top=b"\xa6", changed="", as_=b""):
        parts = (
            heads[n] + (as_ if n == changed else libipld.encode_dag_cbor(fields[n])) for n in order
        )
        return top + b"".join(parts)

    yield spell(top=b"\xb8\x06")
    yield spell(top=b"\xbf") + b"\xff"
    yield spell(top=b"\xd9\xd9\xf7\xa6")
    yield spell(top=b"\xa7")
    yield spell(top=b"\xa7") + b"\x65extra\x00"
    yield spell(top=b"\xa5", order=names[:5])
    yield spell(top=b"\xa7", order=[*names, names[-1]])
    yield spell(order=sorted(names))
    yield spell(order=[names[1], names[0], *names[2:]])
    for name in ("height", "time_ms", "transactions"):
        for width in (1, 2, 4, 8):
            if fields[name] < 1 << 8 * width:
                yield spell(changed=name, as_=number(fields[name], width))
        yield spell(changed=name, as_=b"\x20")  # -1
        yield spell(changed=name, as_=b"\xf6")  # null
        yield spell(changed=name, as_=b"\xf9\x3c\x00")  # 1.0 in 16 bits
        yield spell(changed=name, as_=b"\xfb\x3f\xf0" + bytes(6))  # 1.0
        yield spell(changed=name, as_=b"\xc2\x41\x01")  # a big number
        yield spell(changed=name, as_=b"\x611")
    for name in ("previous", "state_root", "transactions_hash"):
        raw = fields[name]
        yield spell(changed=name, as_=b"\x59\x00\x20" + raw)
        yield spell(changed=name, as_=b"\x5f\x58\x20" + raw + b"\xff")
        yield spell(changed=name, as_=b"\x58\x1f" + raw[1:])
        yield spell(changed=name, as_=b"\x58\x21" + raw + b"\0")
        yield spell(changed=name, as_=b"\x78\x20" + b"a" * 32)


@settings(max_examples=60)
@given(
    header=st.builds(Header, NUMBER, HASH, NUMBER, NUMBER, HASH, HASH),
    at=st.integers(0, 2**16),
    bit=st.integers(0, 7),
    byte=st.integers(0, 255),
)
@example(Header(1, bytes(32), 0, 0, bytes(32), b"\1\x55\x12\x1d" + bytes(28)), 0, 0, 0)
def test_headers_are_judged_alike(new_head, header, at, bit, byte):
    raw = canonical(header)
    place = at % len(raw)
    changed = [
        raw,
        flipped(raw, at, bit),
        raw[:place] + bytes([byte]) + raw[place:],
        raw[:place] + raw[place + 1 :],
        raw[:place],
        raw + bytes([byte]),
        *respelled(raw),
    ]
    said = agree_on_headers(new_head, [signed(one) for one in changed])
    assert said[0] == (header.height > 0)
    assert not any(said[4:6])
    good, signature = signed(raw)
    wrong = [
        signed(raw, network=flipped(LIGHT.network, at, bit)),
        signed(raw, key=key_of("somebody")),
        (flipped(good, at, bit), signature),
        *((good, spelled) for spelled in misspelled(signature, at, bit)),
    ]
    assert not any(agree_on_headers(new_head, wrong))


def header_at(height, root=b"\5" * 32):
    return signed(canonical(Header(height, bytes(32), 7 * height, 0, bytes(32), root)))


def test_a_head_moves_on_and_never_back(head):
    with pytest.raises(evms.RevertedError, match="UnknownHeight"):
        head.send("has", 0, b"key", b"value", [])
    head.send("advance", *header_at(3))
    head.send("advance", *header_at(5, b"\6" * 32))
    assert head.call("latest") == words(5, 35, b"\6" * 32)
    for again in (header_at(5, b"\6" * 32), header_at(5), header_at(4), header_at(3), header_at(1)):
        with pytest.raises(evms.RevertedError, match="NotNewer"):
            head.send("advance", *again)
    with pytest.raises(evms.RevertedError, match="NotSigned"):
        head.send("advance", header_at(6)[0], header_at(7)[1])
    assert head.call("latest") == words(5, 35, b"\6" * 32)
    roots = head.calls(("stateRootAt", (height,)) for height in (0, 1, 3, 4, 5, 6, 2**64 - 1))
    assert roots == [None, None, b"\5" * 32, None, b"\6" * 32, None, None]


def test_a_head_needs_a_sequencer(evm):
    with pytest.raises(evms.RevertedError):
        evm.deploy("LichenHead", LIGHT.network, bytes(20))


def test_a_contract_asks_what_is_in_a_networks_state_and_what_is_not(head):
    ledger = MemoryLedger(GENESIS, SEQUENCER)
    ledger.submit(key_of("alice"), CreateApp("shop", "sells"))
    prover = Prover()
    present, absent = (prover.prove(ledger.state, key) for key in (b"app/shop", b"app/none"))
    head.send("advance", bytes.fromhex(present.header), bytes.fromhex(present.signature))
    value, proof = bytes.fromhex(present.value), present.proof()
    has, lacks = (1, b"app/shop", value, proof.siblings), absent.proof()
    answers = head.accepts(
        [
            ("has", has),
            ("lacks", (1, b"app/none", lacks.siblings, lacks.other)),
            ("has", (1, b"app/none", value, proof.siblings)),
            ("has", (1, b"app/shop", value + b"\0", proof.siblings)),
            ("lacks", (1, b"app/shop", proof.siblings, b"")),
            ("lacks", (1, b"app/shop", lacks.siblings, lacks.other)),
            ("has", (2, *has[1:])),
        ]
    )
    assert answers == [True, True, False, False, False, False, False]


def test_the_contract_of_the_readme_lets_holders_in_and_nobody_else(evm):
    sender = Address.parse(evm.account)
    alice = GenesisAccount(key_of("alice").address, Amount(2 * FLK))
    rich = msgspec.structs.replace(GENESIS, accounts=(alice, GenesisAccount(sender, Amount(FLK))))
    ledger = MemoryLedger(rich, SEQUENCER)
    head = evm.deploy("LichenHead", ledger.network, SEQUENCER.address)
    door = evm.deploy("ForFlkHolders", bytes.fromhex(head.address[2:]))
    ledger.submit(key_of("alice"), Transfer(key_of("bob").address, Amount(1)))
    answers = [
        Prover().prove(ledger.state, tables.ACCOUNTS.prefix + address)
        for address in (sender, alice.address)
    ]
    head.send("advance", bytes.fromhex(answers[0].header), bytes.fromhex(answers[0].signature))
    own, hers = ((1, bytes.fromhex(one.value), one.proof().siblings) for one in answers)
    door.send("enter", *own)
    with pytest.raises(evms.RevertedError):
        door.send("enter", *hers)


# --- what is written down ------------------------------------------------------------------------

VECTORS = from_json(vectors.FILE.read_bytes(), vectors.Vectors)


def anchored(case):
    return case.answer.header != ""  # the genesis's own state is known without any header


def test_proofs_of_the_vectors_are_judged_as_they_say(evm, harness):
    head = evm.deploy("LichenHead", bytes.fromhex(VECTORS.network), address_of(VECTORS.sequencer))
    cases = [case for case in VECTORS.proofs if anchored(case)]
    headers = [
        (bytes.fromhex(case.answer.header), bytes.fromhex(case.answer.signature)) for case in cases
    ]
    signed_ = [answer is not None for answer in head.calls(("advance", one) for one in headers)]
    claims = [
        Claim(
            bytes.fromhex(case.answer.state_root),
            bytes.fromhex(case.answer.key),
            None if case.answer.value is None else bytes.fromhex(case.answer.value),
            [bytes.fromhex(one) for one in case.answer.siblings],
            bytes.fromhex(case.answer.other),
        )
        for case in cases
    ]
    proved = harness.accepts(claim.call() for claim in claims)
    both = [one and other for one, other in zip(signed_, proved, strict=True)]
    assert both == [case.valid for case in cases]
    assert not all(signed_)
    assert not all(proved)


def test_vouchers_and_receipts_of_the_vectors_are_judged_as_they_say(harness):
    vouchers = [
        voucher_call(
            bytes.fromhex(case.network),
            bytes.fromhex(case.channel),
            int(case.cumulative),
            bytes.fromhex(case.signature),
            address_of(case.signer),
        )
        for case in VECTORS.vouchers
    ]
    assert harness.accepts(vouchers) == [case.valid for case in VECTORS.vouchers]
    receipts = [
        (
            "inBatch",
            (
                bytes.fromhex(case.root),
                bytes.fromhex(case.body),
                (case.index, case.count, [bytes.fromhex(one) for one in case.path]),
            ),
        )
        for case in VECTORS.receipts
    ]
    assert harness.accepts(receipts) == [case.valid for case in VECTORS.receipts]


def address_of(text):
    return Address.parse(text)


def test_whoever_gives_too_little_gas_gets_no_answer_instead_of_a_wrong_one(harness):
    """A precompile that runs out of gas fails, and its caller goes on with what was kept back."""
    values = {b"key-%d" % number: b"value" for number in range(40)}
    tree = tree_of(values)
    voucher = sign_voucher(NETWORK, key_of("a"), bytes(32), 1)
    calls = [
        claim_of(tree, values, b"key-1").call(),
        claim_of(tree, values, b"absent").call(),
        voucher_call(NETWORK, bytes(32), 1, voucher.signature, key_of("a").address),
    ]
    given = range(0, 12_000, 41)
    for call in calls:
        data = harness.data(*call)
        answers = harness.calls(("withGas", (gas, data)) for gas in given)
        said = {(answer[31], answer[96:128]) for answer in answers}
        assert said == {(0, b""), (1, (1).to_bytes(32, "big"))}


GAS_MAX = {  # as contracts/README.md says
    "a proof of 20 siblings": 15_000,
    "a voucher": 5_000,
    "a receipt": 17_000,
    "a network's first header": 90_000,
    "a header": 70_000,
}


def test_gas_is_within_what_is_written_down(harness, head):
    key, value = tables.ACCOUNTS.prefix + key_of("a").address, canonical(Account(7, Amount(10**20)))
    siblings = [bytes([depth]) * 32 for depth in range(20)]
    path, node = hashlib.sha256(key).digest(), hashlib.sha256(value).digest()
    node = hashlib.sha256(b"\0" + path + node).digest()
    for depth in reversed(range(20)):
        bit = path[depth // 8] >> (7 - depth % 8) & 1
        pair = siblings[depth] + node if bit else node + siblings[depth]
        node = hashlib.sha256(b"\1" + pair).digest()
    voucher = sign_voucher(NETWORK, key_of("a"), bytes(32), 10**18)
    leaves = [merkle.leaf_hash(bytes(1024))] * 4096
    gas = {
        "a proof of 20 siblings": harness.call("includesGas", node, key, value, siblings),
        "a voucher": harness.call(
            "voucherGas", NETWORK, bytes(32), 10**18, voucher.signature, key_of("a").address
        ),
        "a receipt": harness.call(
            "inBatchGas", merkle.root(leaves), bytes(1024), (5, 4096, merkle.path(leaves, 5))
        ),
        "a network's first header": int(head.send("advance", *header_at(2**20))["gasUsed"], 16),
        "a header": int(head.send("advance", *header_at(2**20 + 1))["gasUsed"], 16),
    }
    used = {n: g if isinstance(g, int) else int.from_bytes(g, "big") for n, g in gas.items()}
    assert all(0.9 * GAS_MAX[name] < used[name] <= GAS_MAX[name] for name in GAS_MAX), used
