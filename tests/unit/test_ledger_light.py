"""A light client believes what the sequencer signed and the proof shows, and nothing else."""

import functools
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.encoding import canonical, from_json, to_json
from lichen.errors import PeerError, UserError, VerificationError
from lichen.identity import KeyKind
from lichen.ledger import keyspec, tables
from lichen.ledger.blocks import Header, block_hash
from lichen.ledger.light import LightClient, Verifier, read_header, record_of
from lichen.ledger.proofs import Prover
from lichen.ledger.results import ProofAnswer
from lichen.ledger.transactions import CreateApp, Transfer
from lichen.ledger.types import Account, App
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import FLK, Amount

ALICE, BOB, EVE = (key_of(name) for name in ("alice", "bob", "eve"))
KINDS = [KeyKind.SECP256K1, KeyKind.ED25519, KeyKind.P256]


def ledger_of(sequencer=None, name="test"):
    sequencer = sequencer or key_of("sequencer")
    genesis = msgspec.structs.replace(
        genesis_of("alice", "bob"), sequencer=sequencer.public, name=name
    )
    return MemoryLedger(genesis, sequencer)


def pay(ledger, amount=FLK):
    ledger.submit(ALICE, Transfer(BOB.address, Amount(amount)))


class Source:
    """Answers as a ledger does; tests change the answers."""

    def __init__(self, ledger):
        self.ledger, self.prover = ledger, Prover()
        self.forge = lambda answer: answer

    async def prove(self, key):
        answer = self.prover.prove(self.ledger.state, key)
        return self.forge(from_json(to_json(answer), ProofAnswer))


@pytest.mark.parametrize("kind", KINDS)
async def test_records_come_typed_with_the_block_they_stood_after(kind):
    ledger = ledger_of(key_of("sequencer", kind))
    pay(ledger)
    ledger.submit(ALICE, CreateApp("shop", "sells"))
    client = LightClient(ledger.genesis, Source(ledger))
    bob = await client.account(BOB.address)
    assert (bob.record.balance, bob.height, bob.time_ms) == (1001 * FLK, 2, ledger.time_ms)
    shop = (await client.app("shop")).record
    assert isinstance(shop, App)
    assert shop.owner == ALICE.address
    assert (await client.app("other")).record is None
    assert (await client.node(ALICE.address)).record is None
    assert (await client.account(EVE.address)).record == Account(0, Amount(0))
    assert client.height == 2


async def test_the_state_of_the_genesis_needs_no_signature():
    ledger = ledger_of()
    client = LightClient(ledger.genesis, Source(ledger))
    assert (await client.account(BOB.address)).record.balance == 1000 * FLK
    other = ledger_of(name="another")
    with pytest.raises(VerificationError):
        await LightClient(other.genesis, Source(ledger)).account(BOB.address)


async def test_a_client_never_goes_back():
    ledger, behind = ledger_of(), ledger_of()
    pay(ledger)
    pay(behind)
    pay(ledger)
    source = Source(ledger)
    client = LightClient(ledger.genesis, source)
    await client.account(BOB.address)
    source.ledger = behind
    with pytest.raises(PeerError, match="block 2 was seen"):
        await client.account(BOB.address)
    source.ledger = ledger
    assert (await client.account(BOB.address)).height == 2


async def test_a_sequencer_that_signs_two_blocks_of_one_height_is_noticed():
    ledger, twin = ledger_of(), ledger_of()
    pay(ledger)
    pay(twin, 2 * FLK)
    source = Source(ledger)
    client = LightClient(ledger.genesis, source)
    await client.account(BOB.address)
    source.ledger = twin
    with pytest.raises(VerificationError, match="two blocks"):
        await client.account(BOB.address)


def test_a_network_without_a_sequencer_is_not_for_light_clients():
    with pytest.raises(UserError, match="no sequencer"):
        Verifier(genesis_of("alice"))


@functools.cache
def made(value=True):
    ledger = ledger_of()
    for _ in range(3):
        pay(ledger)
    ledger.submit(ALICE, Transfer(EVE.address, Amount(1)))
    key = tables.ACCOUNTS.prefix + (BOB if value else key_of("nobody")).address
    return Verifier(ledger.genesis), key, Prover().prove(ledger.state, key)


@given(st.booleans(), st.data())
def test_no_digit_of_an_answer_can_be_changed(present, data):
    verifier, key, answer = made(present)
    verifier.check(key, answer)
    fields = ["state_root", "network", "key", "header", "signature"]
    fields += ["value"] if answer.value else []
    fields += ["siblings"] if answer.siblings else []
    fields += ["other"] if answer.other else []
    field = data.draw(st.sampled_from(fields))
    text = "".join(answer.siblings) if field == "siblings" else getattr(answer, field)
    at = data.draw(st.integers(0, len(text) - 1))
    digit = data.draw(st.sampled_from("0123456789abcdefABCDEF x").filter(lambda d: d != text[at]))
    changed = text[:at] + digit + text[at + 1 :]
    if field == "siblings":
        changed = tuple(changed[i : i + 64] for i in range(0, len(changed), 64))
    with pytest.raises(VerificationError):
        verifier.check(key, msgspec.structs.replace(answer, **{field: changed}))


