"""UnixFS as TAR: what went in comes out of anybody's tar, and nothing hostile leaves its root."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.cdn.formats import NotAcceptableError
from lichen.cdn.forms import archive as archive_module
from lichen.cdn.forms import ustar
from lichen.cdn.forms.archive import archive
from lichen.content import (
    CID,
    DAG_CBOR,
    DAG_PB,
    RAW,
    V1_2025,
    Kind,
    Link,
    MissingBlockError,
    Mtime,
    dag_pb,
    hamt,
    import_bytes,
    import_symlink,
    unixfs,
)
from lichen.errors import LimitError, UserError

GIB_8 = 8 << 30


class Memory(dict):
    """Blocks in memory."""

    def get_block(self, cid):
        return self.get(cid)

    def add(self, codec, block):
        cid = CID.of(codec, block)
        self[cid] = block
        return cid

    def put(self, cid, block):
        self[cid] = block

    def file(self, data):
        return import_bytes(data, V1_2025, self.put).cid

    def folder(self, *links):
        """Store a directory as it is, in this order, whatever its names."""
        message = unixfs.encode(unixfs.UnixFS(Kind.DIRECTORY))
        return self.add(DAG_PB, dag_pb.encode([Link(cid, name) for name, cid in links], message))

    def symlink(self, target):
        return import_symlink(target, V1_2025, self.put).cid


def bytes_of(blocks, cid):
    found = archive(blocks, cid)
    data = b"".join(found.pieces)
    assert found.length in (None, len(data))
    return data


def read_tar(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            member.name: (member, tar.extractfile(member).read() if member.isfile() else None)
            for member in tar
        }


def read_members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def test_a_tree_is_archived_below_its_cid(tmp_path):
    blocks = Memory()
    long = "x" * 120 + "/" + "ż" * 90
    inner = blocks.folder(("empty", blocks.file(b"")), ("ą b", blocks.file(b"text\n")))
    large = blocks.file(bytes(range(256)) * 9000)
    far = blocks.folder((long.partition("/")[2], blocks.file(b"far")))
    root = blocks.folder(
        ("dir", inner), (long.partition("/")[0], far), ("large", large),
        ("link", blocks.symlink("dir/ą b")), ("raw", blocks.add(RAW, b"raw")),
    )  # fmt: skip
    data = bytes_of(blocks, root)
    assert data == bytes_of(blocks, root)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(tmp_path, filter="data")
    here = tmp_path / str(root)
    assert (here / "dir/ą b").read_bytes() == (here / "link").read_bytes() == b"text\n"
    assert (here / "dir/empty").read_bytes() == b""
    assert (here / long).read_bytes() == b"far"
    assert (here / "large").read_bytes() == bytes(range(256)) * 9000
    assert sorted(path.name for path in here.iterdir()) == sorted(
        ["dir", "x" * 120, "large", "link", "raw"]
    )


def test_a_file_and_a_symlink_alone_are_called_by_their_cid():
    blocks = Memory()
    for cid in (blocks.file(b"alone"), blocks.add(RAW, b"alone")):
        ((name, (_, data)),) = read_tar(bytes_of(blocks, cid)).items()
        assert (name, data) == (str(cid), b"alone")
    link = blocks.symlink("elsewhere")
    ((name, (member, _)),) = read_tar(bytes_of(blocks, link)).items()
    assert (name, member.issym(), member.linkname) == (str(link), True, "elsewhere")


def test_a_hamt_directory_is_archived_whole_and_its_length_is_not_known_before():
    blocks = Memory()
    files = {f"file-{number}": b"%d" % number for number in range(400)}
    links = [Link(blocks.file(data), name) for name, data in files.items()]
    root, _ = hamt.build(links, lambda block: blocks.add(DAG_PB, block))
    assert archive(blocks, root).length is None
    found = read_tar(bytes_of(blocks, root))
    assert {name.partition("/")[2]: data for name, (_, data) in found.items() if data} == files


def test_modes_and_times_are_those_of_unixfs_without_the_right_to_be_somebody_else():
    blocks = Memory()

    def made(mode, mtime):
        message = unixfs.UnixFS(Kind.FILE, b"x", 1, mode=mode, mtime=mtime)
        return blocks.add(DAG_PB, dag_pb.encode([], unixfs.encode(message)))

    cases = {
        "plain": (None, None, 0o644, 0),
        "old": (0o4755, Mtime(-5, 250_000_000), 0o755, -4.75),
        "new": (0o100600, Mtime(1_700_000_000, 1), 0o600, 1_700_000_000.000000001),
        "far": (0o7, Mtime(2**40), 0o7, 2**40),
    }
    links = [(name, made(mode, mtime)) for name, (mode, mtime, _, _) in cases.items()]
    found = read_tar(bytes_of(blocks, blocks.folder(*links)))
    for name, (_, _, mode, mtime) in cases.items():
        member = next(member for path, (member, _) in found.items() if path.endswith(name))
        assert (member.mode, member.uid, member.gid) == (mode, 0, 0)
        assert member.mtime == pytest.approx(mtime, abs=1e-6)


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/", ".", "", "a/../..", "x\0y"])
def test_names_that_lead_out_of_the_root_are_refused_before_the_first_byte(name):
    blocks = Memory()
    file = blocks.file(b"x")
    with pytest.raises(UserError):
        archive(blocks, blocks.folder(("fine", file), (name, file)))


def test_names_that_stay_inside_are_made_plain():
    blocks = Memory()
    file = blocks.file(b"x")
    inner = blocks.folder(("../beside", file), ("a//b/./c", file), ("/abs", file))
    root = blocks.folder(("dir", inner))
    names = [name.partition("/")[2] for name in read_tar(bytes_of(blocks, root))]
    assert names == ["", "dir", "beside", "dir/a/b/c", "dir/abs"]


def test_nothing_is_put_where_a_symlink_of_the_archive_leads():
    blocks = Memory()
    file = blocks.file(b"x")
    away = blocks.symlink("/etc")
    for root in (
        blocks.folder(("a", away), ("a", blocks.folder(("x", file)))),
        blocks.folder(("a", away), ("a/x", file)),
        blocks.folder(("a", away), ("a", file)),
        blocks.folder(("a", blocks.folder(("../a", away), ("x", file)))),
        blocks.folder(("a", blocks.folder(("b", away))), ("c", blocks.folder(("../a/b/x", file)))),
    ):
        with pytest.raises(UserError):
            archive(blocks, root)


hostile_names = st.sampled_from(["a", "b", "a/b", "../a", "..", "./b", "b/../a", "a//b", "/a"])
trees = st.recursive(
    st.sampled_from(["file", "link"]),
    lambda inner: st.lists(st.tuples(hostile_names, inner), max_size=4),
    max_leaves=12,
)


def _store(blocks, tree):
    if isinstance(tree, str):
        return blocks.file(b"x") if tree == "file" else blocks.symlink("/outside")
    return blocks.folder(*((name, _store(blocks, inner)) for name, inner in tree))


@settings(deadline=None)
@given(trees)
def test_whatever_a_tree_is_called_it_stays_below_its_root_and_out_of_symlinks(tree):
    blocks = Memory()
    root = _store(blocks, tree)
    with contextlib.suppress(UserError):
        _check_places(str(root), read_members(bytes_of(blocks, root)))


def _check_places(root, members):
    links = set()
    for member in members:
        parts = member.name.split("/")
        assert parts[0] == root
        assert not {"", ".", ".."} & set(parts)
        assert not links & {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
        if member.issym():
            links.add(member.name)


def test_what_is_not_unixfs_or_not_here_is_said_before_the_first_byte():
    blocks = Memory()
    other = blocks.add(DAG_CBOR, b"\xa0")
    with pytest.raises(NotAcceptableError):
        archive(blocks, other)
    with pytest.raises(UserError):
        archive(blocks, blocks.folder(("x", other)))
    with pytest.raises(MissingBlockError):
        archive(blocks, blocks.folder(("x", CID.of(DAG_PB, b"missing"))))


def test_more_than_an_archive_holds_is_refused(monkeypatch):
    blocks = Memory()
    claims = unixfs.UnixFS(Kind.FILE, None, 2**41, child_bytes=(2**41,))
    node = dag_pb.encode([Link(CID.of(RAW, b""))], unixfs.encode(claims))
    with pytest.raises(LimitError):
        archive(blocks, blocks.folder(("x", blocks.add(DAG_PB, node))))
    with pytest.raises(LimitError):
        archive(blocks, blocks.folder(("x" * 5000, blocks.file(b""))))
    deep = blocks.folder()
    for _ in range(archive_module.DEPTH_MAX):
        deep = blocks.folder(("d", deep))
    with pytest.raises(LimitError):
        list(archive(blocks, deep).pieces)
    monkeypatch.setattr(archive_module, "ENTRIES_MAX", 1000)
    wide = blocks.folder(*((f"{number}", blocks.file(b"")) for number in range(1000)))
    with pytest.raises(LimitError):
        list(archive(blocks, wide).pieces)
    monkeypatch.setattr(archive_module, "SYMLINKS_MAX", 2)
    links = blocks.folder(*((name, blocks.symlink("x")) for name in "abc"))
    with pytest.raises(LimitError):
        archive(blocks, links)


def test_a_bomb_of_folders_in_folders_stays_small_in_memory():
    blocks = Memory()
    folder = blocks.file(b"")
    for _ in range(4):
        folder = blocks.folder(*((f"{number:0500}", folder) for number in range(5000)))
    tracemalloc.start()
    try:
        with pytest.raises(LimitError):
            list(archive(blocks, folder).pieces)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_a_large_size_has_it_in_a_pax_record():
    member = ustar.Member("large", ustar.Kind.FILE, GIB_8)
    with tarfile.open(fileobj=io.BytesIO(ustar.header(member) + ustar.END)) as tar:
        assert tar.next().size == GIB_8
    small = ustar.Member("small", ustar.Kind.FILE, GIB_8 - 1)
    assert len(ustar.header(small)) == ustar.BLOCK_BYTES


def test_letters_of_names_and_targets_are_kept():
    member = ustar.Member("what?", ustar.Kind.SYMLINK, target="why?/*")
    with tarfile.open(fileobj=io.BytesIO(ustar.header(member) + ustar.END)) as tar:
        found = tar.next()
    assert (found.name, found.linkname) == ("what?", "why?/*")


segments = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=70)
paths = st.lists(segments, min_size=1, max_size=6).map("/".join)


@settings(max_examples=200, deadline=None)
@given(
    paths,
    st.sampled_from([ustar.Kind.FILE, ustar.Kind.DIRECTORY, ustar.Kind.SYMLINK]),
    st.integers(0, 2**40),
    st.integers(0, 0o777),
    st.integers(-(2**33), 2**40),
    st.binary(min_size=1, max_size=150).filter(lambda data: b"\0" not in data),
)
def test_any_member_is_read_back_by_another_reader(path, kind, size, mode, mtime, target):
    is_file, is_link = kind is ustar.Kind.FILE, kind is ustar.Kind.SYMLINK
    text = target.decode("utf-8", "surrogateescape") if is_link else ""
    member = ustar.Member(path, kind, size if is_file else 0, mode, mtime, 0, text)
    data = ustar.header(member) + ustar.END
    assert len(data) % ustar.BLOCK_BYTES == 0
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        found = tar.next()
    assert found.name == path
    assert (found.isreg(), found.issym(), found.isdir()) == (
        is_file,
        is_link,
        kind is ustar.Kind.DIRECTORY,
    )
    assert (found.size, found.mode, found.mtime) == (size if is_file else 0, mode, mtime)
    assert found.linkname == text
