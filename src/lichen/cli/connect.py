"""Reaching the network of the profile, and writing what it answers for people."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from lichen.cli import keys
from lichen.cli import profile as profiles
from lichen.units import format_flk

if TYPE_CHECKING:
    from lichen.cli.profile import Profile
    from lichen.sdk.client import Client


def reader(profile: Profile | None = None) -> Client:
    """Return a client that signs nothing."""
    from lichen.sdk.client import Client

    return Client(profiles.require_gateway(profile or profiles.current()))


def signer(profile: Profile | None = None, account: str | None = None) -> Client:
    """Return a client that signs with the profile's account, or another one of its vault."""
    from lichen.sdk.client import Client

    chosen = profile or profiles.current()
    url = profiles.require_gateway(chosen)
    return Client(url, keys.signer(chosen, account))


def flk(amount: int) -> str:
    """Write an amount with its unit."""
    return f"{format_flk(amount)} FLK"


def when(time_ms: int) -> str:
    """Write a time in the reader's zone, to the second."""
    return dt.datetime.fromtimestamp(time_ms / 1000).astimezone().strftime("%F %T")


def short(text: object) -> str:
    """Shorten an address or hash for a table."""
    whole = str(text)
    return whole if len(whole) <= 14 else f"{whole[:8]}…{whole[-4:]}"
