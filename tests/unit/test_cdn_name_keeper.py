"""Names stay valid for as long as somebody keeps them, and say what their owner said last."""

import pytest

from lichen.cdn.names.keeper import LIFETIME_S, NameKeeper, renewed
from lichen.cdn.names.store import NameStore
from lichen.content.ipns import Name, create_record, verify_record
from lichen.content.libp2p_key import public_key
from lichen.identity import KeyKind, PrivateKey

S = 10**9
DAY = 24 * 3600 * S
START = 1_760_000_000 * S
KEY = PrivateKey(KeyKind.ED25519, bytes(range(32)))
NAME = Name.of(public_key(KEY))


def record(sequence=3, eol_ns=START + 2 * DAY, value="/ipfs/bafkqaaa"):
    return create_record(KEY, value, sequence=sequence, eol_ns=eol_ns, ttl_ns=77 * S)


@pytest.fixture
def clock():
    return [START]


@pytest.fixture
def store(tmp_path, clock):
    opened = NameStore(str(tmp_path), own=frozenset({NAME}), now_ns=lambda: clock[0])
    yield opened
    opened.close()


def test_a_record_is_renewed_when_half_of_its_life_is_over_and_not_before():
    made = record()
    assert renewed(made, KEY, START) is None
    assert renewed(made, KEY, START + DAY - 1) is None
    fresh = renewed(made, KEY, START + DAY)
    assert fresh.is_newer_than(made)
    assert fresh.eol_ns == START + DAY + LIFETIME_S * S
    assert (fresh.value, fresh.sequence, fresh.ttl_ns) == (made.value, 3, 77 * S)
    assert verify_record(NAME, fresh.encoded, START + DAY) == fresh


def test_a_record_that_ends_in_years_is_left_alone():
    assert renewed(record(eol_ns=START + 9999 * DAY), KEY, START) is None


def test_a_kept_name_never_ends(store, clock):
    keeper = NameKeeper(store, [KEY], lambda: clock[0])
    store.put(NAME, record().encoded, START)
    renewals = 0
    for _ in range(24 * 8):
        clock[0] += 3600 * S
        renewals += len(keeper.tick())
        assert store.get(NAME) is not None
        assert store.last(NAME).value == "/ipfs/bafkqaaa"
    assert 7 <= renewals <= 8


def test_without_a_keeper_it_does(store, clock):
    store.put(NAME, record().encoded, START)
    clock[0] += 2 * DAY
    assert store.get(NAME) is None


def test_a_keeper_that_comes_too_late_revives_the_name(store, clock):
    store.put(NAME, record().encoded, START)
    clock[0] += 40 * DAY
    assert store.get(NAME) is None
    assert len(NameKeeper(store, [KEY], lambda: clock[0]).tick()) == 1
    assert store.get(NAME) is not None


def test_what_the_owner_publishes_elsewhere_wins_over_any_number_of_renewals(store, clock):
    keeper = NameKeeper(store, [KEY], lambda: clock[0])
    store.put(NAME, record(sequence=3).encoded, START)
    for _ in range(10):
        clock[0] += DAY
        keeper.tick()
    theirs = record(sequence=4, eol_ns=clock[0] + 60 * S, value="/ipfs/bafkqaaa/new")
    assert store.put(NAME, theirs.encoded, clock[0])
    clock[0] += DAY
    keeper.tick()
    assert (store.last(NAME).value, store.last(NAME).sequence) == ("/ipfs/bafkqaaa/new", 4)


def test_a_name_that_was_never_published_and_one_of_others_are_left_alone(store, clock):
    keeper = NameKeeper(store, [KEY], lambda: clock[0])
    other = PrivateKey(KeyKind.ED25519, b"o" * 32)
    name = Name.of(public_key(other))
    theirs = create_record(other, "/ipfs/bafkqaaa", sequence=1, eol_ns=START + DAY, ttl_ns=S)
    store.put(name, theirs.encoded, START)
    assert keeper.tick() == []
    assert store.get(name) == theirs.encoded
