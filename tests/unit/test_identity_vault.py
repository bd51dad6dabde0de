"""The key vault: what opens it, what does not, and what happens to its files."""

import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lichen.encoding import to_json
from lichen.errors import CorruptionError, LimitError, MachineError, NotFoundError, UserError
from lichen.identity import KeyKind, PrivateKey, sealing
from lichen.identity import vault as vaults
from lichen.identity.passwords import find_password
from lichen.identity.sealing import Cost, WrongPasswordError
from lichen.identity.vault import KeyExistsError, Vault, parse_hex_secret

CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
PASSWORD = "correct horse"
SECRET = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "keys", CHEAP)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_created_key_is_opened_by_its_password_alone(vault, kind):
    key = vault.create("main", PASSWORD, kind)
    assert vault.unlock("main", PASSWORD).secret_bytes() == key.secret_bytes()
    with pytest.raises(WrongPasswordError) as caught:
        vault.unlock("main", PASSWORD + "!")
    assert isinstance(caught.value, UserError)
    assert caught.value.hint
    assert vault.show("main") == vaults.VaultEntry(
        "main", kind.name.lower(), key.address, key.public
    )


def test_a_raw_secret_is_imported_with_its_ethereum_address(vault):
    entry = vault.import_hex("hardhat", f"0x{SECRET}\n", PASSWORD)
    assert str(entry.address) == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert vault.unlock("hardhat", PASSWORD).secret_bytes().hex() == SECRET


@pytest.mark.parametrize("text", ["", "0x", SECRET[1:], SECRET + "0", "0X" + SECRET, "g" * 64])
def test_a_wrong_raw_secret_is_refused_without_repeating_it(text):
    with pytest.raises(UserError) as caught:
        parse_hex_secret(text)
    assert len(text) < 8 or text not in str(caught.value)


def test_the_secret_is_not_in_the_file(vault):
    key = PrivateKey(KeyKind.SECP256K1, bytes.fromhex(SECRET))
    vault.add("main", key, PASSWORD)
    data = (vault.folder / "main.json").read_bytes()
    assert SECRET.encode() not in data.lower()
    assert to_json(key.secret_bytes()).strip(b'"') not in data
    assert str(key.address).encode() in data


def test_files_are_for_their_owner_only_and_nothing_is_left_over(vault):
    vault.create("main", PASSWORD)
    vault.change_password("main", PASSWORD, "another word")
    assert os.listdir(vault.folder) == ["main.json"]
    assert stat.S_IMODE((vault.folder / "main.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(vault.folder.stat().st_mode) == 0o700


def test_a_key_is_never_overwritten(vault):
    key = vault.create("main", PASSWORD)
    with pytest.raises(KeyExistsError):
        vault.create("main", PASSWORD)
    assert vault.unlock("main", PASSWORD).public == key.public


def test_a_key_that_appears_meanwhile_is_not_overwritten(vault, monkeypatch):
    key = vault.create("main", PASSWORD)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    with pytest.raises(KeyExistsError):
        vault.create("main", PASSWORD)
    assert vault.unlock("main", PASSWORD).public == key.public
    assert os.listdir(vault.folder) == ["main.json"]


def test_changing_the_password_needs_the_old_one_and_replaces_it(vault):
    vault.create("main", PASSWORD)
    with pytest.raises(WrongPasswordError):
        vault.change_password("main", "wrong one", "another word")
    vault.change_password("main", PASSWORD, "another word")
    vault.unlock("main", "another word")
    with pytest.raises(WrongPasswordError):
        vault.unlock("main", PASSWORD)


def test_keys_are_listed_by_name_and_removed(vault):
    assert vault.list() == ()
    for name in ("b", "a"):
        vault.create(name, PASSWORD)
    (vault.folder / "notes.txt").write_text("not a key")
    assert [entry.name for entry in vault.list()] == ["a", "b"]
    vault.remove("a")
    assert [entry.name for entry in vault.list()] == ["b"]
    for missing in (vault.remove, vault.show, lambda name: vault.unlock(name, PASSWORD)):
        with pytest.raises(NotFoundError):
            missing("a")


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "../a", "A", "a.b", "-a", "a-", "é", "a" * 64, "a\0"]
)
def test_names_cannot_leave_the_folder(vault, name):
    for use in (
        lambda: vault.create(name, PASSWORD),
        lambda: vault.show(name),
        lambda: vault.remove(name),
    ):
        with pytest.raises(UserError, match="not a name"):
            use()


