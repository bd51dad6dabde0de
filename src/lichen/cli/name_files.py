"""The records that were signed on this machine, one file for each key, beside the vault.

They say which sequence comes next, and let `lichen name keep` renew what the gateway has lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cli import profile as profiles

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.cli.profile import Profile
    from lichen.content.ipns import Name, Record

SUFFIX = ".ipns-record"


def published(profile: Profile) -> tuple[str, ...]:
    """Return the keys whose names were published from here."""
    return tuple(sorted(path.name[: -len(SUFFIX)] for path in _folder(profile).glob(f"*{SUFFIX}")))


def read(profile: Profile, key: str, name: Name) -> Record | None:
    """Return the last record of a key, its time over or not; None when there is none.

    Raises InvalidRecordError for a file that is damaged.
    """
    from lichen.content.ipns import verify_signature

    try:
        encoded = (_folder(profile) / f"{key}{SUFFIX}").read_bytes()
    except FileNotFoundError:
        return None
    return verify_signature(name, encoded)


def write(profile: Profile, key: str, record: Record) -> None:
    """Replace the record of a key; whole or not at all, also over a crash."""
    from lichen.cli.network.folder import write_private

    folder = _folder(profile)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / f"{key}{SUFFIX}", record.encoded)


def _folder(profile: Profile) -> Path:
    return profiles.keys_folder(profile).parent / "names"
