"""Adding sends only what the gateway lacks, can be broken off and begun again, and pins the whole."""

import io
import random

import pytest

from lichen.cli.project.pack import CarPack, Pack
from lichen.content import (
    PROFILES,
    V0_2015,
    V1_2025,
    import_bytes,
    import_directory,
    read_file,
    resolve,
    write_car,
)
from lichen.content.disk import QuotaError
from lichen.content.ingest import Ingest
from lichen.errors import NotFoundError, UserError
from lichen.sdk import adding
from lichen.sdk.client import Client
from lichen.wire.errors import BodyTooLargeError
from tests.integration.test_sdk_client import Server
from tests.unit import gateway_api_world as w

MIB = 1 << 20


@pytest.fixture
def world(tmp_path):
    world = w.World(tmp_path)
    world.account_bytes_max = 1 << 26
    world.upload_bytes_max = 1 << 26
    yield world
    world.close()


@pytest.fixture
def server(world, monkeypatch):
    monkeypatch.setattr("lichen.sdk.connection.time.time", lambda: w.NOW_MS / 1000)
    server = Server(world)
    yield server
    world.events.close()
    server.close()


@pytest.fixture
def client(server):
    with Client(server.url, w.OWNER) as client:
        yield client


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(adding, "PART_BYTES", 100_000)
    monkeypatch.setattr(adding, "PART_BLOCKS_MAX", 7)
    monkeypatch.setattr(adding, "ASKED_MAX", 10)


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def make_folder(folder):
    (folder / "sub").mkdir(parents=True)
    (folder / "big.bin").write_bytes(noise(3 * MIB, 1))
    for number in range(40):
        (folder / "sub" / f"{number}.txt").write_bytes(b"%d" % number * 50)
    (folder / "link").symlink_to("sub/1.txt")
    (folder / ".hidden").write_bytes(b"hidden")
    return folder


def add(client, folder, profile=V1_2025, progress=None):
    with Pack(profile, as_is=True) as pack:
        root = pack.add(folder)
        return root.cid, adding.send(client, pack, [root.cid], progress)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
@pytest.mark.usefixtures("small_parts")
def test_what_is_added_is_there_whole_and_pinned(client, world, tmp_path, profile):
    folder = make_folder(tmp_path / "folder")
    told = []
    root, sent = add(client, folder, profile, lambda done, total: told.append((done, total)))
    expected = world.store.add_tree(folder, profile)
    assert root == expected.cid
    assert [pin.missing for pin in sent.pins] == [()]
    assert told[-1][0] == told[-1][1] == sent.bytes
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    world.store.collect()
    big = resolve(world.store, root, "big.bin").cid
    assert b"".join(map(bytes, read_file(world.store, big))) == noise(3 * MIB, 1)
    assert world.store.flat_file(big) is not None
    assert resolve(world.store, root, "link").target == "sub/1.txt"
    with pytest.raises(NotFoundError):
        resolve(world.store, root, ".hidden")


@pytest.mark.usefixtures("small_parts")
def test_added_again_nothing_is_sent_and_changed_only_the_change(client, tmp_path):
    folder = make_folder(tmp_path / "folder")
    first, _ = add(client, folder)
    again, sent = add(client, folder)
    assert (again, sent.bytes, sent.blocks) == (first, 0, 0)
    (folder / "sub" / "3.txt").write_bytes(b"changed")
    changed, sent = add(client, folder)
    assert changed != first
    assert sent.blocks == 3  # the file and the two folders above it
    assert sent.bytes < 5000


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_broke_off_sends_only_the_rest(client, world, tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "folder")
    _, whole = add(client, folder)
    client.unpin(str(whole.pins[0].cid))
    world.store.collect()
    assert world.store.usage_bytes == 0
    sending, parts = Client.upload_part, []

    def break_off(self, spool, progress=None):
        if len(parts) == 3:
            raise KeyboardInterrupt
        parts.append(spool.size)
        return sending(self, spool, progress)

    monkeypatch.setattr(Client, "upload_part", break_off)
    with pytest.raises(KeyboardInterrupt):
        add(client, folder)
    monkeypatch.undo()
    monkeypatch.setattr("lichen.sdk.connection.time.time", lambda: w.NOW_MS / 1000)
    world.store.collect()  # what came stays
    root, sent = add(client, folder)
    assert sent.pins[0].missing == ()
    assert sent.bytes < whole.bytes - sum(parts) + 1000 * len(parts)
    assert client.pins().pinned_bytes == sent.pins[0].bytes
    assert world.store.is_pinned(root)


def test_a_file_in_one_part_is_laid_out_as_it_comes(client, world, tmp_path, monkeypatch):
    """Written once: its leaves come in order, behind its root."""
    adopted = []
    adopt = Ingest._adopt
    monkeypatch.setattr(
        Ingest, "_adopt", lambda self, root: adopted.append(adopt(self, root)) or adopted[-1]
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "big").write_bytes(noise(5 * MIB + 9))
    add(client, tmp_path / "folder")
    assert True in adopted


