"""CometBFT's protocol and the application behind it, without CometBFT."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lichen.content.protobuf import bytes_field, uvarint, varint_field
from lichen.encoding import from_canonical, sha256, to_json
from lichen.errors import CorruptionError, LimitError, UserError
from lichen.identity import KeyKind
from lichen.ledger import (
    CreateApp,
    OpenChannel,
    Transfer,
    encode_transaction,
    network_id,
    sign_transaction,
)
from lichen.ledger.blocks import (
    BLOCK_TRANSACTIONS_MAX,
    Block,
    Header,
    block_hash,
    encode_block,
    transactions_hash,
)
from lichen.ledger.comet import files
from lichen.ledger.comet import messages as m
from lichen.ledger.comet.app import App, chain_id
from lichen.ledger.comet.pool import NONCES_AHEAD_MAX, PARKED_BLOCKS_MAX
from lichen.ledger.comet.snapshots import SnapshotFolder
from lichen.ledger.replay import replay
from lichen.ledger.store import MemoryStore
from lichen.ledger.tree import Proof, verify_proof
from lichen.ledger.types import Validator, check_genesis
from lichen.ledger.views import View
from lichen.testing.ledger import GENESIS_MS, genesis_of, key_of
from lichen.units import FLK, Amount

NAMES = ("alice", "bob", "carol")
VALIDATORS = tuple(
    Validator(key_of(f"validator {number}", KeyKind.ED25519).public, 10) for number in range(4)
)
GENESIS = replace(genesis_of(*NAMES), validators=VALIDATORS)
NETWORK = network_id(GENESIS)
INIT = m.InitChain(chain_id(NETWORK), to_json(GENESIS), 1, (b"validator",))


def pay(name, nonce, amount=1, network=NETWORK):
    body = Transfer(key_of("bob").address, Amount(amount))
    return encode_transaction(sign_transaction(network, key_of(name), nonce, body))


def act(name, nonce, body):
    return encode_transaction(sign_transaction(NETWORK, key_of(name), nonce, body))


def answer(data, call):
    """The fields of a response of one kind."""
    return m.Message(m.Message(data).data(call))


class Chain:
    """One application, driven as CometBFT drives it."""

    def __init__(self, folder, *, store=None, every=0):
        self.store = store or MemoryStore()
        self.snapshots = SnapshotFolder(folder, every)
        self.app = App(self.store, GENESIS, self.snapshots, lambda: GENESIS_MS)
        if not self.app.height:
            self.app.handle(INIT)

    def check(self, raw, *, again=False):
        code = answer(self.app.handle(m.CheckTx(raw, again)), 9).number(1)
        self.app.advance()
        return code == 0

    def prepare(self, txs, max_bytes=4 << 20):
        request = m.PrepareProposal(max_bytes, tuple(txs), self.app.height + 1, self.now())
        return answer(self.app.handle(request), 17).all(1)

    def process(self, txs):
        request = m.ProcessProposal(tuple(txs), self.app.height + 1, self.now())
        return answer(self.app.handle(request), 18).number(1) == 1

    def finalize(self, txs):
        request = m.FinalizeBlock(tuple(txs), self.app.height + 1, self.now())
        return answer(self.app.handle(request), 21)

    def block(self, txs=()):
        app_hash = self.finalize(txs).data(5)
        self.app.handle(m.Commit())
        self.app.advance()
        return app_hash

    def now(self):
        return GENESIS_MS + 1000 * (self.app.height + 1)

    @property
    def head(self):
        return self.app.state.head


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path)


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_messages_are_found_however_the_stream_is_cut(bodies, step):
    stream = b"".join(map(m.frame, bodies))
    frames = m.Frames()
    found = [frames.feed(stream[at : at + step]) for at in range(0, len(stream), step)]
    assert [one for part in found for one in part] == bodies


def test_a_stream_without_frames_or_with_huge_ones_is_refused():
    with pytest.raises(UserError):
        m.Frames().feed(b"\xff" * 10)
    with pytest.raises(LimitError):
        m.Frames().feed(uvarint(m.FRAME_BYTES_MAX + 1))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_a_user_error(data):
    with contextlib.suppress(UserError):
        m.decode_request(data)


def test_requests_are_read_as_cometbft_writes_them():
    stamp = varint_field(1, 1_700_000_000) + varint_field(2, 5_999_999)
    block = bytes_field(1, b"one") + bytes_field(1, b"two") + varint_field(5, 7)
    final = m.decode_request(bytes_field(20, block + bytes_field(6, stamp)))
    assert final == m.FinalizeBlock((b"one", b"two"), 7, 1_700_000_000_005)
    again = m.decode_request(bytes_field(8, bytes_field(1, b"tx") + varint_field(2, 1)))
    assert again == m.CheckTx(b"tx", again=True)
    before_1970 = varint_field(1, 2**64 - 1)
    early = m.decode_request(bytes_field(20, bytes_field(6, before_1970)))
    assert early == m.FinalizeBlock((), 0, -1000)


def test_a_chain_begins_with_the_network_id_and_with_no_other_genesis(tmp_path):
    app = Chain(tmp_path).app
    begun = answer(app.handle(INIT), 6)
    assert (begun.data(3), begun.all(2)) == (NETWORK, (b"validator",))
    for wrong in (
        replace(INIT, chain_id="lichen-0"),
        replace(INIT, app_state=to_json(genesis_of("alice"))),
        replace(INIT, initial_height=2),
    ):
        with pytest.raises(UserError):
            app.handle(wrong)


def test_what_may_wait_is_what_would_be_accepted_now(chain):
    assert chain.check(pay("alice", 0))
    assert chain.check(pay("alice", 0)), "twice the same is no fault"
    assert chain.check(pay("alice", 1))
    assert not chain.check(pay("alice", 1, 2)), "that nonce waits already"
    assert not chain.check(pay("bob", 0, 10**6 * FLK))
    assert not chain.check(pay("bob", 0, network=b"x" * 32))
    assert not chain.check(pay("bob", 0)[:-1] + b"\0")
    assert not chain.check(b"junk")
    assert chain.check(pay("bob", 0))


def test_what_overtook_its_predecessor_is_parked_for_some_blocks_only(chain):
    late = pay("alice", 1)
    assert chain.check(late)
    assert not chain.check(pay("alice", NONCES_AHEAD_MAX + 1))
    assert chain.prepare([late]) == ()
    for _ in range(PARKED_BLOCKS_MAX):
        chain.block()
        assert chain.check(late, again=True)
    chain.block()
    assert not chain.check(late, again=True)
    assert not chain.check(pay("nobody", 3)), "without the fee nothing is parked"


def test_who_waits_here_for_an_answer_is_told_of_a_gap_at_once(chain):
    late = pay("alice", 1)
    chain.app.local.add(m_id(late))
    assert not chain.check(late)


def m_id(raw):
    from lichen.ledger import decode_transaction

    return decode_transaction(raw).id


def test_a_proposal_brings_nonces_in_order_and_leaves_out_what_is_refused(chain):
    pays = [pay("alice", nonce) for nonce in range(4)]
    mixed = [pays[2], pays[1], b"junk", pay("bob", 0, 10**9 * FLK), pays[0], pays[3]]
    proposed = chain.prepare(mixed)
    assert proposed == tuple(pays)
    assert chain.process(proposed)
    assert chain.prepare(pays, max_bytes=2 * len(pays[0]) + 20) == tuple(pays[:2])


def test_a_proposal_with_anything_refused_in_it_is_voted_down(chain):
    good = pay("alice", 0)
    assert chain.process([good])
    for bad in (b"junk", good, pay("alice", 2), pay("bob", 0, 10**9 * FLK)):
        assert not chain.process([good, bad])
    many = [pay("alice", nonce) for nonce in range(3)] * BLOCK_TRANSACTIONS_MAX
    assert not chain.process(many)


def test_a_block_becomes_ours_and_an_empty_one_changes_nothing(chain):
    app_hash = chain.block([pay("alice", 0)])
    assert (chain.head.height, chain.app.height) == (1, 1)
    assert app_hash == chain.head.hash
    assert chain.head.time_ms == GENESIS_MS + 1000
    assert chain.block() == app_hash
    assert (chain.head.height, chain.app.height) == (1, 2)
    info = answer(chain.app.handle(m.Info()), 4)
    assert (info.number(4), info.data(5)) == (2, app_hash)


def test_a_decided_block_with_refused_transactions_has_no_effect_of_theirs(chain, tmp_path):
    mixed = [b"junk", pay("alice", 0), pay("alice", 5)]
    final = chain.finalize(mixed)
    codes = [m.Message(one).number(1) for one in final.all(2)]
    names = [m.Message(one).text(8) for one in final.all(2)]
    assert (codes, names) == ([1, 0, 1], ["bad-transaction", "", "bad-nonce"])
    other = Chain(tmp_path / "other")
    assert other.block([pay("alice", 0)]) == final.data(5)


def test_those_who_voted_and_those_who_replay_reach_the_same_state(chain, tmp_path):
    voters, late = [chain, Chain(tmp_path / "b")], Chain(tmp_path / "late")
    for height in range(3):
        pays = [pay(name, height, height + 1) for name in NAMES]
        proposed = chain.prepare(reversed(pays))
        assert all(voter.process(proposed) for voter in voters)
        hashes = {one.block(proposed) for one in (*voters, late)}
        assert len(hashes) == 1
    assert replay(chain.store, GENESIS).head == chain.head == late.head


def test_results_go_to_whoever_waits_with_our_own_height(chain):
    first, second = pay("alice", 0), pay("alice", 1)
    chain.block([first])
    chain.block()
    chain.app.handle(m.FinalizeBlock((second, b"junk"), 3, chain.now()))
    chain.app.handle(m.Commit())
    settled = dict(chain.app.advance())
    assert settled[m_id(second)].height == 2
    assert not chain.check(first), "it stands in a block"
    chain.app.handle(m.CheckTx(first, again=False))
    ((_, result),) = chain.app.advance()
    assert (result.height, result.error) == (1, None), "sent again: where it stands"


def test_a_crash_before_the_commit_leaves_the_block_to_be_replayed(chain, tmp_path):
    chain.block([pay("alice", 0)])
    lost = chain.finalize([pay("alice", 1)]).data(5)
    again = Chain(tmp_path / "again", store=chain.store)
    assert answer(again.app.handle(m.Info()), 4).number(4) == 1
    assert again.block([pay("alice", 1)]) == lost
    with pytest.raises(CorruptionError):
        again.app.handle(m.FinalizeBlock((), 9, again.now()))
    with pytest.raises(CorruptionError):
        again.app.handle(m.Commit())


def test_a_query_proves_an_entry_under_the_application_hash(chain):
    app_hash = chain.block([pay("alice", 0)])
    key = b"account/" + key_of("alice").address
    found = answer(chain.app.handle(m.Query(key, "/entry", prove=True)), 7)
    entry, header = (m.Message(one) for one in m.Message(found.data(8)).all(1))
    head = from_canonical(header.data(3), Header)
    assert block_hash(NETWORK, head) == app_hash
    assert verify_proof(head.state_root, key, found.data(7), from_canonical(entry.data(3), Proof))
    assert answer(chain.app.handle(m.Query(key, "/nothing", prove=True)), 7).number(1)


def snapshot_of(tmp_path):
    source = Chain(tmp_path / "source", every=3)
    channel = OpenChannel(key_of("bob").address, key_of("alice").address, "", Amount(5 * FLK), None)
    source.block([act("alice", 0, CreateApp("shop", "sells"))])
    source.block([act("alice", 1, channel)])
    app_hash = source.block([pay("carol", 0)])
    source.snapshots.close()
    (offered,) = answer(source.app.handle(m.ListSnapshots()), 13).all(1)
    return source, app_hash, m.read_snapshot(m.Message(offered))


def restore(target, source, offered, app_hash, spoil=None):
    """Offer a snapshot and apply its chunks; the last result."""
    result = answer(target.app.handle(m.OfferSnapshot(offered, app_hash)), 14).number(1)
    if result != m.OFFER_ACCEPT:
        return result
    for index in range(offered.chunks):
        chunk = source.app.handle(m.LoadSnapshotChunk(offered.height, offered.format, index))
        data = answer(chunk, 15).data(1)
        if index == spoil:
            bad = target.app.handle(m.ApplySnapshotChunk(index, data[:-1] + b"x", "mallory"))
            assert answer(bad, 16).number(1) == m.CHUNK_RETRY
            assert answer(bad, 16).text(3) == "mallory"
        applied = target.app.handle(m.ApplySnapshotChunk(index, data, "someone"))
        target.app.advance()
    return answer(applied, 16).number(1)


def test_a_snapshot_restores_the_state_its_indexes_and_the_chain(tmp_path):
    source, app_hash, offered = snapshot_of(tmp_path)
    target = Chain(tmp_path / "target")
    assert restore(target, source, offered, app_hash, spoil=1) == m.CHUNK_ACCEPT
    assert target.head == source.head
    assert target.app.height == source.app.height == offered.height == 3
    view = View(target.app.state)
    assert [app.name for app in view.apps_of(key_of("alice").address)] == ["shop"]
    assert len(view.channels_of(payee=key_of("bob").address)) == 1
    assert target.check(pay("carol", 1))
    more = [pay("carol", 1), pay("bob", 0)]
    assert target.block(more) == source.block(more)


def test_a_snapshot_that_was_not_agreed_on_is_not_restored(tmp_path):
    source, app_hash, offered = snapshot_of(tmp_path)
    target = Chain(tmp_path / "target")
    before = target.head
    rejected = restore(target, source, offered, bytes(32))
    assert rejected == m.CHUNK_REJECT_SNAPSHOT
    assert restore(target, source, replace(offered, hash=bytes(32)), app_hash) == m.OFFER_REJECT
    assert restore(target, source, replace(offered, format=2), app_hash) == m.OFFER_REJECT
    assert restore(target, source, replace(offered, chunks=10**6), app_hash) == m.OFFER_REJECT
    assert (target.head, target.app.height) == (before, 0)
    target.block([pay("alice", 0)])
    assert restore(target, source, offered, app_hash) == m.OFFER_ABORT


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.booleans())
def test_chunks_that_a_liar_made_are_refused_whatever_is_in_them(chunks, begins_well):
    target = Chain(Path("unused"))
    header = Header(1, NETWORK, GENESIS_MS, 0, transactions_hash(()), bytes(32))
    app_hash = block_hash(NETWORK, header)
    if begins_well:
        chunks = [encode_block(Block(header, ())), *chunks]
    metadata = b"".join(map(sha256, chunks))
    offered = m.Snapshot(9, 1, len(chunks), sha256(metadata), metadata)
    assert answer(target.app.handle(m.OfferSnapshot(offered, app_hash)), 14).number(1) == 1
    for index, chunk in enumerate(chunks):
        last = answer(target.app.handle(m.ApplySnapshotChunk(index, chunk, "liar")), 16).number(1)
        target.app.advance()
    assert last == m.CHUNK_REJECT_SNAPSHOT
    assert (target.app.height, target.head.hash) == (0, NETWORK)


def test_the_last_snapshots_are_kept(tmp_path):
    chain = Chain(tmp_path, every=1)
    for nonce in range(4):
        chain.block([pay("alice", nonce)])
        chain.snapshots._making.result()
    assert [one.height for one in chain.snapshots.available()] == [4, 3]
    assert chain.snapshots.load(1, 1, 0) == chain.snapshots.load(4, 1, 99) == b""


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_order_of_arrival_never_makes_validators_disagree(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("chains")
    chains = [Chain(folder / str(number)) for number in range(2)]
    waiting = [
        pay(name, nonce, data.draw(st.integers(0, 3 * 10**20)))
        for name in NAMES
        for nonce in range(3)
    ]
    for height in range(3):
        proposer = chains[height % 2]
        arrived = data.draw(st.permutations(waiting))
        for raw in arrived:
            proposer.check(raw)
        proposed = proposer.prepare(arrived)
        assert all(chain.process(proposed) for chain in chains)
        assert len({chain.block(proposed) for chain in chains}) == 1
        waiting = [raw for raw in waiting if raw not in proposed]
    assert replay(chains[0].store, GENESIS).head == chains[1].head


def test_the_genesis_names_validators_or_a_sequencer(tmp_path):
    check_genesis(GENESIS)
    secp = Validator(key_of("alice").public, 1)
    for wrong in (
        replace(GENESIS, sequencer=key_of("alice").public),
        replace(GENESIS, validators=(VALIDATORS[0], VALIDATORS[0])),
        replace(GENESIS, validators=(replace(VALIDATORS[0], power=0),)),
        replace(GENESIS, validators=(secp,)),
    ):
        with pytest.raises(UserError):
            check_genesis(wrong)


def test_keys_are_made_once_and_written_as_cometbft_reads_them(tmp_path):
    keys = files.ensure_keys(tmp_path)
    assert files.ensure_keys(tmp_path) == keys
    path = tmp_path / "comet" / "config" / "priv_validator_key.json"
    assert path.stat().st_mode & 0o077 == 0
    document = json.loads(path.read_text())
    assert document["address"] == files.address_of(keys.validator).hex().upper()
    path.write_text("{}")
    with pytest.raises(CorruptionError):
        files.ensure_keys(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"p2p": "nowhere"},
        {"p2p": '127.0.0.1:1"\nevil = "1'},
        {"peers": ("127.0.0.1:1",)},
        {"peers": ("g" * 40 + "@127.0.0.1:1",)},
        {"peers": ("a" * 40 + "@127.0.0.1:1,b",)},
        {"rpc": "127.0.0.1:99999"},
        {"snapshot_blocks": -1},
    ],
)
def test_settings_that_cometbft_would_not_take_are_refused(changes):
    good = files.Settings("127.0.0.1:26656", ("a" * 40 + "@127.0.0.1:26656",))
    files.check_settings(good)
    with pytest.raises(UserError):
        files.check_settings(replace(good, **changes))
