"""What content is called when it is saved: any name, and never more than a name."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.disposition import ASCII_BYTES_MAX, ENCODED_BYTES_MAX, disposition

LINE = re.compile(
    rb"content-disposition: (?:inline|attachment)"
    rb"(?:; filename=\"([^\"\\\x00-\x1f\x7f-\xff]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9%!#$&+.^_`|~-]+))?)?\r\n"
)


def test_ascii_names_are_given_once() -> None:
    line = disposition("inline", "a file.json")
    assert line == b'content-disposition: inline; filename="a file.json"\r\n'


def test_other_names_are_given_in_ascii_and_percent_encoded() -> None:
    assert disposition("attachment", "résumé.tar") == (
        b'content-disposition: attachment; filename="r_sum_.tar"; '
        b"filename*=UTF-8''r%C3%A9sum%C3%A9.tar\r\n"
    )


def test_without_a_name_only_the_kind_is_said() -> None:
    assert disposition("attachment") == b"content-disposition: attachment\r\n"
    assert disposition("inline", "") == b"content-disposition: inline\r\n"


@pytest.mark.parametrize("name", ['a"b', "a\r\nset-cookie: b", "../a", "..\\a", "a%22b", "a\0b"])
def test_no_name_ends_the_field_or_leaves_a_folder(name: str) -> None:
    found = LINE.fullmatch(disposition("attachment", name))
    assert found is not None
    assert not {b"/", b"\\", b"%"} & set(re.findall(rb".", found[1], re.DOTALL))


@pytest.mark.parametrize("name", ["a" * 300 + ".tar", "ж" * 300 + ".tar", "書" * 254 + ".tar"])
def test_long_names_are_cut_in_front_of_their_suffix(name: str) -> None:
    found = LINE.fullmatch(disposition("attachment", name))
    assert found is not None
    assert found[1].endswith(b".tar")
    assert len(found[1]) <= ASCII_BYTES_MAX
    if found[2] is not None:
        assert ENCODED_BYTES_MAX - 12 < len(found[2]) <= ENCODED_BYTES_MAX
        assert name.startswith(unquote(found[2].decode()).removesuffix(".tar"))


@given(st.text(max_size=300))
def test_any_text_makes_one_well_formed_line(name: str) -> None:
    assert LINE.fullmatch(disposition("inline", name)) is not None
