"""Content made to hurt whoever fetches it, and peers that lead elsewhere."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from lichen.cdn.kept import Keep
from lichen.cdn.retrieval.fetch import Fetcher
from lichen.cdn.retrieval.remote import RemoteBlocks
from lichen.content import CID, BlockStore
from lichen.content.cid import DAG_PB, RAW
from lichen.content.dag_pb import Link, encode
from lichen.content.unixfs import Kind, UnixFS
from lichen.content.unixfs import encode as encode_unixfs
from lichen.errors import LimitError, PeerUnavailableError
from lichen.wire import Ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAF = bytes(1000)
FAN = 100
BYTES_MAX = 10 * 2**20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    with BlockStore.open(tmp_path / "store", capacity_bytes=2**30) as store:
        yield store


def bomb(store: BlockStore, levels: int) -> CID:
    """A file of 1000 * 100^levels bytes in `levels` + 1 small blocks."""
    cid, size = CID.of(RAW, LEAF), len(LEAF)
    blocks = [(cid, LEAF)]
    for _ in range(levels):
        links = [Link(cid, "", size)] * FAN
        size *= FAN
        message = UnixFS(Kind.FILE, file_bytes=size, child_bytes=(size // FAN,) * FAN)
        block = encode(links, encode_unixfs(message))
        cid = CID.of(DAG_PB, block)
        blocks.append((cid, block))
    store.put_blocks(blocks)
    return cid


async def test_code_that_unfolds_from_few_blocks_takes_no_more_memory_than_its_bound(
    store: BlockStore,
) -> None:
    fetcher = Fetcher(store, tuple)
    root = bomb(store, 5)
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match="more than"):
            await fetcher.fetch_file(root, BYTES_MAX)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        await fetcher.close()
    assert peak < 4 * BYTES_MAX


async def test_what_is_too_much_to_be_fetched_at_once_is_told_by_the_bound_it_passes(
    store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lichen.cdn.retrieval.fetch.BLOCKS_MAX", 10)
    blocks = [(CID.of(RAW, b"%d" % number), b"%d" % number) for number in range(20)]
    node = encode([Link(cid, str(n), 2) for n, (cid, _) in enumerate(blocks)], None)
    root = CID.of(DAG_PB, node)
    store.put_blocks([*blocks, (root, node)])
    fetcher = Fetcher(store, tuple)
    try:
        with pytest.raises(LimitError, match="more than 10 blocks") as refused:
            await fetcher.fetch(root, BYTES_MAX)
        assert "lichen storage add" in refused.value.hint
        with pytest.raises(LimitError, match="larger than 10 bytes"):
            await fetcher.fetch(root, 10)
    finally:
        await fetcher.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_registered_peer_at_a_private_address_is_not_asked(
    store: BlockStore, host: str
) -> None:
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda *_: connected.set(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fetcher = Fetcher(store, lambda: [f"http://{host}:{port}"], private_peers=False)
    async with server:
        with pytest.raises(PeerUnavailableError):
            await fetcher.fetch_block(CID.of(RAW, b"nobody has this"))
        await fetcher.close()
    assert not connected.is_set()


def test_what_visitors_ask_for_counts_against_the_memory_of_answers() -> None:
    kept: Keep[tuple[str, bytes]] = Keep(bytes_max=100_000)
    for number in range(100):
        kept.put(("root", b"%d" % number + b"x" * 30_000), None)
    assert len(kept) <= 3
    kept.put(("root", b"short"), Ready.of(200, [], b""))
    assert ("root", b"short") in kept


def test_what_visitors_have_fetched_leaves_room_for_uploads(tmp_path: Path) -> None:
    blocks = [bytes([number]) * 100_000 for number in range(100)]
    by_cid = {CID.of(RAW, block): block for block in blocks}
    with BlockStore.open(tmp_path / "small", capacity_bytes=1_000_000) as store:
        for cid, block in by_cid.items():
            remote = RemoteBlocks(store, by_cid.__getitem__)
            assert remote.get_block(cid) == block
            remote.keep()
            remote.close()
        assert 0 < store.usage_bytes <= 800_000
        upload = bytes(100_000)[:-1] + b"!"
        store.put_block(CID.of(RAW, upload), upload)
