"""Keys of the state as people write them: `account/0x...`, `app/NAME`, `epoch/0x.../7/0`, ...

| text | entry |
|---|---|
| `account/ADDRESS`, `node/ADDRESS`, `settlements/ADDRESS` | who has, who offers, who has settled |
| `app/NAME`, `release/NAME/NUMBER` | an app, a version of it |
| `grant/OWNER/APP/DELEGATE` | what a delegate may spend for an app |
| `channel/ID` (64 hexadecimal digits) | a payment channel |
| `epoch/NODE/EPOCH/SEQUENCE` | a settled batch of a node's receipts |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lichen.errors import UserError
from lichen.identity import Address, Digest
from lichen.identity.address import ADDRESS_BYTES
from lichen.ledger import tables
from lichen.ledger.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NUMBER_DIGITS_MAX = 20
_HINT = "write account/0x..., node/0x..., app/NAME, release/NAME/3, channel/ID, epoch/0x.../7/0"


class Key(msgspec.Struct, frozen=True):
    """The key of an entry: its table, and what stands behind the table's prefix."""

    table: Table[Any]
    id: bytes

    def encode(self) -> bytes:
        """Return the key in the state tree."""
        return self.table.prefix + self.id


def parse_key(text: str) -> Key:
    """Read a key as people write it; raise UserError when it is none."""
    kind, *parts = text.split("/")
    table, arity, read = _SPELLED.get(kind, (tables.ACCOUNTS, -1, _address))
    if len(parts) != arity or not all(parts):
        raise UserError(f"{text[:80]!r} is not a key of the state", hint=_HINT)
    try:
        return Key(table, read(parts))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{text[:80]!r} is not a key of the state: {error}", hint=_HINT) from error


def decode_key(key: bytes) -> Key:
    """Tell which entry a key of the state tree is of; raise UserError when it is of none."""
    for table in tables.ALL:
        if key.startswith(table.prefix):
            return Key(table, key[len(table.prefix) :])
    raise UserError("no kind of entry stands under that key", hint=_HINT)


def spell_key(key: Key) -> str:
    """Write a key as people do; one of a wrong length in hexadecimal."""
    kind = key.table.prefix.decode()
    write = _WRITTEN.get(kind, _write_hex)
    try:
        text = kind + write(key.id)
        return text if parse_key(text) == key else kind + key.id.hex()
    except (UserError, UnicodeDecodeError):
        return kind + key.id.hex()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > NUMBER_DIGITS_MAX:
        raise ValueError(f"{text[:40]!r} is not a number")
    return int(text)


def _address(parts: Sequence[str]) -> bytes:
    return Address.parse(parts[0])


def _release(parts: Sequence[str]) -> bytes:
    return tables.release_id(parts[0], _number(parts[1]))


def _grant(parts: Sequence[str]) -> bytes:
    return tables.grant_id(Address.parse(parts[0]), parts[1], Address.parse(parts[2]))


def _epoch(parts: Sequence[str]) -> bytes:
    return tables.epoch_id(Address.parse(parts[0]), _number(parts[1]), _number(parts[2]))


def _write_address(id_: bytes) -> str:
    return str(Address(id_))


def _write_release(id_: bytes) -> str:
    return f"{id_[:-5].decode()}/{int.from_bytes(id_[-4:], 'big')}"


def _write_grant(id_: bytes) -> str:
    owner, delegate = id_[:ADDRESS_BYTES], id_[ADDRESS_BYTES : 2 * ADDRESS_BYTES]
    return f"{Address(owner)}/{id_[2 * ADDRESS_BYTES :].decode()}/{Address(delegate)}"


def _write_epoch(id_: bytes) -> str:
    epoch, sequence = id_[ADDRESS_BYTES:-4], id_[-4:]
    numbers = int.from_bytes(epoch, "big"), int.from_bytes(sequence, "big")
    return f"{Address(id_[:ADDRESS_BYTES])}/{numbers[0]}/{numbers[1]}"


def _write_hex(id_: bytes) -> str:
    return id_.hex()


_SPELLED: dict[str, tuple[Table[Any], int, Callable[[Sequence[str]], bytes]]] = {
    "account": (tables.ACCOUNTS, 1, _address),
    "node": (tables.NODES, 1, _address),
    "settlements": (tables.SETTLEMENTS, 1, _address),
    "app": (tables.APPS, 1, lambda parts: parts[0].encode()),
    "release": (tables.RELEASES, 2, _release),
    "grant": (tables.GRANTS, 3, _grant),
    "channel": (tables.CHANNELS, 1, lambda parts: Digest.from_wire(parts[0])),
    "epoch": (tables.EPOCHS, 3, _epoch),
}
_WRITTEN: dict[str, Callable[[bytes], str]] = {
    "account/": _write_address,
    "node/": _write_address,
    "settlements/": _write_address,
    "app/": lambda id_: id_.decode(),
    "release/": _write_release,
    "grant/": _write_grant,
    "epoch/": _write_epoch,
}
