"""DAG-CBOR and DAG-JSON: one spelling per value, both say the same, and hostile bytes end well."""

from __future__ import annotations

import contextlib
import json

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import dag_cbor, dag_json, dag_pb, ipld
from lichen.content.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW
from lichen.content.dag import links_of
from lichen.content.value import DEPTH_MAX, ITEMS_MAX
from lichen.errors import UserError

LINK = CID.of(RAW, b"linked")
texts = st.text(st.characters(codec="utf-8"), max_size=12)
cids = st.builds(
    lambda data, codec: CID.of(codec, data).as_version(0 if codec == DAG_PB else 1),
    st.binary(max_size=4),
    st.sampled_from([RAW, DAG_PB, DAG_CBOR, DAG_JSON]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.binary(max_size=8),
    cids,
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.sampled_from(["/", "bytes", ".", "a"]), inner, max_size=4)
    ),
    max_leaves=20,
)


def _links(value):
    if isinstance(value, CID):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [cid for item in items for cid in _links(item)] if isinstance(value, list | dict) else []


def _is_reserved(value):
    if isinstance(value, dict):
        inner = value.get("/") if min(value, default="") == "/" else None
        if isinstance(inner, dict) and min(inner, default="") == "bytes":
            inner = inner["bytes"]
        return isinstance(inner, str) or any(map(_is_reserved, value.values()))
    return isinstance(value, list) and any(map(_is_reserved, value))


def _same(left, right):
    """Compare values whose types count: 1 is neither 1.0 nor true, and -0.0 is not 0.0."""
    return repr(left) == repr(right)


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_dag_cbor_reads_back_what_it_wrote_with_its_links(value):
    block = dag_cbor.encode(value)
    read = dag_cbor.decode(block)
    assert _same(_sorted(read), _sorted(value))
    assert dag_cbor.links(block) == _links(read)
    assert dag_cbor.encode(read) == block


@given(values)
def test_dag_json_reads_back_what_it_wrote_with_its_links(value):
    if _is_reserved(value):
        with pytest.raises(UserError):
            dag_json.encode(value)
        return
    block = dag_json.encode(value)
    read = dag_json.decode(block)
    assert _same(read, _sorted(value))
    assert dag_json.links(block) == _links(read)
    assert dag_json.decode(json.dumps(json.loads(block), indent=1).encode()) == read


@given(values)
def test_both_codecs_say_the_same(value):
    with contextlib.suppress(UserError):
        block = dag_json.encode(value)
        there = ipld.convert(block, DAG_JSON, DAG_CBOR)
        assert there == dag_cbor.encode(value)
        assert ipld.convert(there, DAG_CBOR, DAG_JSON) == block


@given(values)
def test_dag_cbor_agrees_with_another_implementation(value):
    plain = _without_links(value)
    assert dag_cbor.encode(plain) == bytes(libipld.encode_dag_cbor(plain))
    assert libipld.decode_dag_cbor(dag_cbor.encode(plain)) == plain


