"""What works on this machine: each engine, each sandbox tier, and the network of the profile."""

from __future__ import annotations

import os
import platform
import shutil
import sys

import msgspec

from lichen.cli import profile as profiles
from lichen.errors import LichenError

DISK_FREE_BYTES_MIN = 2 * 2**30
CLOCK_SKEW_MS_MAX = 60_000


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `works` is None where it is not set up, which may be fine."""

    name: str
    works: bool | None
    detail: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing that fails hides the rest."""
    return [_python(), _disk(), *_engines(), _cometbft(), *_tiers(), *_network()]


def _python() -> Finding:
    version = platform.python_version()
    detail = f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return Finding("python", sys.version_info >= (3, 11), detail)


def _disk() -> Finding:
    free = shutil.disk_usage(os.getcwd()).free
    mend = "" if free > DISK_FREE_BYTES_MIN else "free some space: content and receipts need it"
    return Finding("disk", free > DISK_FREE_BYTES_MIN, f"{free / 2**30:,.1f} GiB free", mend)


def _engines() -> list[Finding]:
    from lichen.runtime import engines

    try:
        found = engines.status()
    except LichenError as error:
        return [Finding("engines", works=False, detail=error.what, mend=error.hint)]
    mend = "" if found.installed else "lichen setup"
    detail = f"workerd and esbuild in {found.directory}"
    return [Finding("engines", found.installed, detail if found.installed else "missing", mend)]


def _cometbft() -> Finding:
    """Look for CometBFT, which only networks of several operators need."""
    from lichen.ledger.comet import binary

    path = binary.find()
    if path is None:
        detail = "not here; only networks of several operators need it"
        return Finding("cometbft", works=None, detail=detail, mend="lichen ledger setup")
    return Finding("cometbft", works=True, detail=str(path))


def _tiers() -> list[Finding]:
    from lichen.runtime import probe

    return [
        Finding(f"tier {tier.name}", tier.available, tier.reason, tier.mend)
        for tier in probe.tiers()
    ]


def _network() -> list[Finding]:
    from lichen.cli import connect

    profile = profiles.current()
    if not profile.gateway:
        return [Finding("network", works=None, detail="none set up here", mend="lichen up")]
    try:
        with connect.reader(profile) as client:
            status = client.status()
            nodes = list(client.nodes())
    except LichenError as error:
        return [Finding("network", works=False, detail=error.what, mend="lichen up")]
    reachable = sum(view.reachable for view in nodes)
    detail = (
        f"{profile.gateway}, block {status.height}, {reachable} of {len(nodes)} nodes reachable"
    )
    mend = "" if reachable else "start a node: lichen up, or lichen node run"
    return [Finding("network", reachable > 0, detail, mend), _clock(profile)]


def _clock(profile: profiles.Profile) -> Finding:
    """Compare this machine's clock with the gateway's: signatures are refused when they differ."""
    import email.utils
    import time

    import httpx

    try:
        answer = httpx.get(f"{profile.gateway}/healthz", timeout=5.0, trust_env=False)
        there_s = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError):
        return Finding("clock", works=None, detail="the gateway does not say its time")
    skew_ms = round((time.time() - there_s) * 1000)
    fine = abs(skew_ms) < CLOCK_SKEW_MS_MAX
    mend = "" if fine else "set the clock: timedatectl set-ntp true"
    return Finding("clock", fine, f"{abs(skew_ms) // 1000} s from the gateway's", mend)
