"""Receipts and records: contracts find and read them as Python does, and in no other spelling."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.evm import flipped, words

from lichen.encoding import canonical, from_canonical
from lichen.errors import UserError
from lichen.ledger import tables
from lichen.ledger.types import Account, EpochRecord
from lichen.market import merkle
from lichen.testing.ledger import key_of
from lichen.units import AMOUNT_MAX, Amount

HASH = st.binary(min_size=32, max_size=32)


# --- receipts ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    bodies=st.lists(st.binary(max_size=80), min_size=1, max_size=40),
    at=st.integers(0, 2**16),
    bit=st.integers(0, 7),
    claimed=st.tuples(st.integers(0, 2**33), st.integers(0, 2**256 - 1)),
)
def test_paths_of_receipts_are_judged_alike(harness, bodies, at, bit, claimed):
    leaves = [merkle.leaf_hash(body) for body in bodies]
    root, index, count = merkle.root(leaves), at % len(bodies), len(bodies)
    path, body = list(merkle.path(leaves, index)), bodies[index]
    cases = [
        (root, body, (index, count, path)),
        (root, body + b"\0", (index, count, path)),
        (flipped(root, at, bit), body, (index, count, path)),
        (root, body, (count, count, path)),
        (root, body, (index ^ 1, count, path)),
        (root, body, (index, count + 1, path)),
        (root, body, (index, 0, path)),
        (root, body, (*claimed, path)),
        (root, body, (index, count, path[:-1])),
        (root, body, (index, count, path[::-1])),
        (root, body, (index, count, [*path, bytes(32)])),
        (root, body, (index, count, path + [bytes(32)] * 33)),
        (root, root, (0, 1, [])),
    ]
    ours = [merkle.root_from_path(merkle.leaf_hash(b), *p) == r for r, b, p in cases]
    assert harness.accepts(("inBatch", case) for case in cases) == ours
    assert ours[0]
    assert not any(ours[1:3])


def test_a_receipt_is_found_in_its_batch_and_the_batch_under_what_was_settled(harness):
    batches = [[b"%d/%d" % (batch, run) for run in range(batch + 1)] for batch in range(7)]
    roots = [merkle.root([merkle.leaf_hash(body) for body in bodies]) for bodies in batches]
    tops = [merkle.leaf_hash(root) for root in roots]
    calls = []
    for number, bodies in enumerate(batches):
        leaves = [merkle.leaf_hash(body) for body in bodies]
        of_batch = (number, len(batches), merkle.path(tops, number))
        for index, body in enumerate(bodies):
            of_receipt = (index, len(bodies), merkle.path(leaves, index))
            calls.append((merkle.root(tops), roots[number], of_batch, body, of_receipt))
    assert all(harness.accepts(("settled", call) for call in calls))
    moved = [(*call[:1], roots[0], *call[2:]) for call in calls if call[1] != roots[0]]
    assert not any(harness.accepts(("settled", call) for call in moved))


# --- records -------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    nonce=st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63, 2**64 - 1]),
    balance=st.sampled_from([0, 9, 10**22, 10**23, 10**24, AMOUNT_MAX])
    | st.integers(0, AMOUNT_MAX),
    root=HASH,
    data=st.data(),
)
def test_records_are_read_as_they_are_written_and_in_no_other_spelling(
    harness, nonce, balance, root, data
):
    account = canonical(Account(nonce, Amount(balance)))
    assert harness.call("readAccount", account) == words(nonce, balance)
    node = key_of("node").address
    epoch = canonical(EpochRecord(node, nonce, 7, 24, 2**32, root))
    assert harness.call("readEpoch", epoch) == words(nonce, 24, 2**32, 7, root)
    at, bit = data.draw(st.integers(0, len(account) - 1)), data.draw(st.integers(0, 7))
    changed = flipped(account, at, bit)
    given = harness.call("readAccount", changed)
    ours = account_of(changed)
    assert given == (None if ours is None else words(ours.nonce, ours.balance))
    cut = [("readAccount", (account[:size],)) for size in range(len(account))]
    cut += [("readEpoch", (epoch[:size],)) for size in range(len(epoch))]
    longer = [("readAccount", (account + b"\0",)), ("readEpoch", (epoch + b"\0",))]
    assert harness.calls(cut + longer) == [None] * (len(cut) + 2)


AMOUNTS = [b"", b"0", b"00", b"01", b"-1", b"+1", b" 1", b"1.0", b"1e3", b"0x1", b"9/", b"9:"]
AMOUNTS += [b"%d" % n for n in (10, 10**22, 10**23, AMOUNT_MAX, AMOUNT_MAX + 1, 10**39)]
AMOUNTS += [b"0" * 39, b"1" * 24, b"0" + b"1" * 23, b"9" * 39, b"1" * 300]


def test_amounts_have_one_spelling(harness):
    heads = {
        amount: [
            bytes([0x60 + len(amount)]) if len(amount) < 24 else b"",
            bytes([0x78, len(amount)]) if len(amount) < 256 else b"",
            b"\x79" + len(amount).to_bytes(2, "big"),
            bytes([0x40 + len(amount)]) if len(amount) < 24 else b"",
        ]
        for amount in AMOUNTS
    }
    raws = [
        b"\xa2\x65nonce\x00\x67balance" + head + amount
        for amount, spelled in heads.items()
        for head in filter(None, spelled)
    ]
    ours = [account_of(raw) for raw in raws]
    theirs = harness.calls(("readAccount", (raw,)) for raw in raws)
    assert theirs == [None if one is None else words(one.nonce, one.balance) for one in ours]
    assert sum(one is not None for one in ours) == 6


def account_of(raw):
    try:
        account = from_canonical(raw, Account)
    except UserError:
        return None
    return account if account.nonce >= 0 else None


def test_keys_are_spelled_alike(harness):
    one, two, channel = key_of("one").address, key_of("two").address, b"\7" * 32
    answer = harness.call("keys", one, two, "shop", 3, 2**40, channel)
    start = int.from_bytes(answer[:32], "big")
    spelled = []
    for number in range(7):
        offset = start + int.from_bytes(answer[start + 32 * number :][:32], "big")
        size = int.from_bytes(answer[offset : offset + 32], "big")
        spelled.append(answer[offset + 32 : offset + 32 + size])
    assert spelled == [
        tables.ACCOUNTS.prefix + one,
        tables.NODES.prefix + one,
        tables.APPS.prefix + b"shop",
        tables.RELEASES.prefix + tables.release_id("shop", 3),
        tables.GRANTS.prefix + tables.grant_id(one, "shop", two),
        tables.CHANNELS.prefix + channel,
        tables.EPOCHS.prefix + tables.epoch_id(one, 2**40, 3),
    ]