def test_a_gateway_that_takes_small_uploads_only_gets_small_parts(
    client, world, tmp_path, monkeypatch
):
    monkeypatch.setattr(adding, "PART_BYTES_LEAST", 1000)
    world.upload_bytes_max = 2 * MIB
    folder = make_folder(tmp_path / "folder")
    _, sent = add(client, folder)
    assert sent.pins[0].missing == ()
    world.upload_bytes_max = MIB // 2
    (folder / "big.bin").write_bytes(noise(3 * MIB, 2))
    with pytest.raises(BodyTooLargeError):
        add(client, folder)


def test_blocks_that_go_missing_meanwhile_are_sent_again(client, world, tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "folder")
    with Pack(as_is=True) as pack:
        world.store.put_blocks([(cid, pack.read(cid)) for cid in _leaves(pack, folder)])
    asking = Client.missing

    def ask_then_lose(self, cids):
        answer = asking(self, cids)
        monkeypatch.setattr(Client, "missing", asking)
        world.store.collect()
        return answer

    monkeypatch.setattr(Client, "missing", ask_then_lose)
    _, sent = add(client, folder)
    assert sent.pins[0].missing == ()


def _leaves(pack, folder):
    pack.add(folder)
    return [cid for cid, _ in pack.blocks() if cid.codec == w.RAW]


@pytest.mark.parametrize("profile", [V0_2015, V1_2025], ids=lambda profile: profile.name)
def test_a_long_stream_is_kept_aside_and_sent(client, world, profile, monkeypatch):
    narrow = w.msgspec.structs.replace(profile, chunk_bytes=1 << 16, width=4)
    data = noise(3 * MIB + 77)
    with Pack(narrow) as pack:
        root = pack.add_stream(io.BytesIO(data))
        sent = adding.send(client, pack, [root.cid])
    assert sent.pins[0].missing == ()
    assert b"".join(map(bytes, read_file(world.store, root.cid))) == data


def test_a_car_is_sent_from_where_it_is(client, world, tmp_path):
    blocks = {}
    file = import_bytes(noise(2 * MIB), V1_2025, blocks.__setitem__)
    root = import_directory([file.link("f")], V1_2025, blocks.__setitem__).cid
    path = tmp_path / "x.car"
    path.write_bytes(b"".join(write_car([root], blocks.items())))
    with CarPack(path) as pack:
        assert pack.roots == (root,)
        sent = adding.send(client, pack, pack.roots)
    assert sent.pins[0].missing == ()
    assert world.store.flat_file(file.cid) is not None
    with CarPack(path) as pack:
        assert adding.send(client, pack, pack.roots).bytes == 0


def test_a_car_that_lacks_blocks_is_sent_and_says_so(client, tmp_path):
    blocks = {}
    file = import_bytes(noise(2 * MIB), V1_2025, blocks.__setitem__)
    lacking = next(cid for cid in blocks if cid.codec == w.RAW)
    del blocks[lacking]
    path = tmp_path / "x.car"
    path.write_bytes(b"".join(write_car([file.cid], blocks.items())))
    with CarPack(path) as pack:
        sent = adding.send(client, pack, pack.roots)
    assert sent.pins[0].missing == (lacking,)
    assert sent.blocks == len(blocks)


def test_a_file_that_changes_while_it_is_added_is_noticed(client, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(noise(2 * MIB))
    with Pack() as pack:
        root = pack.add(path)
        with path.open("r+b") as stream:
            stream.seek(MIB + 5)
            stream.write(b"changed")
        with pytest.raises(UserError, match="changed while"):
            adding.send(client, pack, [root.cid])
    path.write_bytes(noise(2 * MIB))
    with Pack() as pack:
        root = pack.add(path)
        path.unlink()
        with pytest.raises(UserError, match="cannot be read"):
            adding.send(client, pack, [root.cid])


def test_beyond_the_quota_adding_ends_with_its_error(client, world, tmp_path):
    world.account_bytes_max = MIB
    with pytest.raises(QuotaError) as caught:
        add(client, make_folder(tmp_path / "folder"))
    assert "lichen storage" in caught.value.hint


def test_what_one_account_sent_another_one_only_pins(client, server, tmp_path):
    folder = make_folder(tmp_path / "folder")
    root, _ = add(client, folder)
    with Client(server.url, w.NODE) as other:
        _, sent = add(other, folder)
        assert sent.bytes == 0
        client.unpin(str(root))
        assert [pin.cid for pin in other.pins().items] == [root]
        with pytest.raises(NotFoundError, match="does not pin"):
            client.unpin(str(root))


def test_packing_a_large_folder_takes_little_memory(tmp_path, monkeypatch):
    from lichen.content import places

    monkeypatch.setattr(places, "MEMORY_ENTRIES_MAX", 10)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}").write_bytes(b"%d" % number)
    with Pack() as pack:
        root = pack.add(folder)
        memory = {cid: pack.read(cid) for cid, _ in pack.blocks()}
        assert all(cid.matches(block) for cid, block in memory.items())
        assert len(memory) == 301
        assert next(iter(memory)) == root.cid  # parents before children
