"""Chains of delegations: what they allow, and every way to widen, splice or outlive one."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.encoding import canonical, from_canonical
from lichen.errors import UserError, VerificationError
from lichen.identity import KeyKind, PrivateKey
from lichen.identity import delegation as dg
from lichen.units import Amount

NETWORK = b"\x07" * 32
NOW_MS = 1_000_000
KEYS = [
    PrivateKey(kind, number.to_bytes(32, "big"))
    for number, kind in enumerate([*KeyKind, *KeyKind], start=1)
]


def chain_of(*changes, keys=KEYS):
    """Build a chain in which link i takes `changes[i]` over the link before."""
    chain, body = [], None
    for position, change in enumerate(changes):
        body = dg.Delegation(
            issuer=keys[position].public,
            delegate=keys[position + 1].address,
            app=body.app if body else "shop",
            limit=body.limit if body else Amount(100),
            starts_ms=body.starts_ms if body else NOW_MS - 10,
            expires_ms=body.expires_ms if body else NOW_MS + 10,
            parent=chain[-1].id() if chain else b"",
        )
        body = msgspec.structs.replace(body, **change)
        chain.append(dg.sign_delegation(NETWORK, keys[position], body))
    return chain


@pytest.mark.parametrize("links", range(1, dg.LINKS_MAX + 1))
def test_a_chain_gives_the_last_delegate_the_narrowest_right(links):
    chain = chain_of(*({"limit": Amount(100 - i)} for i in range(links)))
    right = dg.verify_delegations(NETWORK, chain, NOW_MS)
    assert right.owner == KEYS[0].address
    assert right.delegate == KEYS[links].address
    assert right.limit == 100 - links + 1


@pytest.mark.parametrize("links", [0, dg.LINKS_MAX + 1])
def test_a_chain_is_neither_empty_nor_long(links):
    with pytest.raises(dg.DelegationInvalidError, match="1 to 4"):
        dg.verify_delegations(NETWORK, chain_of(*({} for _ in range(links))), NOW_MS)


def test_a_right_for_every_app_may_be_narrowed_to_one():
    chain = chain_of({"app": None}, {"app": "blog"})
    assert dg.verify_delegations(NETWORK, chain, NOW_MS).app == "blog"


@pytest.mark.parametrize(
    "wider",
    [
        {"limit": Amount(101)},
        {"app": "blog"},
        {"app": None},
        {"expires_ms": NOW_MS + 11},
        {"starts_ms": NOW_MS - 11},
    ],
)
def test_nobody_hands_on_more_than_he_has(wider):
    with pytest.raises(dg.DelegationWidensError):
        dg.verify_delegations(NETWORK, chain_of({}, wider), NOW_MS)


@pytest.mark.parametrize(
    ("now_ms", "says"), [(NOW_MS - 11, "holds only in 1 ms"), (NOW_MS + 10, "expired 0 ms ago")]
)
def test_a_delegation_holds_in_its_time_only(now_ms, says):
    with pytest.raises(dg.DelegationExpiredError, match=says):
        dg.verify_delegations(NETWORK, chain_of({}), now_ms)


def test_an_expired_link_ends_the_whole_chain():
    chain = chain_of({}, {"expires_ms": NOW_MS})
    with pytest.raises(dg.DelegationExpiredError):
        dg.verify_delegations(NETWORK, chain, NOW_MS)


def test_a_delegation_for_one_network_is_void_on_another():
    with pytest.raises(dg.DelegationInvalidError, match="not signed"):
        dg.verify_delegations(b"\x08" * 32, chain_of({}), NOW_MS)


def test_links_of_different_chains_cannot_be_spliced():
    one, two = chain_of({}, {}), chain_of({"limit": Amount(90)}, {})
    with pytest.raises(dg.DelegationInvalidError, match="follow each other"):
        dg.verify_delegations(NETWORK, [one[0], two[1]], NOW_MS)


def test_a_stranger_cannot_extend_a_chain():
    chain = chain_of({})
    stranger = KEYS[5]
    body = msgspec.structs.replace(
        chain[0].body, issuer=stranger.public, delegate=stranger.address, parent=chain[0].id()
    )
    chain.append(dg.sign_delegation(NETWORK, stranger, body))
    with pytest.raises(dg.DelegationInvalidError, match="follow each other"):
        dg.verify_delegations(NETWORK, chain, NOW_MS)


def test_the_root_of_a_chain_cannot_be_cut_off():
    with pytest.raises(dg.DelegationInvalidError, match="first delegation"):
        dg.verify_delegations(NETWORK, chain_of({}, {})[1:], NOW_MS)


def test_only_the_issuer_signs():
    with pytest.raises(dg.DelegationInvalidError, match="by its issuer"):
        dg.sign_delegation(NETWORK, KEYS[1], chain_of({})[0].body)


@given(data=st.data())
def test_any_changed_byte_voids_a_delegation(data):
    encoded = bytearray(canonical(chain_of({})[0]))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        link = from_canonical(bytes(encoded), dg.SignedDelegation)
    except UserError:
        return
    with pytest.raises((VerificationError, dg.DelegationExpiredError)):
        dg.verify_delegations(NETWORK, [link], NOW_MS)


def test_the_encoding_round_trips():
    link = chain_of({"app": None})[0]
    assert from_canonical(canonical(link), dg.SignedDelegation) == link


@given(
    limits=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    apps=st.lists(st.sampled_from([None, "a", "b"]), min_size=4, max_size=4),
)
def test_a_chain_verifies_exactly_when_every_link_narrows(limits, apps):
    chain = chain_of(*({"limit": Amount(n), "app": a} for n, a in zip(limits, apps, strict=False)))
    narrows = limits == sorted(limits, reverse=True) and all(
        before in (None, after) for before, after in itertools.pairwise(apps[: len(limits)])
    )
    if narrows:
        right = dg.verify_delegations(NETWORK, chain, NOW_MS)
        assert (right.limit, right.app) == (limits[-1], apps[len(limits) - 1])
    else:
        with pytest.raises(dg.DelegationWidensError):
            dg.verify_delegations(NETWORK, chain, NOW_MS)


@pytest.mark.parametrize(
    ("app", "amount", "now_ms", "allowed"),
    [
        ("shop", 100, NOW_MS, True),
        ("shop", 101, NOW_MS, False),
        ("shop", -1, NOW_MS, False),
        ("blog", 1, NOW_MS, False),
        ("shop", 1, NOW_MS + 10, False),
        ("shop", 1, NOW_MS - 11, False),
    ],
)
def test_a_right_allows_what_is_within_its_bounds(app, amount, now_ms, allowed):
    right = dg.verify_delegations(NETWORK, chain_of({}), NOW_MS)
    assert right.allows(app, amount, now_ms) is allowed
