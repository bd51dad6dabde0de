"""What all forms of content share: the place asked for, and the answer as a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from lichen.cdn.formats import IMMUTABLE
from lichen.content import CID, Blocks, follow
from lichen.errors import NotFoundError
from lichen.wire.content import byte_range, etag_matches

if TYPE_CHECKING:
    from collections.abc import Callable


class Links(msgspec.Struct, frozen=True):
    """How the links of a listing begin that lead out of its folder.

    `above` stands before the path of each folder above (`/ipfs/{cid}`, `//{host}/ipfs/{cid}`,
    `//{host}` for a host that is the name itself), `other` before the CID of other content
    (`/ipfs/`, `//{host}/ipfs/`); where `other` is empty, CIDs lead to a public explorer of CIDs.
    """

    above: str
    other: str = "/ipfs/"


class Place(msgspec.Struct, frozen=True):
    """What a request is for: a decoded path below a root, and how paths to the root begin.

    `content` is a path `/ipfs/...`; `host` an origin of its own, where `_headers` and `_redirects`
    hold; `site` an app, which lists nothing besides. `cache` says how long a file may be kept,
    `has_function` that a function answers where the site has nothing. `name` is the path that the
    root was asked for by, where that is not its CID (`/ipns/{name}`). A name may stand for a path:
    then the place's root is what stands at `below`, a path from `root` (see `at_root`).
    """

    root: CID
    path: str
    kind: Literal["content", "host", "site"] = "content"
    prefix: str = ""
    cache: bytes = IMMUTABLE
    has_function: bool = False
    name: str = ""
    below: str = ""
    links: Links | None = None

    @property
    def content_root(self) -> str:
        """Return the path that names the root in every gateway: `/ipfs/{cid}`, `/ipns/{name}`."""
        return self.name or f"/ipfs/{self.root}"

    @property
    def content_path(self) -> str:
        """Return the path that names this in every gateway: `/ipfs/{cid}/...`."""
        return self.content_root + self.path


def at_root(blocks: Blocks, place: Place) -> Place:
    """Return a place whose root is what its name stands for; raise what following paths raises."""
    if not place.below:
        return place
    root = follow(blocks, place.root, place.below)[-1]
    return msgspec.structs.replace(place, root=root, below="")


class Conditions(msgspec.Struct, frozen=True):
    """The conditional fields of a request."""

    if_none_match: bytes = b""
    if_range: bytes = b""
    range: bytes = b""


class Plan(msgspec.Struct, frozen=True):
    """A response: status, header lines (each with CRLF), and the bytes, read when iterated.

    `length` is None where it is not known before. `whole` tells that iterating reads all of a DAG.
    """

    status: int
    headers: bytes
    pieces: Iterator[bytes | memoryview] | None = None
    length: int | None = None
    whole: bool = False


def plan_ranges(
    etag: bytes,
    headers: bytes,
    size: int,
    conditions: Conditions,
    read: Callable[[int, int | None], Iterator[bytes | memoryview]],
) -> Plan:
    """Plan what has a strong validator and ranges: all of it, a part, or that it is unchanged.

    `read(start, end)` yields the bytes from `start` up to `end`, None being the end of all.
    """
    headers = b"etag: %b\r\naccept-ranges: bytes\r\n%b" % (etag, headers)
    if etag_matches(etag, conditions.if_none_match):
        return Plan(304, headers)
    part = byte_range(conditions.range, size)
    if part is None or (conditions.if_range and conditions.if_range != etag):
        return Plan(200, headers, read(0, None), size, whole=True)
    first, last = part
    if first > last:
        return Plan(416, b"content-range: bytes */%d\r\n" % size, length=0)
    headers += b"content-range: bytes %d-%d/%d\r\n" % (first, last, size)
    return Plan(206, headers, read(first, last + 1), last + 1 - first)


def plan_bytes(etag: bytes, headers: bytes, data: bytes, conditions: Conditions) -> Plan:
    """Plan bytes that are in memory, with ranges."""
    plan = plan_ranges(
        etag, headers, len(data), conditions, lambda start, end: iter((data[start:end],))
    )
    return msgspec.structs.replace(plan, whole=False)


def plan_stream(
    etag: bytes,
    headers: bytes,
    conditions: Conditions,
    pieces: Iterator[bytes | memoryview],
    *,
    whole: bool = False,
) -> Plan:
    """Plan what is made as it is sent: its length is not known, and it has no ranges."""
    headers = b"etag: %b\r\n%b" % (etag, headers)
    if etag_matches(etag, conditions.if_none_match):
        return Plan(304, headers)
    return Plan(200, headers, pieces, whole=whole)


def nothing_at(root: CID, path: str) -> NotFoundError:
    """Return the error for a path at which content has nothing."""
    return NotFoundError(
        f"{root} has nothing at /{path.lstrip('/')[:200]}",
        hint="ask for its directory, which lists what it has",
    )
