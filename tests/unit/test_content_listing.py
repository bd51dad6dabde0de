"""Pages of large directories are found by where the last one ended, not by reading all before."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.forms.base import Links
from lichen.cdn.forms.listing import Frame, Page, list_html, list_json, listing_etag
from lichen.cdn.wanted import AFTER_BYTES_MAX, read_wanted
from lichen.content import CID, RAW, V1_2025, Link, hamt, import_directory, list_directory
from lichen.encoding import from_json
from lichen.errors import UserError

LEAF = CID.of(RAW, b"x")


class Memory:
    """Blocks in memory; `read` counts those that were asked for."""

    def __init__(self):
        self.blocks = {}
        self.read = 0

    def put(self, cid, block):
        self.blocks[cid] = block

    def get_block(self, cid):
        self.read += 1
        return self.blocks.get(cid)


def folder(count):
    memory = Memory()
    links = [Link(LEAF, f"{'n' * 60}-{number}", 1) for number in range(count)]
    return memory, import_directory(links, V1_2025, memory.put).cid


SHARDED, ROOT = folder(5000)
NAMES = [entry.name for entry in list_directory(SHARDED, ROOT)]
PLAIN, PLAIN_ROOT = folder(500)


@given(start=st.integers(1, len(NAMES)))
def test_what_is_behind_a_name_is_what_is_behind_its_number(start):
    found = list_directory(SHARDED, ROOT, start, NAMES[start - 1])
    assert [entry.name for entry in itertools.islice(found, 40)] == NAMES[start : start + 40]


def test_a_deep_page_reads_only_the_shards_that_it_shows():
    SHARDED.read = 0
    found = list_directory(SHARDED, ROOT, 4900, NAMES[4899])
    assert len(list(found)) == 100
    assert SHARDED.read < 20 < len(SHARDED.blocks)


def test_a_name_that_is_not_there_stands_where_its_hash_says():
    found = [entry.name for entry in list_directory(SHARDED, ROOT, 0, "not there")]
    assert 0 < len(found) < len(NAMES)
    assert found == NAMES[-len(found) :]


def test_a_plain_directory_goes_by_number():
    names = [entry.name for entry in list_directory(PLAIN, PLAIN_ROOT)]
    behind = [entry.name for entry in list_directory(PLAIN, PLAIN_ROOT, 490, names[3])]
    assert behind == names[490:]


@pytest.mark.parametrize(
    ("memory", "root", "count"), [(SHARDED, ROOT, 5000), (PLAIN, PLAIN_ROOT, 500)]
)
def test_pages_one_after_the_other_show_each_entry_once(memory, root, count):
    seen, page = [], Page()
    while page is not None:
        shown = from_json(b"".join(list_json(memory, root, page)), dict)
        seen += [entry["name"] for entry in shown["entries"]]
        page = None if shown["next"] is None else Page(shown["next"], shown["after"])
    assert len(seen) == len(set(seen)) == count


def test_the_link_to_the_next_page_leads_there():
    frame = Frame(ROOT, f"/ipfs/{ROOT}", "/", f"/ipfs/{ROOT}", Links("/ipfs/"))
    text = b"".join(list_html(SHARDED, frame, Page())).decode()
    query = text.partition('<a href="?')[2].partition('"')[0].replace("&amp;", "&")
    wanted = read_wanted(query, {})
    assert (wanted.start, wanted.after) == (1000, NAMES[999])


def test_a_name_too_long_for_a_query_is_left_out_of_it():
    entry = next(list_directory(SHARDED, ROOT))
    long = type(entry)("x" * (AFTER_BYTES_MAX + 1), LEAF, 1)
    assert Page().following(long) == Page(1000, None)
    with pytest.raises(UserError):
        read_wanted("after=" + long.name, {})


def test_pages_have_tags_of_their_own():
    pages = [Page(), Page(1000), Page(1000, "a"), Page(1000, "b"), Page(2000, "a")]
    tags = {listing_etag(ROOT, page, as_json=kind) for page in pages for kind in (True, False)}
    assert len(tags) == 2 * len(pages)
    assert all(len(tag) < 200 for tag in tags)


def test_hostile_shards_do_not_break_the_search_for_a_place():
    deep = Memory()
    links = [Link(LEAF, name, 1) for name in NAMES[:600]]
    root, _ = hamt.build(links, lambda block: _put(deep, block))
    for name in ("", "\udcff", "x" * 300, NAMES[5]):
        assert len(list(list_directory(deep, root, 0, name))) <= 600


def _put(memory, block):
    cid = CID.of(0x70, block)
    memory.put(cid, block)
    return cid
