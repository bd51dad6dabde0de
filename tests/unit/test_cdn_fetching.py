"""How sources are chosen: who is quick, who rests, who comes next, and which block will be next."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.retrieval.ahead import (
    CHILDREN_MAX,
    EAGER,
    NODES_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_MAX,
    Order,
    Slots,
)
from lichen.cdn.retrieval.health import (
    HEDGE_S_MAX,
    HEDGE_S_MIN,
    PEERS_MAX,
    REST_S,
    REST_S_MAX,
    RETRY_AFTER_S_MAX,
    WRONG_REST_S,
    Health,
    HealthBook,
    retry_after_s,
)
from lichen.cdn.retrieval.race import ASKED_AT_ONCE_MAX, SOURCES_MAX, Race, Reply
from lichen.cdn.retrieval.sources import (
    GOOD_MAX,
    LOOKUPS_MAX,
    Session,
    Source,
    in_order,
    node_source,
)
from lichen.cdn.routing.multiaddr import parse_origin
from lichen.content import CID, RAW
from lichen.content.dag_pb import Link, encode

NOW = 1000.0


def cid_of(number):
    return CID.of(RAW, b"%d" % number)


def source(name):
    return Source("provider", parse_origin(f"http://{name}.example"))


# --- health --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0001, 20), min_size=1, max_size=50))
def test_a_peer_is_waited_for_alone_within_bounds_whatever_was_observed(times):
    health = Health()
    assert health.hedge_s() == HEDGE_S_MAX
    for took_s in times:
        health.answered(took_s)
        assert HEDGE_S_MIN <= health.hedge_s() <= HEDGE_S_MAX


def test_a_steady_peer_is_waited_for_little_longer_than_it_takes():
    health = Health()
    for _ in range(50):
        health.answered(0.1)
    assert 0.1 <= health.hedge_s() < 0.12


def test_failures_in_a_row_make_rests_longer_and_an_answer_ends_that():
    health = Health()
    for expected in (REST_S, 2 * REST_S, 4 * REST_S):
        health.failed(NOW)
        assert health.rests_until == NOW + expected
    for _ in range(20):
        health.failed(NOW)
    assert health.rests_until == NOW + REST_S_MAX
    health.answered(0.1)
    health.failed(NOW + REST_S_MAX)
    assert health.rests_until == NOW + REST_S_MAX + REST_S


def test_a_failing_peer_is_asked_last_but_a_liar_not_at_all():
    book = HealthBook()
    book.of("failing").failed(NOW)
    book.of("liar").lied(NOW)
    assert book.rests("failing", NOW)
    assert not book.is_shut("failing", NOW)
    assert book.rests("liar", NOW)
    assert book.is_shut("liar", NOW)
    assert not book.is_shut("liar", NOW + WRONG_REST_S)
    assert not book.rests("unknown", NOW)


@pytest.mark.parametrize(
    ("value", "rest_s"), [(b"3", 3), (b"0", 0), (b"999999", RETRY_AFTER_S_MAX), (b"", REST_S),
                          (b"Fri, 31 Dec 1999 23:59:59 GMT", REST_S), (b"9" * 50, REST_S)]
)  # fmt: skip
def test_who_asks_for_rest_gets_it_within_bounds(value, rest_s):
    book = HealthBook()
    book.of("peer").asked_for_rest(NOW, retry_after_s(value))
    assert book.of("peer").rests_until == NOW + rest_s
    assert book.is_shut("peer", NOW) is (rest_s > 0)


def test_a_rest_that_was_asked_for_is_not_shortened_by_a_failure():
    book = HealthBook()
    book.of("peer").asked_for_rest(NOW, 100)
    book.of("peer").failed(NOW)
    assert book.is_shut("peer", NOW + 99)


def test_peers_are_forgotten_when_there_are_too_many():
    book = HealthBook()
    book.of("first").lied(NOW)
    for number in range(PEERS_MAX):
        book.of(str(number))
    assert not book.is_shut("first", NOW)


# --- sources -------------------------------------------------------------------------------------


def test_who_had_blocks_of_a_dag_comes_first_for_the_next_ones():
    session = Session(cid_of(0))
    for name in "abcdef":
        session.had(source(name))
    session.had(source("e"))
    assert [found.address.host for found in session.good][:2] == ["e.example", "f.example"]
    assert len(session.good) == GOOD_MAX


def test_routers_are_asked_for_the_root_once_and_for_few_other_blocks():
    session = Session(cid_of(0))
    assert session.to_look_up(cid_of(1)) == [cid_of(0), cid_of(1)]
    assert session.to_look_up(cid_of(1)) == []
    asked = sum(len(session.to_look_up(cid_of(number))) for number in range(2, 1000))
    assert asked <= LOOKUPS_MAX


@given(st.lists(st.text(max_size=20), unique=True, min_size=1, max_size=20), st.integers())
def test_the_order_of_peers_follows_from_the_cid_alone(urls, number):
    ranked = in_order(urls, cid_of(number))
    assert ranked == in_order(reversed(urls), cid_of(number))
    without = in_order(urls[1:], cid_of(number))  # who leaves changes nothing for the others
    assert without == [url for url in ranked if url != urls[0]]


def test_an_endpoint_that_is_no_url_is_nobody():
    assert node_source("http://h.example:1", is_trusted=False) is not None
    for url in ("", "h.example", "http://h.example/path", "file:///etc/passwd", "http://[x"):
        assert node_source(url, is_trusted=False) is None


# --- reading ahead -------------------------------------------------------------------------------


def parent_of(children):
    block = encode([Link(child, "", 1) for child in children], b"")
    return CID.of(0x70, block), block


def test_reading_in_order_looks_further_and_further_ahead():
    children = [cid_of(number) for number in range(100)]
    order = Order()
    order.saw(*parent_of(children))
    windows = []
    for place in range(40):
        found = order.after(children[place])
        assert found == children[place + 1 : place + 1 + len(found)]
        windows.append(len(found))
    assert windows[:6] == [0, 2, 4, 8, 16, 32]
    assert max(windows) == WINDOW_MAX


def test_who_reads_everything_looks_ahead_from_the_start():
    children = [cid_of(number) for number in range(100)]
    order = Order()
    order.is_eager = True
    order.saw(*parent_of(children))
    assert order.after(children[0]) == children[1 : 1 + EAGER]


def test_who_reads_everything_looks_below_what_has_come_and_behind_what_ends():
    inner = [parent_of([cid_of(10 * number + below) for below in range(3)]) for number in range(4)]
    blocks = dict(inner)
    nodes = [name for name, _ in inner]
    come = {nodes[0], nodes[1]}
    order = Order(lambda cid: blocks[cid] if cid in come else None)
    order.is_eager = True
    order.saw(*parent_of(nodes))
    order.after(nodes[0])
    order.saw(*inner[0])
    for _ in range(4):
        found = order.after(cid_of(0))
    first = [cid_of(1), cid_of(2), nodes[1], cid_of(10), cid_of(11), cid_of(12)]
    assert found == [*first, nodes[2], nodes[3]]  # what is below these is not known yet


def test_blocks_with_links_come_early():
    leaves = [cid_of(number) for number in range(100)]
    node = parent_of([cid_of(1000)])[0]
    order = Order()
    order.is_eager = True
    order.saw(*parent_of([*leaves, node]))
    assert order.after(leaves[0]) == [*leaves[1 : 1 + EAGER], node]


def test_reading_here_and_there_looks_ahead_at_nothing():
    children = [cid_of(number) for number in range(100)]
    order = Order()
    order.saw(*parent_of(children))
    assert [order.after(children[place]) for place in (50, 3, 70, 20, 99)] == [[]] * 5
    assert order.after(cid_of(12345)) == []


def test_large_blocks_make_the_window_smaller():
    children = [cid_of(number) for number in range(100)]
    order = Order()
    order.saw(*parent_of(children))
    order.saw(cid_of(0), bytes(4 << 20))
    windows = [len(order.after(child)) for child in children[:10]]
    assert max(windows) == WINDOW_BYTES_MAX // (4 << 20)


def test_parents_that_are_malformed_or_huge_are_passed_over():
    order = Order()
    order.saw(CID.of(0x70, b"\xff"), b"\xff")
    assert order.after(cid_of(1)) == []
    order.saw(*parent_of([cid_of(number) for number in range(CHILDREN_MAX + 500)]))
    assert order.after(cid_of(CHILDREN_MAX + 100)) == []


def test_no_reader_takes_all_the_slots_from_the_others():
    slots = Slots(90)
    held = [0, 0, 0, 0]
    for _ in range(WINDOW_MAX + NODES_MAX):
        for reader in range(4):
            held[reader] += slots.take(held[reader])
    assert min(held) >= 10
    assert sum(held) + slots.free == 90


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 30))
def test_what_is_foreseen_always_stands_behind_what_was_asked_for(asked, count):
    children = [cid_of(number) for number in range(count)]
    order = Order()
    order.saw(*parent_of(children))
    for number in asked:
        found = order.after(cid_of(number))
        assert len(found) <= WINDOW_MAX
        assert found == children[number + 1 : number + 1 + len(found)]


# --- the race ------------------------------------------------------------------------------------


class Field:
    """Sources that answer as told: a block, nothing, not at all (`dead`), or never (`silent`)."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.now = 0
        self.most = 0

    async def ask(self, found):
        name = found.address.host.removesuffix(".example")
        self.asked.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            answer = self.answers.get(name)
            if answer == "silent":
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            if answer == "dead":
                return Reply(found)
            return Reply(found, reached=True, block=answer)
        finally:
            self.now -= 1

    def race(self, known, last=(), find=None, hedge_s=0.01):
        names = [source(name) for name in known]
        return Race(names, [source(name) for name in last], self.ask, find, lambda _: hedge_s)


