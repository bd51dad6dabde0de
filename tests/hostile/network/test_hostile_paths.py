"""Names and paths that are malformed get a clear refusal, from the gateway and from a node."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from lichen.content.cid import CID, DAG_PB, IDENTITY, RAW
from lichen.identity import base58
from tests.hostile.network.world import ask

if TYPE_CHECKING:
    from lichen.testing.network import LocalNetwork
    from tests.hostile.network.world import Truth

GOOD = CID.of(RAW, b"nobody has this")
CIDS = [
    "", "x", "Qm", "Qm" + "1" * 44, "Qm" + "0" * 44, "b", "bafk", "bafkrei", "z", "f", "k", "B" * 60,
    "bafkreiHDWDCEFGH4DQKJV67UZCMW7OJEE6XEDZDETOJUZJEVTENXQUVYKU", "b" + "a" * 600, "k" + "z" * 500,
    "f01551220" + "0" * 10, "f0155" + "1220" * 30, "f02551220" + "00" * 32, "f01551214" + "00" * 20,
    "f0155120400000000", "f0155121f" + "00" * 31, "f01" + "ff" * 9 + "01", "%", "%zz", "%00", "%2e%2e",
    "..%2f..", "..%5c..", "\\..\\..", "bafkrei%00", "ipfs", "-", "_", "a.b", "bafkrei;x", "'\"<>",
    base58.encode(b"\x12\x20" + bytes(31)), str(CID(RAW, bytes(20), 0x11)), str(CID(0x0200, bytes(32), 0x16)),
]  # fmt: skip
BELOW = [
    "/..", "/../..", "/%2e%2e/x", "/%2E%2E%2F%2e%2e", "/a/./b", "/%00", "/a%00b", "/%ff%fe", "/%c0%af",
    "/%ed%a0%80", "/" + "a" * 5000, "/" + "a/" * 2000, "/" + "%41" * 1500,
]  # fmt: skip
QUERIES = [
    "format=evil", "format=car&dag-scope=x", "format=car&entity-bytes=x:y", "from=-1", "from=1e9",
    "from=99999999999999999999", "from=%D9%A3x", "&".join("a=b" for _ in range(40)),
    "format=car&entity-bytes=" + "9" * 400 + ":*", "filename=" + "a" * 300, "format=%00", "format=car%0d%0aX:y",
]  # fmt: skip
HOSTS = [
    "..ipfs.localhost", "x.ipfs.localhost", "bafkrei.ipfs.localhost", "%.ipfs.localhost", "a b", "a/b",
    "a@b", "[::1", "::1]", "[zz]", "a:b", "a:123456", "a,b", "", "\x7f", "a" * 300 + ".ipfs.localhost",
]  # fmt: skip


@pytest.fixture(params=["gateway", "node-1"])
def port(request: pytest.FixtureRequest, network: LocalNetwork) -> int:
    return urlsplit(network.url(request.param)).port or 0


def refused(port: int, target: str, **fields: str) -> int:
    """Ask for what cannot be had; what cannot even be a path is told in plain text, as elsewhere."""
    answer = ask(port, target, **fields)
    assert 400 <= answer.status < 500, (target[:100], fields, answer)
    assert 0 < len(answer.body) < 4096
    if answer.headers["content-type"].startswith("text/plain"):
        assert answer.body.startswith(b"invalid path")
        assert answer.headers["x-content-type-options"] == "nosniff"
    else:
        assert answer.problem().detail
    return answer.status


@pytest.mark.parametrize(
    "form", ["/ipfs/{}", "/ipfs/{}/a", "/ipfs/{}?format=raw", "/ipfs/{}?format=car"]
)
def test_a_malformed_cid_is_a_clear_refusal(port: int, form: str) -> None:
    for cid in CIDS:
        refused(port, form.format(cid).replace(" ", "%20"))


def test_a_malformed_path_is_a_clear_refusal(port: int, truth: Truth) -> None:
    for below in BELOW:
        for root in (truth.folder, truth.files["small"][0]):
            refused(port, f"/ipfs/{root}{below}")
            refused(port, f"/ipfs/{root}{below}?format=car")


def test_names_of_many_folders_or_letters_are_not_found_or_refused(port: int, truth: Truth) -> None:
    for below in (
        "/a" * 255,
        "/a" * 300,
        "/%5c..%5c..%5cetc",
        "/a\\..\\b",
        "/a%2f..a",
        "//a//b",
        "/%20",
    ):
        assert refused(port, f"/ipfs/{truth.folder}{below}") in {400, 404}


def test_a_malformed_question_is_a_clear_refusal(port: int, truth: Truth) -> None:
    for query in QUERIES:
        refused(port, f"/ipfs/{truth.folder}/?{query}")


def test_a_malformed_host_is_a_clear_refusal(network: LocalNetwork) -> None:
    for host in HOSTS:
        answer = ask(network.port, "/x/y", host=host)
        assert 400 <= answer.status < 500, (host, answer)
        answer.problem()
    for host in ("[::::]", "[1.2.3.4.5]", "localhost:99999", "localhost:0", "xn--.ipfs.localhost"):
        assert (
            ask(
                network.port, f"/ipfs/{GOOD}?format=raw", host=host, cache_control="only-if-cached"
            ).status
            < 500
        )


@pytest.mark.parametrize(
    "name", ["", "x", "k51", "..", "%00", "a" * 300, "-.-", "12D3KooW", "k" + "z" * 80]
)
def test_a_malformed_name_is_a_clear_refusal(network: LocalNetwork, name: str) -> None:
    answer = ask(network.port, f"/ipns/{name}/x")
    assert 400 <= answer.status <= 504
    answer.problem()


def test_what_is_shown_of_a_name_cannot_break_the_head(port: int, truth: Truth) -> None:
    cid, data = truth.files["small"]
    for name in (
        "a%0d%0aset-cookie:%20b",
        "%22;x=%22",
        "..%2f..%2fx",
        "%00",
        "a%5c",
        "%ff",
        "%E2%80%AE",
    ):
        answer = ask(port, f"/ipfs/{cid}?filename={name}&download=true")
        if answer.status == 200:
            assert "set-cookie" not in answer.headers
            assert answer.body == data
            assert not set(answer.headers["content-disposition"].partition('filename="')[2]) & set(
                "\r\n\\/"
            )
        else:
            assert answer.status in {400, 404}  # a node may not have it


def test_blocks_inside_a_cid_are_answered_from_it_within_its_bound(port: int) -> None:
    inline = CID(RAW, b"inline", IDENTITY)
    assert ask(port, f"/ipfs/{inline}?format=raw").body == b"inline"
    bad = CID(DAG_PB, b"\xff" * 100, IDENTITY)
    assert refused(port, f"/ipfs/{bad}") == 400
    refused(port, "/ipfs/f015500c001" + "00" * 192)
