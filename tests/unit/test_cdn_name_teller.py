"""Others hear of one's names once, whenever they change, and again before they forget."""

import pytest

from lichen.cdn.names.store import NameStore
from lichen.cdn.names.teller import AGAIN_S, NameTeller
from lichen.content.ipns import Name, create_record
from lichen.content.libp2p_key import public_key
from lichen.identity import KeyKind, PrivateKey

S = 10**9
NOW = 1_760_000_000 * S
KEY = PrivateKey(KeyKind.ED25519, b"t" * 32)
NAME = Name.of(public_key(KEY))


class Others:
    def __init__(self):
        self.heard = []
        self.take = True

    async def publish(self, name, encoded):
        self.heard.append((name, encoded))
        return self.take


@pytest.fixture
def store(tmp_path):
    opened = NameStore(str(tmp_path), now_ns=lambda: NOW)
    yield opened
    opened.close()


def put(store, sequence):
    record = create_record(KEY, "/ipfs/bafkqaaa", sequence=sequence, eol_ns=NOW + 99 * S, ttl_ns=S)
    assert store.put(NAME, record.encoded, NOW)
    return record.encoded


async def test_a_record_is_told_once_until_it_changes_or_is_old(store):
    others, clock = Others(), [0.0]
    teller = NameTeller(store, [NAME], others.publish, lambda: clock[0])
    assert await teller.tick() == 0, "there is none yet"
    first = put(store, 1)
    assert [await teller.tick() for _ in range(3)] == [1, 0, 0]
    second = put(store, 2)
    assert [await teller.tick() for _ in range(2)] == [1, 0]
    clock[0] += AGAIN_S
    assert [await teller.tick() for _ in range(2)] == [1, 0]
    assert others.heard == [(NAME, first), (NAME, second), (NAME, second)]


async def test_what_nobody_took_is_told_again(store):
    others = Others()
    teller = NameTeller(store, [NAME], others.publish, lambda: 0.0)
    put(store, 1)
    others.take = False
    assert [await teller.tick() for _ in range(2)] == [0, 0]
    others.take = True
    assert [await teller.tick() for _ in range(2)] == [1, 0]
    assert len(others.heard) == 3