def test_what_is_cut_extended_or_taken_from_elsewhere_proves_nothing():
    verifier, key, answer = made()
    elsewhere = Prover().prove(ledger_of(name="elsewhere").state, key)
    changes = [
        {"height": answer.height + 1},
        {"height": 0},
        {"height": 0, "header": "", "signature": ""},
        {"value": None},
        {"value": answer.value + "00"},
        {"value": answer.value[:-2]},
        {"siblings": answer.siblings[1:]},
        {"siblings": answer.siblings * 2},
        {"siblings": ("00" * 32,) * 257},
        {"siblings": ("00" * 33,)},
        {"other": "00" * 64},
        {"header": ""},
        {"header": answer.header + "00"},
        {"header": "00" * 5000},
        {"signature": ""},
        {"signature": answer.signature[:-2]},
        {"network": elsewhere.network},
        {"key": "00"},
    ]
    for change in changes:
        with pytest.raises(VerificationError):
            verifier.check(key, msgspec.structs.replace(answer, **change))
    with pytest.raises(VerificationError):
        verifier.check(key + b"\0", msgspec.structs.replace(answer, key=""))
    with pytest.raises(VerificationError):
        verifier.check(key, elsewhere)


def test_an_answer_may_leave_out_what_is_known():
    verifier, key, answer = made()
    short = msgspec.structs.replace(answer, network="", key="")
    assert verifier.check(key, short) == verifier.check(key, answer)


def test_only_canonical_headers_of_blocks_are_read():
    hash_ = hashlib.sha256(b"").digest()
    good = Header(1, hash_, 0, 2**64 - 1, hash_, hash_)
    assert read_header(canonical(good)) == good
    for change in (
        {"height": 0},
        {"height": -1},
        {"time_ms": -1},
        {"transactions": -(2**63)},
        {"previous": hash_[1:]},
        {"state_root": b""},
        {"transactions_hash": bytes(200)},
    ):
        with pytest.raises(VerificationError):
            read_header(canonical(msgspec.structs.replace(good, **change)))
    for data in (b"", canonical(good) + b"\0", canonical(good)[:-1], b"\xa0"):
        with pytest.raises(VerificationError):
            read_header(data)


def test_an_entry_of_a_later_version_is_said_to_be_one():
    ledger = ledger_of()
    pay(ledger)
    key = tables.ACCOUNTS.prefix + BOB.address
    entry = Verifier(ledger.genesis).check(key, Prover().prove(ledger.state, key))
    assert record_of(entry, Account).balance == 1001 * FLK
    with pytest.raises(VerificationError, match="unknown to this version"):
        record_of(entry, App)


def test_the_header_of_an_answer_is_that_of_the_last_block():
    ledger = ledger_of()
    prover = Prover()
    for height in (1, 2):
        pay(ledger)
        answer = prover.prove(ledger.state, b"app/x")
        header = read_header(bytes.fromhex(answer.header))
        assert header == ledger.view.block(height).header
        assert block_hash(ledger.network, header) == ledger.state.head.hash


TEXTS = [
    f"account/{BOB.address}",
    f"node/{BOB.address}",
    f"settlements/{BOB.address}",
    "app/shop",
    "release/shop/12",
    f"grant/{ALICE.address}/shop/{BOB.address}",
    "channel/" + "0f" * 32,
    f"epoch/{BOB.address}/{2**40}/3",
]


@pytest.mark.parametrize("text", TEXTS)
def test_keys_are_read_and_written_as_people_spell_them(text):
    key = keyspec.parse_key(text)
    assert keyspec.spell_key(key) == text
    assert keyspec.decode_key(key.encode()) == key


def test_keys_are_those_of_the_tables():
    address = BOB.address
    encoded = [keyspec.parse_key(text).encode() for text in TEXTS]
    assert encoded[0] == tables.ACCOUNTS.prefix + address
    assert encoded[4] == tables.RELEASES.prefix + tables.release_id("shop", 12)
    assert encoded[5] == tables.GRANTS.prefix + tables.grant_id(ALICE.address, "shop", address)
    assert encoded[7] == tables.EPOCHS.prefix + tables.epoch_id(address, 2**40, 3)


@pytest.mark.parametrize(
    "text",
    ["", "account", "account/", "account/0x12", "thing/1", "app/a/b", "release/shop", "release/s/x",
     "release/s/99999999999", "release/s/-1", "channel/12", "epoch/0x12/1/1", "app/" + "/" * 99,
     f"epoch/{BOB.address}/{2**64}/0"],
)  # fmt: skip
def test_what_is_no_key_is_the_users_mistake(text):
    with pytest.raises(UserError):
        keyspec.parse_key(text)


@given(st.sampled_from(tables.ALL), st.binary(max_size=70))
def test_any_key_can_be_written_down(table, id_):
    assert keyspec.spell_key(keyspec.Key(table, id_)).startswith(table.prefix.decode())


def test_a_key_of_no_table_is_the_users_mistake():
    with pytest.raises(UserError):
        keyspec.decode_key(b"x/owner/1")
