"""The store of IPNS records: valid, newest, bounded, and there after a restart."""

import asyncio
import threading

import pytest

from lichen.cdn.names import store as name_store
from lichen.cdn.names.store import NameStore
from lichen.content.ipns import ExpiredRecordError, InvalidRecordError, Name, create_record
from lichen.content.libp2p_key import public_key
from lichen.identity import KeyKind, PrivateKey
from lichen.wire.errors import BusyError

NOW = 1_760_000_000 * 10**9
S = 10**9
KEYS = [PrivateKey(KeyKind.ED25519, bytes([i]) * 32) for i in range(1, 30)]
NAMES = [Name.of(public_key(key)) for key in KEYS]


def record(number=0, sequence=1, eol_s=3600, value="/ipfs/bafkqaaa"):
    return create_record(
        KEYS[number], value, sequence=sequence, eol_ns=NOW + eol_s * S, ttl_ns=60 * S
    ).encoded


@pytest.fixture
def clock():
    return [NOW]


@pytest.fixture
def make(tmp_path, clock):
    stores = []

    def open_store(**settings):
        stores.append(NameStore(str(tmp_path / "names"), now_ns=lambda: clock[0], **settings))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def test_a_record_is_there_after_a_restart(make):
    store = make()
    assert store.put(NAMES[0], record(), NOW)
    store.close()
    again = make()
    assert again.get(NAMES[0]) == record()
    assert again.get(NAMES[1]) is None
    assert again.version(NAMES[0]) == store.version(NAMES[0])
    assert not again.put(NAMES[0], record(sequence=0), NOW)


def test_an_older_record_never_replaces_a_newer_one(make):
    store = make()
    newest = record(sequence=5, eol_s=100)
    assert store.put(NAMES[0], newest, NOW)
    assert not store.put(NAMES[0], record(sequence=4, eol_s=9999), NOW)
    assert not store.put(NAMES[0], record(sequence=5, eol_s=99), NOW)
    assert store.get(NAMES[0]) == newest
    assert store.put(NAMES[0], newest, NOW), "the same again is no conflict"
    assert store.put(NAMES[0], record(sequence=5, eol_s=101), NOW)
    assert store.put(NAMES[0], record(sequence=6, eol_s=50), NOW)
    assert store.get(NAMES[0]) == record(sequence=6, eol_s=50)


def test_two_records_of_one_rank_do_not_alternate(make):
    store = make()
    assert store.put(NAMES[0], record(value="/ipfs/bafkqaaa"), NOW)
    assert not store.put(NAMES[0], record(value="/ipfs/bafkqaaa/other"), NOW)
    assert store.get(NAMES[0]) == record(value="/ipfs/bafkqaaa")


def test_only_records_that_hold_now_are_kept_and_given_out(make, clock):
    store = make()
    with pytest.raises(InvalidRecordError):
        store.put(NAMES[1], record(0), NOW)
    with pytest.raises(ExpiredRecordError):
        store.put(NAMES[0], record(eol_s=0), NOW)
    assert store.put(NAMES[0], record(), NOW)
    clock[0] = NOW + 3600 * S
    assert store.get(NAMES[0]) is None
    assert store.last(NAMES[0]).encoded == record()
    assert store.last(NAMES[1]) is None


def test_the_names_nobody_asks_for_go_first_and_own_ones_never(make):
    store = make(names_max=3, own=frozenset({NAMES[0]}))
    for number in (0, 1, 2):
        store.put(NAMES[number], record(number), NOW)
    store.get(NAMES[1])
    store.put(NAMES[3], record(3), NOW)
    kept = [store.get(name) is not None for name in NAMES[:4]]
    assert kept == [True, True, False, True]
    assert len(store) == 3


def test_bytes_are_bounded_too_also_by_updates_and_over_restarts(make):
    room = 5 * (len(record()) + 128)
    store = make(bytes_max=room)
    for sequence in (1, 2, 3):
        for number in range(20):
            assert store.put(NAMES[number], record(number, sequence), NOW)
    store.close()
    again = make(bytes_max=room)
    assert len(again) <= 5
    assert again.put(NAMES[20], record(20), NOW)
    assert len(again) <= 5
    assert again.get(NAMES[20]) == record(20)


def test_a_version_changes_with_its_record_only(make):
    store = make()
    assert store.version(NAMES[0]) is None
    store.put(NAMES[0], record(), NOW)
    first = store.version(NAMES[0])
    store.put(NAMES[1], record(1), NOW)
    store.put(NAMES[0], record(sequence=0), NOW)
    assert store.version(NAMES[0]) is first
    store.put(NAMES[0], record(sequence=2), NOW)
    assert store.version(NAMES[0]) is not first


def test_the_end_of_all_years_is_kept_exactly(make):
    key, name = KEYS[0], NAMES[0]
    eol = 253_402_300_799 * S + 999_999_999
    encoded = create_record(
        key, "/ipfs/bafkqaaa", sequence=2**64 - 1, eol_ns=eol, ttl_ns=2**64 - 1
    ).encoded
    store = make()
    store.put(name, encoded, NOW)
    store.close()
    version = make().version(name)
    assert (version.sequence, version.eol_ns) == (2**64 - 1, eol)


def test_threads_that_publish_at_once_leave_the_newest(make):
    store = make()
    records = [record(sequence=sequence) for sequence in range(1, 25)]
    threads = [
        threading.Thread(target=lambda part=part: [store.put(NAMES[0], r, NOW) for r in part])
        for part in (records[::3], records[1::3], records[2::3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(NAMES[0]) == records[-1]


async def test_only_so_many_records_wait_to_be_stored(make, monkeypatch):
    monkeypatch.setattr(name_store, "PUBLISHING_MAX", 4)
    store = make()
    waiting = [store.publish(NAMES[number], record(number), NOW) for number in range(6)]
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert done[:4] == [True] * 4
    assert [type(error) for error in done[4:]] == [BusyError] * 2
    assert await store.publish(NAMES[5], record(5), NOW), "and later there is room again"
    with pytest.raises(InvalidRecordError):
        await store.publish(NAMES[1], record(0), NOW)
