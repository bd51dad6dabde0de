"""The fast way to read a link of dag-pb says just what the careful one says."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lichen.content import dag_pb
from lichen.content.cid import CID, DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.errors import UserError

USUAL = [CID.of(RAW, b"x"), CID(DAG_PB, bytes(32), version=0), CID(0x0129, bytes(32))]


def outcome(read, data):
    try:
        return read(data)
    except UserError:
        return UserError


def careful(data):
    return dag_pb._decode_link(memoryview(data))


def encoded(link):
    field = dag_pb.encode_link(link)
    return field[2:] if field[1] < 0x80 else field[3:]


@given(
    st.sampled_from(USUAL), st.none() | st.text(max_size=140), st.none() | st.integers(0, 2**64 - 1)
)
def test_links_read_the_same_both_ways(cid, name, total_bytes):
    link = Link(cid, name, total_bytes)
    fast = dag_pb._usual_link(encoded(link))
    assert careful(encoded(link)) == link
    assert fast in (None, link)
    short = name is not None and len(name.encode()) < 128 and len(cid.encode()) in (34, 36)
    assert (fast is not None) == (short and total_bytes is not None)


NAMES = st.text(st.sampled_from("ab\x12\x02"), max_size=3)


@given(st.lists(NAMES, max_size=8), NAMES, st.none() | st.binary(max_size=8), st.booleans())
def test_one_link_is_found_as_if_all_were_read(names, name, data, data_first):
    links = [Link(CID.of(RAW, b"%d" % at), named, at) for at, named in enumerate(names)]
    block = dag_pb.encode(links, data)
    if data_first:
        block = dag_pb.encode([], data) + dag_pb.encode(links, None)
    first = next((link for link in links if link.name == name), None)
    assert dag_pb.find(block, name) == (data, first)


@given(st.lists(NAMES, min_size=1, max_size=4), st.binary(min_size=1, max_size=8), st.data())
def test_a_damaged_node_is_searched_as_far_as_it_is_whole(names, data, draw):
    links = [Link(CID.of(RAW, b"%d" % at), named, at) for at, named in enumerate(names)]
    block = bytearray(dag_pb.encode(links, data))
    block[draw.draw(st.integers(0, len(block) - 1))] = draw.draw(st.integers(0, 255))
    whole = outcome(dag_pb.decode, bytes(block))
    found = outcome(lambda node: dag_pb.find(node, names[-1]), bytes(block))
    if whole is not UserError:
        assert found[0] == whole.data
        assert found[1] == next((at for at in whole.links if at.name == names[-1]), None)


def test_looking_up_a_name_takes_little_of_what_reading_all_takes():
    links = [Link(USUAL[0], f"{at:05}", at) for at in range(20_000)]
    block = dag_pb.encode(links, b"\x08\x01")
    find = cpu_s(lambda: dag_pb.find(block, "19999"))
    assert find < cpu_s(lambda: dag_pb.decode(block)) / 2
    assert find < 10 * cpu_s(lambda: dag_pb.find(block, "\x12"))


def cpu_s(work):
    spent = []
    for _ in range(5):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


@given(
    st.sampled_from(USUAL), st.text(max_size=5), st.integers(0, 300), st.data(),
)  # fmt: skip
def test_damaged_links_are_refused_or_read_the_same_both_ways(cid, name, total_bytes, data):
    link = bytearray(encoded(Link(cid, name, total_bytes)))
    for _ in range(data.draw(st.integers(1, 2))):
        link[data.draw(st.integers(0, len(link) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(link[: data.draw(st.integers(len(link) - 3, len(link)))])
    for damaged in (bytes(link), cut, bytes(link) + b"\0"):
        fast = outcome(dag_pb._usual_link, damaged)
        assert fast is None or fast == outcome(careful, damaged)


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x0a\x24")
def test_any_bytes_are_refused_or_read_the_same_both_ways(data):
    for link in (data, b"\x0a\x24" + USUAL[0].encode() + data, b"\x0a\x22" + data):
        fast = outcome(dag_pb._usual_link, link)
        assert fast is None or fast == outcome(careful, link)


@pytest.mark.parametrize("size", [b"\x80\x00", b"\xff" * 10, b"\x80", b"\x05\x05"])
def test_sizes_are_spelt_in_one_way(size):
    link = encoded(Link(USUAL[0], "n", 0))[:-1] + size
    assert outcome(dag_pb._usual_link, link) in (None, UserError)
    assert outcome(careful, link) is UserError
