"""What strangers publish: IPNS records, their keys and times; addresses of routers' answers."""

from __future__ import annotations

import functools

from lichen.content.ipns import Name, Record, create_record, verify_record, verify_signature
from lichen.content.ipns_time import parse_time, spell_time
from lichen.content.libp2p_key import public_key, read_key
from lichen.identity import KeyKind, PrivateKey
from tests.fuzz.kit import Dice, refusals, require, target

NOW_NS = 1_700_000_000_000_000_000
EOL_NS = NOW_NS + 10**18
VALUE = "/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@functools.cache
def _key(kind: KeyKind) -> PrivateKey:
    return PrivateKey(kind, bytes(range(1, 33)))


def _record(kind: KeyKind, *, with_v1: bool) -> Record:
    return create_record(_key(kind), VALUE, sequence=3, eol_ns=EOL_NS, ttl_ns=5, with_v1=with_v1)


RECORDS = tuple(_record(kind, with_v1=v1).encoded for kind in KeyKind for v1 in (True, False))


@target(
    "ipns-record",
    *RECORDS,
    *(bytes((len(item) & 255, 7)) + item for item in RECORDS),
    bytes_max=1024,
)
def ipns_record(data: bytes) -> None:
    """No record holds whose signed fields are not the ones that were signed."""
    for kind in KeyKind:
        name = Name.of(public_key(_key(kind)))
        with refusals():
            record = verify_record(name, data, NOW_NS)
            require(record.encoded == data)
            require((record.value, record.sequence, record.ttl_ns) == (VALUE, 3, 5), "forged")
            require(record.eol_ns == EOL_NS)


@target("ipns-mutated", bytes(8), b"\1\2\3\4\5\6", bytes_max=64)
def ipns_mutated(data: bytes) -> None:
    """Flip, drop and add bytes of a good record: what still verifies says the same."""
    dice = Dice(data)
    kind = dice.choose(tuple(KeyKind))
    record = _record(kind, with_v1=bool(dice.byte() & 1))
    changed = bytearray(record.encoded)
    while dice:
        at = dice.below(len(changed) or 1)
        how = dice.byte()
        if how < 100:
            changed[at : at + 1] = bytes((dice.byte(),))
        elif how < 180:
            del changed[at : at + how % 5]
        else:
            changed[at:at] = dice.bytes(how % 9)
    with refusals():
        found = verify_signature(Name.of(public_key(_key(kind))), bytes(changed))
        same = (found.value, found.sequence, found.eol_ns, found.ttl_ns)
        require(same == (record.value, record.sequence, record.eol_ns, record.ttl_ns), "forged")


KEYS = tuple(public_key(_key(kind)).encoded for kind in KeyKind)


@target("libp2p-key", *KEYS, bytes_max=640)
def libp2p_keys(data: bytes) -> None:
    with refusals():
        key = read_key(data)
        require(key.encoded == data)
        require(not key.verify(b"message", data[:64]))
        require(not key.verify(b"", b""))
        name = Name.of(key)
        require(Name.parse(str(name)) == name)
        require(Name.parse(name.peer_id) == name)


@target(
    "ipns-name",
    str(Name.of(public_key(_key(KeyKind.ED25519)))).encode(),
    b"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
    bytes_max=300,
)
def ipns_name(data: bytes) -> None:
    with refusals():
        name = Name.parse(data.decode("utf-8", "replace"))
        require(Name.parse(str(name)) == name)
        require(Name.parse(name.peer_id) == name)
        require(name.cid.multihash == name.multihash)
        require(len(str(name)) <= 70)


@target("rfc-3339", b"2030-01-02T03:04:05.123456789Z", b"0001-01-01T00:00:00+23:59", bytes_max=64)
def rfc_3339(data: bytes) -> None:
    with refusals():
        time_ns = parse_time(data)
        require(parse_time(spell_time(time_ns)) == time_ns)
