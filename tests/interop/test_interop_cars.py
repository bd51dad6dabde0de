"""CARs beside a real Kubo's: the same blocks in the same order for the same request, both ways in."""

import asyncio
import contextlib
import io
import os

import httpx
import pytest

from lichen.cdn.delivery import Delivery
from lichen.content import (
    CID,
    DAG_CBOR,
    PROFILES,
    RAW,
    BlockStore,
    CarReader,
    dag_cbor,
    export_car,
)
from lichen.content.cid import IDENTITY
from tests.interop.world import Kubo

NOBODY = "http://127.0.0.1:9"  # a router that is not there: all that is asked for was imported
QUERIES = [
    "", "&dag-scope=entity", "&dag-scope=block", "&car-dups=y", "&dag-scope=entity&car-dups=y",
    *(
        f"&dag-scope=entity&entity-bytes={text}"
        for text in ("0:0", "0:*", "1000000:2500000", "-10:*", "10:-20", "0:*&car-dups=y")
    ),
]  # fmt: skip
LONG = f"h/{7:0180}"
PATHS = ["", "/", "a.txt", "sub", "sub/big", "sub/zeros", "sub/deep/c", "link", "empty", "h", LONG]


def make_tree(folder):
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "h").mkdir()
    (folder / "a.txt").write_bytes(b"x" * 100)
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("a.txt")
    (folder / "sub" / "big").write_bytes(os.urandom(3_300_000))
    (folder / "sub" / "zeros").write_bytes(bytes(5_000_000))
    (folder / "sub" / "deep" / "c").write_bytes(b"deep" * 10)
    for number in range(1500):  # too many for one block
        (folder / "h" / f"{number:0180}").write_bytes(b"%d" % (number % 50) * 20)
    return folder


def contents(car):
    reader = CarReader(io.BytesIO(car))
    return reader.roots, [cid for cid, _ in reader]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with BlockStore.open(tmp_path_factory.mktemp("store"), capacity_bytes=1 << 30) as opened:
        yield opened


@pytest.fixture(scope="module")
def roots(store, tmp_path_factory):
    """A tree by both profiles, and a document that links to one of them."""
    tree = make_tree(tmp_path_factory.mktemp("tree") / "root")
    found = [store.add_tree(tree, profile).cid for profile in PROFILES.values()]
    document = dag_cbor.encode({"a": [found[0], CID(RAW, b"inline", IDENTITY)]})
    store.put_block(CID.of(DAG_CBOR, document), document)
    return [*found, CID.of(DAG_CBOR, document)]


@pytest.fixture(scope="module")
def kubo(store, roots, tmp_path_factory):
    with Kubo(tmp_path_factory.mktemp("kubo"), NOBODY) as running:
        for root in roots:
            running.ipfs("dag", "import", stdin=b"".join(export_car(store, root)))
        yield running


def test_kubo_imports_what_lichen_exports_and_exports_the_same(kubo, store, roots, tmp_path):
    for root in roots:
        theirs = kubo.ipfs("dag", "export", str(root))
        if root.codec != DAG_CBOR:  # of identity CIDs, Kubo's command writes the blocks, too
            assert theirs == b"".join(export_car(store, root))
        with BlockStore.open(tmp_path / str(root), capacity_bytes=1 << 30) as other:
            assert other.import_car(io.BytesIO(theirs)) == (root,)
            assert b"".join(export_car(other, root)) == b"".join(export_car(store, root))


async def test_cars_are_answered_as_kubo_answers_them(kubo, store, roots):
    targets = [f"{root}/{path}".rstrip("/") for root in roots[:2] for path in PATHS]
    targets += [str(roots[2]), *(f"{roots[2]}/a/0/{path}".rstrip("/") for path in PATHS[2:6])]
    targets += [f"{roots[2]}/a/1", "bafkqaaa"]
    with contextlib.closing(Delivery(store)) as delivery:
        transport = httpx.ASGITransport(delivery.app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://lichen") as ours,
            httpx.AsyncClient(base_url=kubo.gateway, trust_env=False, timeout=60) as theirs,
        ):
            for path in (
                f"/ipfs/{target}?format=car{query}" for target in targets for query in QUERIES
            ):
                mine, other = await asyncio.gather(ours.get(path), theirs.get(path))
                if mine.status_code == 400:  # a range outside of the file, which Kubo lets pass
                    assert "entity-bytes" in path
                    continue
                assert (mine.status_code, other.status_code) == (200, 200), path
                assert mine.headers["content-type"] == other.headers["content-type"], path
                assert contents(mine.content) == contents(other.content), path