def test_short_and_endless_passwords_are_refused(vault):
    with pytest.raises(UserError, match="short"):
        vault.create("main", "seven77")
    with pytest.raises(LimitError):
        vault.create("main", "x" * 1025)
    assert vault.list() == ()


def test_a_password_is_the_same_however_it_is_typed(vault):
    vault.create("main", "pâssword one")
    vault.unlock("main", "pa\u0302ssword one")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_noticed_and_not_taken_for_a_wrong_password(vault, data):
    path = vault.folder / "main.json"
    if not path.exists():
        vault.create("main", PASSWORD)
    good, entry = path.read_bytes(), vault.show("main")
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 127))
    path.write_bytes(bad)
    try:
        key = vault.unlock("main", PASSWORD)
    except CorruptionError:
        key = None
    finally:
        path.write_bytes(good)
    assert key is None or key.public == entry.public_key  # only white space may have changed


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b" " * 20000])
def test_a_file_that_is_no_key_is_corruption(vault, content):
    vault.folder.mkdir()
    (vault.folder / "main.json").write_bytes(content)
    with pytest.raises(CorruptionError, match="damaged") as caught:
        vault.list()
    assert "backup" in caught.value.hint


def test_a_renamed_file_is_not_another_key(vault):
    vault.create("main", PASSWORD)
    os.rename(vault.folder / "main.json", vault.folder / "other.json")
    with pytest.raises(CorruptionError, match="holds the key main"):
        vault.show("other")


def test_a_file_with_anothers_address_is_refused(vault):
    vault.create("a", PASSWORD)
    vault.create("b", PASSWORD)
    a, b = vault._read("a"), vault._read("b")
    changed = vaults.msgspec.structs.replace(a, address=b.address, public_key=b.public_key)
    changed = vaults.msgspec.structs.replace(changed, checksum=vaults._checksum(changed))
    (vault.folder / "a.json").write_bytes(to_json(changed))
    with pytest.raises(WrongPasswordError):  # kind and address are sealed with the secret
        vault.unlock("a", PASSWORD)


@pytest.mark.parametrize(
    "cost",
    [
        Cost(memory_kib=2**31),
        Cost(memory_kib=256 * 1024 + 1),
        Cost(memory_kib=31),
        Cost(passes=17),
        Cost(passes=0),
        Cost(memory_kib=65536, lanes=9),
        Cost(lanes=0),
        Cost(memory_kib=-1, lanes=-1),
    ],
)
def test_a_crafted_file_cannot_eat_memory_or_time(vault, cost, monkeypatch):
    sealed = sealing.seal(
        b"x", PASSWORD, salt=bytes(16), nonce=bytes(24), associated=b"", cost=CHEAP
    )
    monkeypatch.setattr(sealing, "_derive", lambda *_: pytest.fail("derived with crafted cost"))
    with pytest.raises(LimitError, match="refused to open"):
        sealing.unseal(vaults.msgspec.structs.replace(sealed, cost=cost), PASSWORD, associated=b"")


def test_the_default_cost_is_within_its_own_bounds_and_opens(vault):
    Cost().check()
    Vault(vault.folder).create("main", PASSWORD)
    assert vault.unlock("main", PASSWORD).address == vault.show("main").address


def test_a_folder_that_cannot_be_written_is_a_machine_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    vault = Vault(tmp_path / "keys", CHEAP)
    monkeypatch.setattr(vaults.os, "fsync", full)
    with pytest.raises(MachineError, match="No space left") as caught:
        vault.create("main", PASSWORD)
    assert "space" in caught.value.hint
    assert os.listdir(vault.folder) == []


def test_passwords_come_from_the_first_source_that_has_one(tmp_path):
    file = tmp_path / "password"
    file.write_text("from the file\n")
    environment = {"LICHEN_PASSWORD": "from the environment"}
    sources = {
        "explicit": "given",
        "environment": environment,
        "file": file,
        "prompt": lambda: "typed in",
    }
    assert find_password(**sources) == "given"
    assert find_password(**sources | {"explicit": None}) == "from the environment"
    sources |= {"explicit": None, "environment": {}}
    assert find_password(**sources) == "from the file"
    assert find_password(**sources | {"file": None}) == "typed in"
    with pytest.raises(UserError, match="password is needed") as caught:
        find_password(environment={})
    assert "LICHEN_PASSWORD" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff\xfe"])
def test_a_password_file_is_one_line_of_text(tmp_path, content):
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(UserError, match="password file"):
        find_password(environment={}, file=file)
    with pytest.raises(UserError, match="cannot be read"):
        find_password(environment={}, file=tmp_path / "missing")
