"""`lichen storage get --format`: one block, checked, in the codec that was asked for."""

import pytest

from lichen.cli.project import fetch
from lichen.content import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW, Link, dag_cbor, dag_json, dag_pb
from lichen.content.blocks import CheckedBlocks
from lichen.errors import UserError, VerificationError

FILE = CID.of(RAW, b"file")
NODE = dag_pb.encode([Link(FILE, "name", 4)], None)
NODE_CID = CID.of(DAG_PB, NODE)
TOP = dag_cbor.encode({"node": NODE_CID, "n": 1})
TOP_CID = CID.of(DAG_CBOR, TOP)
STORED = {FILE: b"file", NODE_CID: NODE, TOP_CID: TOP}


@pytest.fixture
def blocks():
    return CheckedBlocks(STORED.get)


def test_a_block_is_shown_in_another_codec(blocks):
    cid, data = fetch.read_block(blocks, f"/ipfs/{TOP_CID}", "dag-json")
    assert cid == TOP_CID
    assert data == dag_json.encode({"n": 1, "node": NODE_CID})
    cid, data = fetch.read_block(blocks, f"{TOP_CID}/node", "dag-cbor")
    assert cid == NODE_CID
    assert dag_cbor.links(data) == [FILE]
    assert fetch.read_block(blocks, f"{TOP_CID}/node", "raw") == (NODE_CID, NODE)


def test_what_cannot_be_shown_so_is_an_error_with_a_hint(blocks):
    for text, form in (
        (str(TOP_CID), "dag-pb"),
        (str(TOP_CID), "yaml"),
        (f"{TOP_CID}/n", "dag-json"),
        (f"{TOP_CID}/nowhere", "dag-json"),
    ):
        with pytest.raises(UserError) as caught:
            fetch.read_block(blocks, text, form)
        assert caught.value.hint
    with pytest.raises(UserError, match="neither file nor folder") as caught:
        fetch.locate(blocks, str(TOP_CID))
    assert "--format" in caught.value.hint


def test_a_wrong_block_is_never_shown():
    lying = CheckedBlocks(lambda _cid: dag_json.encode({}))
    with pytest.raises(VerificationError):
        fetch.read_block(lying, str(CID.of(DAG_JSON, b"{ }")), "dag-json")


def test_bytes_go_to_a_file_whole_or_to_stdout(tmp_path, capfdbinary):
    fetch.write_bytes(b"{}", tmp_path / "deep" / "out.json")
    assert (tmp_path / "deep" / "out.json").read_bytes() == b"{}"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.json"]
    fetch.write_bytes(b"{}", None)
    assert capfdbinary.readouterr().out == b"{}"
