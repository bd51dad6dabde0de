"""Publishing and keeping names through a gateway: the next sequence, and renewals in time."""

import pytest

from lichen.cdn.names.store import NameStore
from lichen.content.ipns import Name, create_record, verify_record
from lichen.content.libp2p_key import public_key
from lichen.errors import PeerError, UserError
from lichen.identity import KeyKind, PrivateKey
from lichen.sdk import names

S = 10**9
NOW = 1_760_000_000 * S
HOUR = 3600
KEY = PrivateKey(KeyKind.SECP256K1, b"k" * 32)
NAME = Name.of(public_key(KEY))
CID = "bafkqaddwgevxmmraojswg33smq"


class Gateway:
    """The two calls that publishing needs, over a real store of records and a clock of its own."""

    def __init__(self, path):
        self.now_ns = NOW
        self.store = NameStore(path, now_ns=lambda: self.now_ns)
        self.puts = 0

    def name_record(self, name):
        return self.store.get(name)

    def publish_name(self, name, record):
        self.puts += 1
        self.store.put(name, record, self.now_ns)
        return self.name_record(name) == record


@pytest.fixture
def gateway(tmp_path):
    made = Gateway(str(tmp_path))
    yield made
    made.store.close()


def publish(gateway, target=CID, last=None, lifetime_s=48 * HOUR):
    return names.publish(
        gateway, KEY, target, now_ns=gateway.now_ns, lifetime_s=lifetime_s, ttl_s=60, last=last
    )


def keep(gateway, last):
    return names.keep(gateway, KEY, last, now_ns=gateway.now_ns, lifetime_s=48 * HOUR)


def test_each_publication_is_newer_than_all_before(gateway):
    first = publish(gateway)
    second = publish(gateway, f"{CID}/x")
    assert (first.sequence, second.sequence) == (0, 1)
    assert verify_record(NAME, gateway.store.get(NAME), NOW) == second


def test_what_the_gateway_lost_is_not_published_with_a_sequence_used_before(gateway, tmp_path):
    first = publish(gateway)
    empty = Gateway(str(tmp_path / "other"))
    assert publish(empty, last=first).sequence == first.sequence + 1
    empty.store.close()


def test_a_kept_name_is_renewed_in_time_and_given_back_to_a_gateway_that_lost_it(gateway, tmp_path):
    record = publish(gateway)
    assert keep(gateway, record) == record
    assert gateway.puts == 1
    gateway.now_ns += 25 * HOUR * S
    fresh = keep(gateway, record)
    assert fresh.eol_ns == gateway.now_ns + 48 * HOUR * S
    assert gateway.store.get(NAME) == fresh.encoded
    empty = Gateway(str(tmp_path / "other"))
    empty.now_ns = gateway.now_ns
    assert keep(empty, fresh) == fresh
    assert empty.store.get(NAME) == fresh.encoded
    empty.store.close()


def test_what_was_published_elsewhere_is_kept_and_not_undone(gateway):
    record = publish(gateway)
    newer = create_record(
        KEY, f"/ipfs/{CID}/new", sequence=9, eol_ns=gateway.now_ns + HOUR * S, ttl_ns=S
    )
    gateway.publish_name(NAME, newer.encoded)
    kept = keep(gateway, record)
    assert (kept.value, kept.sequence) == (newer.value, 9)
    assert kept.eol_ns > newer.eol_ns


def test_a_name_that_was_never_published_has_nothing_to_keep(gateway):
    assert keep(gateway, None) is None


def test_a_wrong_record_from_the_gateway_is_no_ground_for_a_new_one(gateway):
    gateway.name_record = lambda _: b"rubbish"
    with pytest.raises(PeerError):
        publish(gateway)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (CID, f"/ipfs/{CID}"),
        (f"{CID}/a/b", f"/ipfs/{CID}/a/b"),
        (f"/ipfs/{CID}", f"/ipfs/{CID}"),
        (f"ipfs://{CID}/a", f"/ipfs/{CID}/a"),
        (f"/ipns/{NAME}/x", f"/ipns/{NAME}/x"),
        ("ipns://docs.example.org", "/ipns/docs.example.org"),
    ],
)
def test_a_target_is_a_content_path(target, path):
    assert names.path_of(target) == path


@pytest.mark.parametrize("target", ["", "/", "site", "/srv/www", "/ipfs/", "/ipfs/x", "/ipns/x"])
def test_what_is_no_target_is_refused(target):
    with pytest.raises(UserError):
        names.path_of(target)
