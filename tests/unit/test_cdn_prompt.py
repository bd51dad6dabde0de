"""What would take long in the event loop is left to threads, and takes nothing from others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lichen.cdn.prompt import BYTES_MAX
from lichen.cdn.serve import TO_ASGI, ContentRouter
from lichen.content import BlockStore, protobuf, unixfs
from lichen.content.cid import CID, DAG_PB, RAW
from lichen.content.dag_pb import Link, encode_link
from lichen.content.unixfs import Kind, UnixFS
from lichen.wire.heads import usual_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lichen.wire import Answer

FOLDERS = 60
NAMES = 4000
CPU_S_MAX = 0.5  # reading all of it takes ten times as long


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    with BlockStore.open(tmp_path / "store", capacity_bytes=2**30) as store:
        yield store


def ask(router: ContentRouter, target: str) -> Answer:
    head = usual_request(f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(), None, 100)
    assert head is not None
    return router.answer(head)


def test_a_path_through_many_large_folders_is_left_to_threads(store: BlockStore) -> None:
    leaf = CID.of(RAW, b"leaf")
    cid, blocks = leaf, [(leaf, b"leaf")]
    names = b"".join(encode_link(Link(leaf, f"{number:05d}", 1)) for number in range(NAMES))
    data = protobuf.bytes_field(1, unixfs.encode(UnixFS(Kind.DIRECTORY)))
    for _ in range(FOLDERS):
        block = names + encode_link(Link(cid, "z", 1)) + data
        cid = CID.of(DAG_PB, block)
        blocks.append((cid, block))
    assert sum(len(block) for _, block in blocks) > 2 * BYTES_MAX
    store.put_blocks(blocks)
    for can_fetch in (True, False):
        router = ContentRouter(store, can_fetch=can_fetch)
        started = time.process_time()
        assert ask(router, f"/ipfs/{cid}" + "/z" * FOLDERS) is TO_ASGI
        assert time.process_time() - started < CPU_S_MAX
        near = ask(router, f"/ipfs/{cid}/z/z/00001")
        assert near.body == b"leaf"