def _without_links(value):
    """Leave out what the other one cannot tell apart: links, bytes that look like one, -0.0."""
    if isinstance(value, dict):
        return {key: _without_links(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_links(item) for item in value]
    if value == 0 and isinstance(value, float):
        return 0.0
    return str(value) if isinstance(value, CID | bytes) else value


@given(st.binary(max_size=64))
def test_random_bytes_are_canonical_or_refused(block):
    with contextlib.suppress(UserError):
        assert dag_cbor.encode(dag_cbor.decode(block)) == block
    with contextlib.suppress(UserError):
        assert _links(dag_cbor.decode(block, strict=False)) == dag_cbor.links(block)
    with contextlib.suppress(UserError):
        dag_json.decode(block)
    with contextlib.suppress(UserError):
        dag_json.links(block)


@given(st.lists(st.sampled_from('{}[]:,"\\/01.eE-ub ') | st.sampled_from(['"/"', "{", "null"])))
def test_random_json_is_read_or_refused(letters):
    block = "".join(letters).encode()
    with contextlib.suppress(UserError):
        assert _links(dag_json.decode(block)) == dag_json.links(block)


@pytest.mark.parametrize(
    "block",
    [
        "1801",  # an integer spelt long
        "f90000",  # a half float
        "fa3f800000",  # a single float
        "fb7ff8000000000000",  # NaN
        "fb7ff0000000000000",  # infinity
        "f7",  # undefined
        "e0",  # an unassigned simple value
        "f820",  # another one
        "9f01ff",  # indefinite length
        "a10102",  # an integer as key
        "a2616201616102",  # keys out of order
        "a2616101616102",  # a key twice
        "a26262620161610a",  # longer key first
        "61ff",  # text that is not UTF-8
        "c100",  # another tag
        "d82a00",  # a link that is no byte string
        "d82a4101",  # a link without the identity prefix
        "0101",  # bytes behind the value
        "82",  # cut off
        "",
    ],
)
def test_dag_cbor_refuses_all_but_the_canonical_spelling(block):
    with pytest.raises(UserError):
        dag_cbor.decode(bytes.fromhex(block))


@pytest.mark.parametrize(
    ("block", "value"),
    [
        ("1801", 1),
        ("3900ff", -256),
        ("f93c00", 1.0),
        ("fa3f800000", 1.0),
        ("a2626262016161f6", {"bb": 1, "a": None}),
        ("5801aa", b"\xaa"),
    ],
)
def test_what_older_writers_spelt_is_read_where_strictness_is_not_asked_for(block, value):
    assert _same(dag_cbor.decode(bytes.fromhex(block), strict=False), value)
    assert ipld.convert(bytes.fromhex(block), DAG_CBOR, DAG_JSON) == dag_json.encode(value)
    with pytest.raises(UserError):
        dag_cbor.decode(bytes.fromhex(block))


@pytest.mark.parametrize(
    "text",
    [
        '{"/":"not a CID"}',
        f'{{"/":"{LINK}","a":1}}',
        f'{{"/":"{str(LINK).upper()}"}}',
        '{"/":{"bytes":"AQ=="}}',
        '{"/":{"bytes":"AR"}}',  # bits that stand for nothing
        '{"/":{"bytes":"A-"}}',
        '{"/":{"bytes":"AQ","z":1}}',
        '{"/":{"bytes":"AQ"},"z":1}',
        '{"a":1,"a":2}',
        "NaN",
        "-Infinity",
        "1e999",
        "18446744073709551616",
        "9" * 5000,
        '"\\ud800"',
        '["\\udc00"]',
        '{"\\ud800":1}',
        '"\n"',
        "[1,]",
        "[1]x",
        "\ufeff1",
        "[" * 100_000,
        "[" * (DEPTH_MAX + 2) + "]" * (DEPTH_MAX + 2),
        '"' + '\\"' * 100_000,
        "",
    ],
)
def test_dag_json_refuses_what_is_reserved_or_open_to_interpretation(text):
    with pytest.raises(UserError):
        dag_json.decode(text.encode())


def test_dag_json_links_are_read_in_any_spelling():
    text = f' {{ "a" : [ {{"\\u002f":"{LINK}"}} ], "b": {{"\\/": "{LINK.as_v1()}"}} }} '
    assert dag_json.links(text.encode()) == [LINK, LINK]
    assert links_of(CID.of(DAG_JSON, text.encode()), text.encode()) == [LINK, LINK]


def test_no_link_is_missed_for_a_bound():
    spelt = b'{"/":"%b"}' % str(LINK).encode()
    wide = b"[" + b'0,"{",' * ITEMS_MAX + spelt + b"]"
    deep = b"[" * 100_000 + spelt + b"]" * 100_000
    assert dag_json.links(wide) == dag_json.links(deep) == [LINK]
    link = dag_cbor.encode(LINK)
    assert dag_cbor.links(b"\x81" * 100_000 + link) == [LINK]
    many = b"\x9a" + (ITEMS_MAX + 1).to_bytes(4, "big") + b"\0" * ITEMS_MAX
    assert dag_cbor.links(many + link) == [LINK]


def test_dag_json_links_are_told_from_texts_that_look_like_them():
    inner = '{"/":"%s"}' % LINK  # noqa: UP031 - braces
    for value in (inner, {inner: inner}, [{"/": [str(LINK)]}, {"/": {"x": str(LINK)}}]):
        block = dag_json.encode(value)
        assert dag_json.links(block) == []
        assert dag_json.links(block.replace(b"/", b"\\/")) == []
    for wrong in (f'{{"/":"{LINK}","a":1}}', '{"/":"x"}', '{"/":"\\ud8"}', f'{{"/":"{LINK}"'):
        with pytest.raises(UserError):
            dag_json.links(wrong.encode())


@pytest.mark.parametrize(
    "value", [{"/": "text"}, {"/": "text", "a": 1}, {"/": {"bytes": "x"}}, float("nan"), 2**64]
)
def test_dag_json_refuses_to_write_what_would_be_read_otherwise(value):
    with pytest.raises(UserError):
        dag_json.encode(value)


def test_dag_json_spells_values_in_one_way():
    value = {"b": LINK, "a": [1, 1.0, 1e20, 1.5e300, 1e-7, -0.0], "é": b"\1\2", "/x": 'q"\n\x01'}
    assert dag_json.encode(value).decode() == (
        '{"/x":"q\\"\\n\\u0001","a":[1,1.0,100000000000000000000.0,1.5e+300,0.0000001,-0.0],'
        f'"b":{{"/":"{LINK}"}},"é":{{"/":{{"bytes":"AQI"}}}}}}'
    )


@pytest.mark.parametrize("codec", [dag_cbor, dag_json])
def test_depth_and_length_are_bounded_on_both_ways(codec):
    deep = 0
    for _ in range(DEPTH_MAX):
        deep = [deep]
    assert _same(codec.decode(codec.encode(deep)), deep)
    with pytest.raises(UserError):
        codec.encode([deep])
    many = b"\x9a" + (ITEMS_MAX + 1).to_bytes(4, "big") + b"\0" * (ITEMS_MAX + 1)
    if codec is dag_json:
        many = b"[" + b"0," * ITEMS_MAX + b"0]"
    with pytest.raises(UserError):
        codec.decode(many)
    commas = b'"' + b"," * (2 * ITEMS_MAX) + b'"'
    assert dag_json.decode(commas) == commas[1:-1].decode()


@given(
    st.lists(
        st.builds(
            dag_pb.Link,
            cids,
            st.none() | texts,
            st.none() | st.integers(0, 2**64 - 1),
        ),
        max_size=4,
    ),
    st.none() | st.binary(max_size=8),
)
def test_dag_pb_goes_to_the_other_codecs_and_back(links, data):
    block = dag_pb.encode(dag_pb.sort_links(links), data)
    for codec in (DAG_CBOR, DAG_JSON):
        there = ipld.convert(block, DAG_PB, codec)
        assert links_of(CID.of(codec, there), there) == [
            link.cid for link in dag_pb.sort_links(links)
        ]
        assert ipld.convert(there, codec, DAG_PB) == block


def test_the_dag_pb_form_is_the_logical_one():
    block = dag_pb.encode([dag_pb.Link(LINK, "a", 6)], b"\1")
    assert ipld.convert(block, DAG_PB, DAG_JSON).decode() == (
        '{"Data":{"/":{"bytes":"AQ"}},"Links":[{"Hash":{"/":"%s"},"Name":"a","Tsize":6}]}' % LINK  # noqa: UP031 - braces
    )


@pytest.mark.parametrize(
    "value",
    [
        1,
        {},
        {"Links": 1},
        {"Links": [], "Data": "text"},
        {"Links": [], "Data": None},
        {"Links": [], "More": 1},
        {"Links": [1]},
        {"Links": [{"Hash": "text"}]},
        {"Links": [{"Hash": LINK, "Name": None}]},
        {"Links": [{"Hash": LINK, "Tsize": True}]},
        {"Links": [{"Hash": LINK, "Tsize": -1}]},
        {"Links": [{"Hash": LINK, "Other": 1}]},
    ],
)
def test_dag_pb_is_not_made_of_anything_else(value):
    with pytest.raises(UserError):
        ipld.encode(DAG_PB, value)


def test_codecs_without_a_form_are_refused():
    assert ipld.convert(b"\1", RAW, DAG_CBOR) == b"\x41\x01"
    for codec, value in ((RAW, "text"), (0x51, b"")):
        with pytest.raises(UserError):
            ipld.encode(codec, value)
    with pytest.raises(UserError):
        ipld.decode(0x51, b"")