async def test_the_first_who_has_the_block_ends_the_race():
    field = Field(a=None, b=b"block", c=b"block")
    race = field.race("abc")
    reply = await race.run()
    assert reply.block == b"block"
    assert field.asked == ["a", "b"]


async def test_who_is_silent_is_not_waited_for_alone():
    field = Field(a="silent", b="silent", c=b"block")
    race = field.race("abc")
    assert (await race.run()).block == b"block"
    assert race.hedged == 2
    await asyncio.sleep(0)
    assert field.now == 0  # those that lost were let go


async def test_nobody_having_it_is_told_from_nobody_being_there():
    absent = Field().race("abc")
    assert await absent.run() is None
    assert absent.reached
    dead = Field(a="dead", b="dead").race("ab")
    assert await dead.run() is None
    assert not dead.reached


async def test_no_more_are_asked_at_once_or_in_all_than_the_bounds_say():
    names = [f"n{number}" for number in range(100)]
    field = Field(**dict.fromkeys(names[:50], "silent"))
    race = field.race(names, hedge_s=0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await race.run()
    assert field.most == ASKED_AT_ONCE_MAX
    absent = Field().race(names)
    assert await absent.run() is None
    assert absent.asked == SOURCES_MAX


async def test_those_that_are_found_are_asked_as_they_are_found_and_the_last_at_last():
    asked = asyncio.Event()

    async def find(offer):
        offer(source("found"))
        offer(source("found"))
        offer(source("known"))
        await asked.wait()
        offer(source("late"))

    field = Field(late=b"block", kubo=b"block")
    plain = field.ask

    async def ask(found):
        reply = await plain(found)
        if found == source("found"):
            asked.set()
        return reply

    field.ask = ask
    race = field.race(["known"], ["kubo"], find, hedge_s=5)
    assert (await race.run()).source == source("late")
    assert field.asked == ["known", "found", "late"]


async def test_a_search_that_fails_ends_with_who_is_asked_last():
    async def find(offer):
        del offer

    field = Field(kubo=b"block")
    assert (await field.race(["known"], ["kubo"], find).run()).block == b"block"


async def test_a_search_that_hangs_keeps_nobody_from_being_asked():
    async def find(offer):
        del offer
        await asyncio.Event().wait()

    field = Field(kubo=b"block")
    race = field.race([], ["kubo"], find)
    race._wait_s = 0.01
    async with asyncio.timeout(20):
        assert (await race.run()).block == b"block"
