"""Tables that go on disk when they are large, and places of blocks, are what dictionaries are."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.content import V1_2025, import_bytes, import_directory
from lichen.content.cid import CID, RAW
from lichen.content.places import Places
from lichen.content.recent import Recent
from lichen.content.scratch import ScratchTable
from lichen.content.weigh import MISSING_MAX, weigh
from lichen.errors import UserError

KEYS = st.binary(min_size=1, max_size=3)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=4)),
        st.tuples(st.just("drop"), KEYS, st.just(b"")),
        st.tuples(st.just("pop"), st.just(b""), st.just(b"")),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(actions=ACTIONS, memory=st.sampled_from([0, 1, 5, 100]))
def test_a_table_does_what_a_dictionary_does(tmp_path_factory, actions, memory):
    table = ScratchTable(str(tmp_path_factory.getbasetemp()), memory)
    model = {}
    for action, key, value in actions:
        if action == "put":
            table.put(key, value)
            model[key] = value
        elif action == "drop":
            table.drop(key)
            model.pop(key, None)
        else:
            found = table.pop_any()
            assert (found is None) == (not model)
            if found is not None:
                assert model.pop(found[0]) == found[1]
        assert len(table) == len(model)
        assert not key or table.get(key) == model.get(key)
    assert dict(table.items()) == model
    table.close()


def test_what_a_table_put_on_disk_is_gone_when_it_is_closed(tmp_path):
    table = ScratchTable(str(tmp_path), 2)
    for number in range(10_000):
        table.put(b"%d" % number, b"")
    assert os.listdir(tmp_path) != []
    table.close()
    assert os.listdir(tmp_path) == []


def test_recent_names_are_forgotten_by_generations():
    recent = Recent(10)
    for number in range(25):
        recent.add(b"%d" % number)
    known = [number for number in range(25) if b"%d" % number in recent]
    assert known == list(range(10, 25))


def test_files_among_recent_names_are_told_by_how_they_begin():
    recent = Recent()
    cid = CID.of(RAW, b"x")
    recent.add_all([cid.encode(), cid.multihash])
    assert recent.files() == [cid.encode()]


def test_a_block_in_a_file_that_is_gone_or_cut_off_is_a_user_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    cid = CID.of(RAW, b"4567")
    with Places() as places:
        places.put_at(cid, places.source(str(path)), 4, 4)
        assert places.read(cid) == b"4567"
    with Places() as places:
        places.put_at(cid, places.source(str(path)), 4, 4)
        path.write_bytes(b"01234")
        with pytest.raises(UserError, match="changed"):
            places.read(cid)


class Memory(dict):
    def get_block(self, cid):
        return self.get(cid)

    def size(self, cid):
        block = self.get(cid)
        return None if block is None else len(block)


def test_a_dag_weighs_each_block_once_and_names_what_is_missing(tmp_path):
    blocks = Memory()
    same = [import_bytes(b"same", V1_2025, blocks.__setitem__) for _ in range(3)]
    root = import_directory(
        [file.link(f"{n}") for n, file in enumerate(same)], V1_2025, blocks.__setitem__
    ).cid
    found = weigh(blocks, root, str(tmp_path), None)
    assert (found.bytes, found.blocks) == (4 + len(blocks[root]) + 2 * 64, 2)
    del blocks[same[0].cid]
    assert weigh(blocks, root, str(tmp_path), None).missing == (same[0].cid,)


def test_weighing_ends_above_a_bound_and_at_so_many_missing_blocks(tmp_path):
    blocks = Memory()
    links = [import_bytes(b"%d" % n, V1_2025, lambda *_: None).link(f"{n}") for n in range(2000)]
    root = import_directory(links, V1_2025, blocks.__setitem__).cid
    assert len(weigh(blocks, root, str(tmp_path), None).missing) == MISSING_MAX
    assert weigh(blocks, root, str(tmp_path), 100).missing == ()
    first = import_bytes(b"0", V1_2025, blocks.__setitem__)  # the walk comes there last
    all_of_it = weigh(blocks, root, str(tmp_path), None, missing_max=5000)
    assert len(all_of_it.missing) == MISSING_MAX
    assert all_of_it.bytes == len(blocks[root]) + len(blocks[first.cid]) + 2 * 64


def test_only_roots_of_large_files_are_named(tmp_path):
    blocks = Memory()
    narrow = V1_2025.__class__("narrow", 1000, 2, True, 1, V1_2025.measure)
    large = import_bytes(os.urandom(9000), narrow, blocks.__setitem__)
    small = import_bytes(os.urandom(1500), narrow, blocks.__setitem__)
    root = import_directory([large.link("l"), small.link("s")], narrow, blocks.__setitem__).cid
    assert weigh(blocks, root, str(tmp_path), None, 5000).files == (large.cid,)
