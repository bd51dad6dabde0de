"""Import profiles (IPIP-0499, https://specs.ipfs.tech/ipips/ipip-0499): equal input, equal CID."""

from __future__ import annotations

import enum

import msgspec

from lichen.errors import UserError

HAMT_FANOUT = 256
HAMT_THRESHOLD_BYTES = 256 * 1024


class DirectoryMeasure(enum.Enum):
    """What is compared with the threshold above which a directory becomes a HAMT."""

    BLOCK_BYTES = "block-bytes"
    LINKS_BYTES = "links-bytes"


class Profile(msgspec.Struct, frozen=True):
    """Everything that decides which CID a file or directory gets."""

    name: str
    chunk_bytes: int
    width: int
    raw_leaves: bool
    cid_version: int
    measure: DirectoryMeasure


V1_2025 = Profile("unixfs-v1-2025", 1 << 20, 1024, True, 1, DirectoryMeasure.BLOCK_BYTES)
V0_2015 = Profile("unixfs-v0-2015", 1 << 18, 174, False, 0, DirectoryMeasure.LINKS_BYTES)
PROFILES = {profile.name: profile for profile in (V1_2025, V0_2015)}


def profile_named(name: str) -> Profile:
    """Return the profile of that name; raise UserError that names the known ones."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UserError(
            f"there is no import profile {name!r}", hint=f"choose one of {', '.join(PROFILES)}"
        ) from None
