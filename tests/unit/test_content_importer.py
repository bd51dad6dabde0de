"""Imports have the CIDs that the reference importer gives (see tests/conformance)."""

import msgspec
import pytest

from lichen.content import V0_2015, V1_2025, import_bytes, import_directory, import_symlink
from lichen.content.importer import FileBuilder
from lichen.content.profile import profile_named
from lichen.errors import UserError

MIB = 1 << 20
ROWS = [bytes((first + i) & 255 for i in range(251)) for first in range(256)]


def content(size, seed=7):
    """The generator of the conformance test: byte i is (seed + i + i // 251) mod 256."""
    period = b"".join(ROWS[seed + 252 * n & 255] for n in range(64))
    return (period * (size // len(period) + 1))[:size]


def discard(cid, block):
    assert cid.matches(block)


FILES = [
    (V1_2025, 0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", 0),
    (V1_2025, 1, "bafkreigkgwdvr5wspzwpiutssn4xpj2i7wedshnwphhnu7ohx4pqaxxipe", 1),
    (V1_2025, MIB, "bafkreiaja4yo4nrwshkqqmipzg76pnaauvqz2hkkaemxajyu4nbar2scye", MIB),
    (V1_2025, MIB + 1, "bafybeigfa33rj5ds4bxxppzifu3v6vmv56674mhdq5jleaf44pxcr2l7t4", 1048681),
    (V1_2025, 5 * MIB, "bafybeiggu77bq3gpg2ypniudnt3spy3iohf2lv7fm2rhiy3zqmnwgbwaom", 5243139),
    (V0_2015, 0, "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", 6),
    (V0_2015, 1, "QmXC9WjuLo7EfydBdbWyvpGif62nrxbDCX2vcz9ZqLTQvV", 9),
    (V0_2015, MIB // 4 + 1, "QmYhz8bb5BqEVeuFVdL2ovTGCUYzX3yCKMoDgoYpgJePzd", 262267),
    (V0_2015, 5 * MIB, "QmPkT4ruK6nNSAUew5ETrk1t6k2BBqzoyG6UkT6tY2aqBG", 5244129),
    (V0_2015, 174 * MIB // 4 + 1, "QmSbu2WZcADweXqbsU3fF75rdP1TzTuBGP9XQhbPDvKCbf", 45624016),
]


@pytest.mark.parametrize(("profile", "size", "cid", "total_bytes"), FILES)
def test_a_file_has_the_reference_cid(profile, size, cid, total_bytes):
    root = import_bytes(content(size), profile, discard)
    assert (str(root.cid), root.file_bytes, root.total_bytes) == (cid, size, total_bytes)


@pytest.mark.parametrize(
    ("profile", "cid"),
    [
        (V1_2025, "bafybeias4dqkggtleenhqamctfpgeqrfonyrojzh32c2rincyp7nyygncq"),
        (V0_2015, "Qmby3iwzrXZtJpX7Lg3yL2ZdKSoZYwzQBCqufpRtvVt3Pz"),
    ],
)
def test_a_directory_of_3000_entries_has_the_reference_cid(profile, cid):
    links = [
        import_bytes(content(i % 50, i), profile, discard).link(
            f"entry-{i:05}-with-a-name-of-ordinary-length.txt"
        )
        for i in range(3000)
    ]
    assert str(import_directory(reversed(links), profile, discard).cid) == cid


def test_a_directory_with_a_symlink_has_the_reference_cid():
    links = [
        import_symlink("../somewhere/a", V1_2025, discard).link("l"),
        import_bytes(content(10), V1_2025, discard).link("a"),
    ]
    root = import_directory(links, V1_2025, discard)
    assert str(root.cid) == "bafybeieckabvkyh7npwqcmd7g2v4junnfsbl4ybstxen7e6jwhde3z7gwy"
    assert root.total_bytes == 124


def test_the_tree_grows_a_level_only_beyond_its_width():
    profile = msgspec.structs.replace(V1_2025, width=8)

    def nodes_above(leaves):
        blocks = []
        builder = FileBuilder(profile, lambda cid, _: blocks.append(cid))
        for _ in range(leaves):
            builder.leaf(bytes(32), MIB)
        assert builder.finish().file_bytes == leaves * MIB
        return len(blocks)

    assert [nodes_above(n) for n in (1, 2, 8, 9, 16, 17)] == [0, 1, 1, 3, 3, 4]
    assert [nodes_above(n) for n in (64, 65, 512, 513)] == [9, 12, 73, 77]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "x" * 256, "\udc80"])
def test_names_that_no_directory_may_have_are_refused(name):
    file = import_bytes(b"", V1_2025, discard)
    with pytest.raises(UserError):
        import_directory([file.link(name)], V1_2025, discard)


def test_two_entries_of_one_name_are_refused():
    file = import_bytes(b"", V1_2025, discard)
    with pytest.raises(UserError):
        import_directory([file.link("a"), file.link("a")], V1_2025, discard)


def test_an_unknown_profile_is_told_the_known_ones():
    with pytest.raises(UserError) as caught:
        profile_named("unixfs-v2")
    assert "unixfs-v1-2025" in caught.value.hint
