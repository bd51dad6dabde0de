"""The two encodings: canonical DAG-CBOR for what is hashed or signed, JSON for people and APIs.

Both are derived from the same frozen msgspec structs. A scalar type of ours (Amount, Address, ...)
takes part by two methods: `to_wire()` returns its JSON form and `from_wire(value)` reads it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, Self, TypeVar

import libipld
import msgspec

from lichen.errors import UserError

T = TypeVar("T")
_LINK = b"\xd8\x2a"  # the head of a CBOR tag 42


class Scalar(Protocol):
    """A value type that has one textual form on the wire."""

    def to_wire(self) -> str:
        """Return the one canonical text form."""
        ...

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """Read the canonical text form; raise ValueError otherwise."""
        ...


def _encode_scalar(value: object) -> object:
    to_wire = getattr(value, "to_wire", None)  # isinstance on a protocol is 20 times slower
    if to_wire is not None:
        return to_wire()
    raise NotImplementedError(f"{type(value).__name__} has no wire form")


_encode_msgpack = msgspec.msgpack.Encoder(enc_hook=_encode_scalar).encode
_decode_msgpack = msgspec.msgpack.Decoder().decode


def _decode_scalar(kind: type[Any], value: object) -> object:
    if hasattr(kind, "from_wire"):
        return kind.from_wire(value)
    raise NotImplementedError(f"{kind.__name__} has no wire form")


def to_builtins(value: object) -> Any:
    """Turn a struct into plain dicts, lists, strings, integers and bytes.

    The way through msgpack keeps bytes and turns tuples into lists, all of it in C.
    """
    return _decode_msgpack(_encode_msgpack(value))


def canonical(value: object) -> bytes:
    """Encode a struct as DAG-CBOR: one spelling per value (https://ipld.io/specs/codecs/dag-cbor)."""
    plain = to_builtins(value)
    data = bytes(libipld.encode_dag_cbor(plain))
    # libipld writes bytes that happen to parse as a CID (one in 2,000 random hashes) as a link
    return _encode(plain) if _LINK in data else data


def _encode(value: object) -> bytes:
    """Encode plain data as DAG-CBOR, in which bytes are always bytes."""
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, dict):
        entries = sorted((key.encode(), item) for key, item in value.items())
        entries.sort(key=lambda entry: len(entry[0]))
        parts = [_head(3, len(key)) + key + _encode(item) for key, item in entries]
        return _head(5, len(parts)) + b"".join(parts)
    if isinstance(value, (list, tuple)):
        return _head(4, len(value)) + b"".join(map(_encode, value))
    return bytes(libipld.encode_dag_cbor(value))


def _head(major: int, size: int) -> bytes:
    if size < 24:
        return bytes((major << 5 | size,))
    width = next(width for width in (0, 1, 2, 3) if size < 1 << (8 << width))
    return bytes((major << 5 | 24 + width,)) + size.to_bytes(1 << width, "big")


def from_canonical(data: bytes, kind: type[T]) -> T:
    """Decode DAG-CBOR into a struct; anything but the canonical spelling of one is a UserError."""
    try:
        value = msgspec.convert(
            libipld.decode_dag_cbor(data), kind, strict=True, dec_hook=_decode_scalar
        )
        again = canonical(value)
    except (ValueError, TypeError, OverflowError, RecursionError, UserError) as error:
        raise UserError(f"not a canonical {kind.__name__}: {error}") from error
    if again != data:
        raise UserError(f"not a canonical {kind.__name__}: another spelling of the same value")
    return value


def to_json(value: object) -> bytes:
    """Encode a struct as compact JSON; bytes become base64."""
    return msgspec.json.encode(value, enc_hook=_encode_scalar)


def to_pretty_json(value: object) -> bytes:
    """Encode a struct as JSON for files that people read: two spaces, one final newline."""
    return msgspec.json.format(to_json(value), indent=2) + b"\n"


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Decode JSON into a struct; raise UserError with the path of the first wrong field."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_decode_scalar)
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"not a valid {getattr(kind, '__name__', kind)}: {error}") from error


def convert(value: object, kind: type[T]) -> T:
    """Check plain data (from TOML, JSON, ...) against a struct type; raise UserError."""
    try:
        return msgspec.convert(value, kind, dec_hook=_decode_scalar)
    except (ValueError, UserError) as error:
        raise UserError(f"not a valid {getattr(kind, '__name__', kind)}: {error}") from error


def sha256(data: bytes) -> bytes:
    """Return the 32-byte SHA-256 digest."""
    return hashlib.sha256(data).digest()
