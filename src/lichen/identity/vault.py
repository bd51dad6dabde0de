"""The key vault: a folder with one file per key, the secret under a password, the rest in clear.

A shell: it reads and writes files and draws salts. A file is written whole, fsynced and only then
given its name, so that a crash leaves the old file, the new one, or none, never a part of one. Its
checksum tells damage from a wrong password.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from typing import TYPE_CHECKING, Literal

import msgspec

from lichen.encoding import canonical, from_json, sha256, to_pretty_json
from lichen.errors import CorruptionError, LimitError, MachineError, NotFoundError, UserError
from lichen.identity.address import Address
from lichen.identity.keys import KeyKind, PrivateKey, PublicKey
from lichen.identity.sealing import (
    NONCE_BYTES,
    SALT_BYTES,
    Cost,
    Sealed,
    check_new_password,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES_MAX = 16 * 1024
KEYS_MAX = 4096
SUFFIX = ".json"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_HEX_SECRET = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")


class KeyExistsError(UserError):
    """A key of this name is in the vault already."""

    code = "key-exists"
    status = 409


class VaultEntry(msgspec.Struct, frozen=True):
    """What a vault tells about a key without its password."""

    name: str
    kind: str
    address: Address
    public_key: PublicKey


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of one file."""

    name: str
    kind: str
    address: Address
    public_key: PublicKey
    sealed: Sealed
    checksum: bytes
    version: Literal[1] = 1


class Vault:
    """The keys in one folder, which is made (for its owner only) when the first key comes."""

    def __init__(self, folder: Path, cost: Cost | None = None) -> None:
        self.folder = folder
        self._cost = cost or Cost()

    def create(self, name: str, password: str, kind: KeyKind = KeyKind.SECP256K1) -> PrivateKey:
        """Make and store a new key; raise KeyExistsError when the name is taken."""
        key = PrivateKey.generate(kind)
        self.add(name, key, password)
        return key

    def add(self, name: str, key: PrivateKey, password: str) -> VaultEntry:
        """Store a key that exists elsewhere; raise KeyExistsError when the name is taken."""
        _check_name(name)
        check_new_password(password)
        if os.path.exists(self._path(name)):
            raise _exists(name)
        file = _seal_key(name, key, password, self._cost)
        self._write(name, file, replace=False)
        return _entry(file)

    def import_hex(self, name: str, text: str, password: str) -> VaultEntry:
        """Store a raw secp256k1 secret of 64 hexadecimal digits, as Ethereum wallets export it."""
        return self.add(name, parse_hex_secret(text), password)

    def list(self) -> tuple[VaultEntry, ...]:
        """Return all entries by name; raise CorruptionError for a file that cannot be read."""
        try:
            files = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return ()
        names = [file[: -len(SUFFIX)] for file in files if file.endswith(SUFFIX)]
        names = [name for name in names if _NAME.fullmatch(name)]
        if len(names) > KEYS_MAX:
            raise LimitError(f"the vault has over {KEYS_MAX} keys", hint="keep several vaults")
        return tuple(self.show(name) for name in names)

    def show(self, name: str) -> VaultEntry:
        """Return what is known without the password; raise NotFoundError or CorruptionError."""
        return _entry(self._read(name))

    def unlock(self, name: str, password: str) -> PrivateKey:
        """Open a key; raise WrongPasswordError, NotFoundError or CorruptionError."""
        file = self._read(name)
        kind = KeyKind[file.kind.upper()]
        secret = unseal(file.sealed, password, associated=_associated(file.kind, file.address))
        key = PrivateKey(kind, secret)
        if key.public != file.public_key:
            raise _corrupt(self._path(name), "the secret does not belong to its public key")
        return key

    def change_password(self, name: str, old: str, new: str) -> None:
        """Seal a key under another password, at the present cost."""
        check_new_password(new)
        key = self.unlock(name, old)
        self._write(name, _seal_key(name, key, new, self._cost), replace=True)

    def remove(self, name: str) -> None:
        """Forget a key for good; raise NotFoundError when there is none."""
        _check_name(name)
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            raise _missing(name) from None
        _sync_folder(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _read(self, name: str) -> KeyFile:
        _check_name(name)
        path = self._path(name)
        try:
            with open(path, "rb") as stream:
                data = stream.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            raise _missing(name) from None
        return _parse(path, name, data)

    def _write(self, name: str, file: KeyFile, *, replace: bool) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        temporary = self.folder / f".{name}.{secrets.token_hex(8)}"
        try:
            _write_synced(temporary, to_pretty_json(file))
            if replace:
                os.replace(temporary, self._path(name))
            else:
                os.link(temporary, self._path(name))  # unlike rename, refuses to overwrite
        except FileExistsError:
            raise _exists(name) from None
        except OSError as error:
            raise MachineError(
                f"the key {name} could not be stored: {error}",
                hint=f"is there space, and may you write to {self.folder}?",
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(self.folder)


def parse_hex_secret(text: str) -> PrivateKey:
    """Read a raw secp256k1 secret; raise UserError (which does not repeat it) otherwise."""
    match = _HEX_SECRET.fullmatch(text.strip())
    if match is None:
        raise UserError(
            "this is not a secp256k1 secret", hint="it has 64 hexadecimal digits, after 0x or not"
        )
    return PrivateKey(KeyKind.SECP256K1, bytes.fromhex(match.group(1)))


def _seal_key(name: str, key: PrivateKey, password: str, cost: Cost) -> KeyFile:
    kind = key.kind.name.lower()
    sealed = seal(
        key.secret_bytes(),
        password,
        salt=secrets.token_bytes(SALT_BYTES),
        nonce=secrets.token_bytes(NONCE_BYTES),
        associated=_associated(kind, key.address),
        cost=cost,
    )
    file = KeyFile(name, kind, key.address, key.public, sealed, b"")
    return msgspec.structs.replace(file, checksum=_checksum(file))


def _associated(kind: str, address: Address) -> bytes:
    return b"lichen/vault/1\0" + kind.encode() + b"\0" + bytes(address)


def _checksum(file: KeyFile) -> bytes:
    return sha256(canonical(msgspec.structs.replace(file, checksum=b"")))


def _parse(path: Path, name: str, data: bytes) -> KeyFile:
    if len(data) > FILE_BYTES_MAX:
        raise _corrupt(path, f"it is over {FILE_BYTES_MAX} bytes")
    try:
        file = from_json(data, KeyFile)
    except UserError as error:
        raise _corrupt(path, str(error)) from error
    if _checksum(file) != file.checksum:
        raise _corrupt(path, "its checksum is wrong")
    if file.name != name:
        raise _corrupt(path, f"it holds the key {file.name}")
    if file.kind != file.public_key.kind.name.lower() or file.address != file.public_key.address:
        raise _corrupt(path, "address, kind and public key do not belong together")
    return file


def _entry(file: KeyFile) -> VaultEntry:
    return VaultEntry(file.name, file.kind, file.address, file.public_key)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:80]!r} is not a name for a key",
            hint="1 to 63 of a-z, 0-9, - and _; a letter or digit at both ends",
        )


def _exists(name: str) -> KeyExistsError:
    return KeyExistsError(
        f"there is a key named {name} already", hint="choose another name, or remove that key first"
    )


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"there is no key named {name}", hint="list keys: lichen account show")


def _corrupt(path: Path, why: str) -> CorruptionError:
    return CorruptionError(
        f"the key file {path} is damaged: {why}", hint="restore this file from a backup"
    )


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
