"""IPNS: names that are public keys, and the signed records that say what a name stands for.

https://specs.ipfs.tech/ipns/ipns-record. A record is a protobuf around a signed DAG-CBOR document;
what older software wrote beside it (version 1) has to say the same and is believed in nothing.
Times are nanoseconds since 1970, as records have them, and come in as arguments.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

import libipld
import msgspec

from lichen.content import protobuf
from lichen.content.cid import CID, DAG_PB, IDENTITY, LIBP2P_KEY, SHA2_256
from lichen.content.ipns_time import parse_time, spell_time
from lichen.content.libp2p_key import Libp2pKey, public_key, read_key, sign
from lichen.encoding import canonical
from lichen.errors import UserError, VerificationError
from lichen.identity import base58

if TYPE_CHECKING:
    from lichen.identity import PrivateKey

RECORD_BYTES_MAX = 10 * 1024
VALUE_BYTES_MAX = 4096
INLINE_BYTES_MAX = 42  # a key's protobuf of at most so many bytes is the name itself
NAMESPACES = ("/ipfs/", "/ipns/")
_SIGNED_PREFIX = b"ipns-signature:"
_V1_VALIDITY_TYPE = b"EOL"
_UINT64_MAX = 2**64 - 1
_AS_CID = bytes((1, LIBP2P_KEY))
# Fields of the protobuf.
_VALUE, _SIGNATURE_V1, _VALIDITY_TYPE, _VALIDITY, _SEQUENCE, _TTL = range(1, 7)
_PUBLIC_KEY, _SIGNATURE_V2, _DATA = range(7, 10)
_NUMBERS = frozenset({_VALIDITY_TYPE, _SEQUENCE, _TTL})


class InvalidRecordError(VerificationError):
    """The bytes are no IPNS record, or not one of this name."""

    code = "invalid-ipns-record"

    def __init__(self, what: str, *, hint: str = "publish it again: lichen name publish") -> None:
        super().__init__(what, hint=hint)


class ExpiredRecordError(InvalidRecordError):
    """The record held once, and is over."""

    code = "expired-ipns-record"


class Name(msgspec.Struct, frozen=True):
    """What a key is called: the multihash of its protobuf, which small keys are themselves."""

    multihash: bytes

    @classmethod
    def of(cls, key: Libp2pKey) -> Self:
        """Return the name of a public key."""
        data = key.encoded
        if len(data) <= INLINE_BYTES_MAX:
            return cls(bytes((IDENTITY, len(data))) + data)
        return cls(bytes((SHA2_256, 32)) + hashlib.sha256(data).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name as a CID of any base, or as a peer id (`12D3KooW...`, `Qm...`).

        A CID of the codec dag-pb counts too: that is how old software wrote names. Raises UserError
        for what is no name.
        """
        try:
            if text.startswith(("1", "Qm")):
                cid = CID.decode(_AS_CID + base58.decode(text))
            else:
                cid = CID.parse(text)
        except UserError as error:
            raise _no_name(text) from error
        if cid.codec not in (LIBP2P_KEY, DAG_PB) or not _is_name(cid):
            raise _no_name(text)
        return cls(cid.multihash)

    @property
    def cid(self) -> CID:
        """The name as a CID of the codec libp2p-key."""
        return CID.decode(_AS_CID + self.multihash)

    def __str__(self) -> str:
        """Spell the name as software should: base36, which fits into one label of a host."""
        return self.cid.to_base36()

    @property
    def peer_id(self) -> str:
        """The name as libp2p's peer ids are written."""
        return base58.encode(self.multihash)


class Record(msgspec.Struct, frozen=True):
    """What a record says, and the bytes it came in.

    `value` is a content path; the record holds until `eol_ns`, and may be kept for `ttl_ns` before
    a newer one is looked for (0: it does not say).
    """

    value: str
    sequence: int
    eol_ns: int
    ttl_ns: int
    encoded: bytes

    def is_newer_than(self, other: Record) -> bool:
        """Tell which of two valid records of one name counts: by sequence, then by end."""
        return (self.sequence, self.eol_ns) > (other.sequence, other.eol_ns)


class _Data(msgspec.Struct, frozen=True, rename="pascal"):
    """The signed document; other fields are passed over."""

    value: bytes
    validity_type: int
    validity: bytes
    sequence: int
    ttl: int = msgspec.field(name="TTL", default=0)


def create_record(
    key: PrivateKey, value: str, *, sequence: int, eol_ns: int, ttl_ns: int, with_v1: bool = True
) -> Record:
    """Sign a record; `with_v1` adds what software from before 2021 reads.

    Raises UserError when a field is out of its bounds.
    """
    if not 0 <= sequence <= _UINT64_MAX or not 0 <= ttl_ns <= _UINT64_MAX:
        raise UserError("sequence and lifetime of a record are numbers of 64 bits")
    check_value(value)
    data = _Data(value.encode(), 0, spell_time(eol_ns), sequence, ttl_ns)
    public = public_key(key)
    inline = len(public.encoded) <= INLINE_BYTES_MAX
    signed = canonical(data)
    parts = _v1_fields(key, data) if with_v1 else []
    parts += [] if inline else [protobuf.bytes_field(_PUBLIC_KEY, public.encoded)]
    parts += [
        protobuf.bytes_field(_SIGNATURE_V2, sign(key, _SIGNED_PREFIX + signed)),
        protobuf.bytes_field(_DATA, signed),
    ]
    return Record(value, sequence, eol_ns, ttl_ns, b"".join(parts))


