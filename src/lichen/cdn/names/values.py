"""What names stand for, read: content paths, keys and domains, from records, DNS and the operator.

Pure.
"""

from __future__ import annotations

from lichen.cdn.names.dnslink import dns_name
from lichen.content import CID
from lichen.content.ipns import Name, check_value
from lichen.errors import PeerError, UserError

Key = Name | str  # a key's name, or a domain


class NameNotResolvedError(PeerError):
    """Nobody who could be asked knows what the name stands for."""

    code = "name-not-resolved"


def read_value(value: str) -> tuple[CID | Key, str]:
    """Read a content path: where it begins, and the path below, empty or with a slash in front.

    Raises NameNotResolvedError for one that leads nowhere.
    """
    try:
        return _read(value)
    except UserError as error:
        raise NameNotResolvedError(
            f"the name stands for {value[:100]!r}: {error.what}", hint="its owner has to mend that"
        ) from error


def read_mapped(path: str) -> tuple[CID | Key, str]:
    """Read a content path of the operator's map; raise UserError for a wrong one."""
    try:
        return _read(path)
    except UserError as error:
        raise UserError(
            f"[dnslinks]: {path[:100]!r} is no content path: {error.what}",
            hint="write /ipfs/CID or /ipns/NAME",
        ) from error


def read_domain(text: str) -> str:
    """Return the one spelling of a public domain; raise UserError for what is none."""
    name = dns_name(text)
    if name is None:
        raise UserError(
            f"{text[:80]!r} is neither an IPNS name nor a public domain",
            hint="a name looks like k51..., 12D3KooW... or example.org",
        )
    return name


def _read(value: str) -> tuple[CID | Key, str]:
    check_value(value)
    kind, name, *below = value[1:].split("/")
    segments = [segment for segment in below if segment]
    if {".", ".."} & {*segments}:
        raise UserError("it has dot segments")
    to = CID.parse(name) if kind == "ipfs" else _target(name)
    return to, "".join(f"/{segment}" for segment in segments)


def _target(text: str) -> Key:
    return text.lower() if "." in text else Name.parse(text)
