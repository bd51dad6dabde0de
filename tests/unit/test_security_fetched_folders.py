"""Content that was written to harm whoever fetches it: nothing is written outside the folder."""

import pytest

from lichen.cli.project import fetch
from lichen.content import V1_2025, import_bytes, import_symlink, resolve
from lichen.content.cid import CID, DAG_PB
from lichen.content.dag_pb import encode
from lichen.content.unixfs import Kind, UnixFS
from lichen.content.unixfs import encode as encode_unixfs
from lichen.errors import UserError


class Memory(dict):
    def get_block(self, cid):
        return self.get(cid)


def folder(blocks, *links):
    """A directory as a hostile publisher makes it: in any order, names twice."""
    block = encode(links, encode_unixfs(UnixFS(Kind.DIRECTORY)))
    cid = CID.of(DAG_PB, block)
    blocks[cid] = block
    return cid


def take(blocks, cid, place):
    return fetch.write(blocks, resolve(blocks, cid), place)


@pytest.fixture
def outside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    return outside


def test_a_symlink_comes_back_as_it_was(tmp_path):
    blocks = Memory()
    link = import_symlink("../any where", V1_2025, blocks.__setitem__)
    root = folder(blocks, link.link("l"))
    assert take(blocks, root, tmp_path / "got") == 1
    assert (tmp_path / "got" / "l").readlink().as_posix() == "../any where"


def test_nothing_is_written_through_a_symlink_of_the_same_content(tmp_path, outside):
    blocks = Memory()
    evil = import_bytes(b"evil", V1_2025, blocks.__setitem__)
    link = import_symlink(str(outside), V1_2025, blocks.__setitem__)
    inner = import_like(folder(blocks, evil.link("planted")))
    with pytest.raises(UserError, match="symlink"):
        take(blocks, folder(blocks, link.link("d"), inner.link("d")), tmp_path / "got")
    to_file = import_symlink(str(outside / "planted"), V1_2025, blocks.__setitem__)
    take(blocks, folder(blocks, to_file.link("f"), evil.link("f")), tmp_path / "got2")
    with pytest.raises(UserError, match="is a symlink"):
        take(blocks, folder(blocks, to_file.link(".f.partial"), evil.link("f")), tmp_path / "got3")
    assert list(outside.iterdir()) == []


def test_what_stands_in_a_symlinks_place_is_not_replaced(tmp_path):
    blocks = Memory()
    link = import_symlink("x", V1_2025, blocks.__setitem__)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "l").write_text("mine")
    with pytest.raises(UserError, match="cannot become"):
        take(blocks, folder(blocks, link.link("l")), tmp_path / "got")
    assert (tmp_path / "got" / "l").read_text() == "mine"


def import_like(cid):
    from lichen.content.importer import Root

    return Root(cid, 0, 1)