def _v1_fields(key: PrivateKey, data: _Data) -> list[bytes]:
    return [
        protobuf.bytes_field(_VALUE, data.value),
        protobuf.bytes_field(
            _SIGNATURE_V1, sign(key, data.value + data.validity + _V1_VALIDITY_TYPE)
        ),
        protobuf.varint_field(_VALIDITY_TYPE, data.validity_type),
        protobuf.bytes_field(_VALIDITY, data.validity),
        protobuf.varint_field(_SEQUENCE, data.sequence),
        protobuf.varint_field(_TTL, data.ttl),
    ]


def verify_record(name: Name, encoded: bytes, now_ns: int) -> Record:
    """Read a record that claims to be of `name`.

    Raises InvalidRecordError for one that is malformed or not signed by the name's key, and
    ExpiredRecordError for one whose time is over.
    """
    record = verify_signature(name, encoded)
    if record.eol_ns <= now_ns:
        raise ExpiredRecordError(f"the record of {name} held until {_spelled(record.eol_ns)}")
    return record


def verify_signature(name: Name, encoded: bytes) -> Record:
    """Do what `verify_record` does, for a record whose time may be over."""
    try:
        return _verify(name, encoded)
    except UserError as error:
        raise InvalidRecordError(f"not a record of {name}: {error.what}") from error


def _verify(name: Name, encoded: bytes) -> Record:
    if len(encoded) > RECORD_BYTES_MAX:
        raise UserError(f"it has {len(encoded)} bytes, over {RECORD_BYTES_MAX}")
    fields = _fields(encoded)
    signature, signed = fields.get(_SIGNATURE_V2, b""), fields.get(_DATA, b"")
    if not isinstance(signature, bytes) or not isinstance(signed, bytes):
        raise UserError("a field has the wrong type")
    if not signature or not signed:
        raise UserError("it has no signature of version 2")
    if not _key_of(name, fields).verify(_SIGNED_PREFIX + signed, signature):
        raise UserError("its signature does not hold")
    data = _read_data(signed)
    _check_v1(fields, data)
    if data.validity_type != 0:
        raise UserError(f"its validity type {data.validity_type} is not known")
    value = _decode_value(data.value)
    return Record(value, data.sequence, parse_time(data.validity), data.ttl, bytes(encoded))


def _fields(encoded: bytes) -> dict[int, bytes | int]:
    found: dict[int, bytes | int] = {}
    for field, wire, value in protobuf.fields(encoded):
        if field not in range(_VALUE, _DATA + 1):
            continue
        if wire != (protobuf.VARINT if field in _NUMBERS else protobuf.BYTES):
            raise UserError(f"field {field} has the wrong type")
        if field in found:
            raise UserError(f"field {field} is there twice")
        found[field] = value if isinstance(value, int) else bytes(value)
    return found


def _key_of(name: Name, fields: dict[int, bytes | int]) -> Libp2pKey:
    cid = name.cid
    encoded = fields.get(_PUBLIC_KEY) or (cid.digest if cid.hash_code == IDENTITY else b"")
    if not isinstance(encoded, bytes) or not encoded:
        raise UserError("it does not bring its public key")
    if not cid.matches(encoded):
        raise UserError("its public key is another one")
    return read_key(encoded)


def _read_data(signed: bytes) -> _Data:
    try:
        document = libipld.decode_dag_cbor(signed)
        data = msgspec.convert(document, _Data, strict=True)
    except (ValueError, RecursionError) as error:
        raise UserError(f"what it signs is no record: {error}") from error
    if not 0 <= data.sequence <= _UINT64_MAX or not 0 <= data.ttl <= _UINT64_MAX:
        raise UserError("its sequence or lifetime is negative")
    return data


def _check_v1(fields: dict[int, bytes | int], data: _Data) -> None:
    """Hold what version 1 says against what was signed, where it says anything."""
    if not fields.get(_VALUE) and not fields.get(_SIGNATURE_V1):
        return
    said = (
        (_VALUE, data.value, b""),
        (_VALIDITY, data.validity, b""),
        (_VALIDITY_TYPE, data.validity_type, 0),
        (_SEQUENCE, data.sequence, 0),
        (_TTL, data.ttl, 0),
    )
    if any(fields.get(field, absent) != signed for field, signed, absent in said):
        raise UserError("its old fields say something else than what is signed")


def check_value(value: str) -> None:
    """Raise UserError unless this is a content path that a name may stand for."""
    _decode_value(value.encode())


def _decode_value(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise UserError("its value is not UTF-8") from error
    if len(value) > VALUE_BYTES_MAX or not text.startswith(NAMESPACES) or "\0" in text:
        raise UserError(
            f"{text[:80]!r} is not a content path", hint="write /ipfs/CID/path or /ipns/NAME/path"
        )
    return text


def _no_name(text: str) -> UserError:
    return UserError(
        f"{text[:80]!r} is not an IPNS name", hint="a name looks like k51... or 12D3KooW..."
    )


def _is_name(cid: CID) -> bool:
    if cid.hash_code == IDENTITY:
        return 0 < len(cid.digest) <= INLINE_BYTES_MAX
    return cid.hash_code == SHA2_256 and len(cid.digest) == 32


def _spelled(time_ns: int) -> str:
    return spell_time(time_ns).decode()
