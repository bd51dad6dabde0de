"""Records of the delegated routing API, their filters and forms. Pure.

https://specs.ipfs.tech/routing/http-routing-v1/ and, for the filters, IPIP-484.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from lichen.cdn.routing.multiaddr import protocol_names
from lichen.content.ipns import Name
from lichen.content.libp2p_key import public_key
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lichen.identity import PublicKey

HTTP_GATEWAY = "transport-ipfs-gateway-http"
JSON = "application/json"
NDJSON = "application/x-ndjson"
RECORDS_MAX = 100
NAMES_MAX = 64
NAME_LETTERS_MAX = 63
FOUND_S = 300
EMPTY_S = 15
STALE_S = 3600  # how old an answer may be when this server cannot be asked
_PARAMETERS_MAX = 16
_UNKNOWN = "unknown"


class UnprocessableError(UserError):
    """A request that does not conform to the routing API."""

    code = "unprocessable"
    status = 422


class PeerRecord(msgspec.Struct, frozen=True, rename="pascal"):
    """Who may be asked: a peer id, where it listens, and what it speaks there."""

    id: str = msgspec.field(name="ID")
    addrs: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    schema: str = "peer"


class Filters(msgspec.Struct, frozen=True):
    """Which records, and which of their addresses, a client can use; names are lower-case."""

    addrs: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()

    def apply(self, records: Iterable[PeerRecord]) -> list[PeerRecord]:
        """Return the records that pass, each with the addresses that do."""
        passed = (self._pass(record) for record in records)
        return [record for record in passed if record is not None]

    def _pass(self, record: PeerRecord) -> PeerRecord | None:
        if self.protocols:
            spoken = {name.lower() for name in record.protocols} or {_UNKNOWN}
            if spoken.isdisjoint(self.protocols):
                return None
        if not self.addrs or (not record.addrs and _UNKNOWN in self.addrs):
            return record
        addrs = tuple(text for text in record.addrs if self._passes(text))
        return msgspec.structs.replace(record, addrs=addrs) if addrs else None

    def _passes(self, text: str) -> bool:
        names = protocol_names(text)
        unwanted = {name[1:] for name in self.addrs if name.startswith("!")}
        wanted = {name for name in self.addrs if not name.startswith("!")}
        return names.isdisjoint(unwanted) and (not wanted or not names.isdisjoint(wanted))


def read_filters(query: str) -> Filters:
    """Read `filter-addrs` and `filter-protocols`; raise UnprocessableError beyond the bounds."""
    try:
        asked = dict(parse_qsl(query, max_num_fields=_PARAMETERS_MAX))
    except ValueError as error:
        raise UnprocessableError(f"over {_PARAMETERS_MAX} parameters") from error
    return Filters(_names(asked, "filter-addrs"), _names(asked, "filter-protocols"))


def _names(asked: dict[str, str], parameter: str) -> tuple[str, ...]:
    names = tuple(name for name in asked.get(parameter, "").lower().split(",") if name)
    if len(names) > NAMES_MAX or any(len(name) > NAME_LETTERS_MAX for name in names):
        raise UnprocessableError(
            f"{parameter} has over {NAMES_MAX} names, or one of over {NAME_LETTERS_MAX} letters",
            hint="name the protocols that you speak, separated by commas",
        )
    return names


def wants_lines(accept: str) -> bool:
    """Tell whether an Accept field asks for newline-delimited JSON."""
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip() == NDJSON and "q=0" not in parameters.replace(" ", "").split(";"):
            return True
    return False


def write_records(records: Sequence[PeerRecord], member: str, *, as_lines: bool) -> bytes:
    """Spell records out: one a line, or below `member` (Providers or Peers) of one document."""
    records = records[:RECORDS_MAX]
    if as_lines:
        return b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    return msgspec.json.encode({member: records})


def cache_control(records: Sequence[PeerRecord]) -> str:
    """Return how long an answer may be kept: shortly when nothing was found."""
    age = FOUND_S if records else EMPTY_S
    return f"public, max-age={age}, stale-while-revalidate={STALE_S}, stale-if-error={STALE_S}"


def gateway_record(key: PublicKey, addrs: Iterable[str]) -> PeerRecord:
    """Return the record of a server that answers for blocks by HTTP, called by its key."""
    return PeerRecord(Name.of(public_key(key)).peer_id, tuple(addrs), (HTTP_GATEWAY,))
