"""`lichen ls`, `releases`, `rollback` and `logs`: what is deployed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lichen.cli import connect, console, keys
from lichen.cli import profile as profiles
from lichen.cli.options import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lichen.gateway.api.views import LogLine

_RELEASE = re.compile(r"v?([1-9][0-9]{0,8})")
FOLLOW_TRIES_MAX = 60
FOLLOW_PAUSE_S = 1.0


def ls(owner: str | None = None, /, *, all: bool = False) -> None:  # noqa: A002 - the flag is --all
    """List the apps of an account.

    Parameters
    ----------
    owner
        A key's name or an address; the profile's account without it.
    all
        List everybody's apps.
    """
    profile = profiles.current()
    profiles.require_gateway(profile)
    address = None if all else keys.resolve(profile, owner or profile.account)
    with connect.reader(profile) as client:
        apps = list(client.apps(address))
    rows = [
        (app.name, f"v{app.active}" if app.active else "-", app.releases, app.description)
        for app in apps
    ]
    columns = ("app", "active", ">releases", "description")
    console.emit(apps, lambda: console.table(columns, rows))


def releases(app: str | None = None, /) -> None:
    """List an app's releases, the newest first.

    Parameters
    ----------
    app
        The app; the one of this folder's lichen.toml without it.
    """
    name = app_name(app)
    with connect.reader() as client:
        active = client.app(name).app.active
        found = list(client.releases(name))
    rows = [
        (
            f"v{release.number}",
            "active" if release.number == active else "",
            connect.when(release.published_ms),
            ", ".join(function.name for function in release.functions) or "-",
            release.site or "-",
        )
        for release in found
    ]
    data = {"app": name, "active": active, "releases": found}
    columns = ("release", "", "published", "functions", "site")
    console.emit(data, lambda: console.table(columns, rows))


def rollback(*arguments: str) -> None:
    """Make an earlier or later release the active one: lichen rollback [APP] vN.

    Parameters
    ----------
    arguments
        The app (the one of this folder's lichen.toml without it) and the release, such as v2.
    """
    if not 1 <= len(arguments) <= 2 or not (match := _RELEASE.fullmatch(arguments[-1])):
        raise UsageError("name a release", hint="write lichen rollback [APP] vN, such as v2")
    from lichen.ledger.transactions import ActivateRelease

    number = int(match.group(1))
    name = app_name(arguments[0] if len(arguments) == 2 else None)
    with connect.signer() as client:
        before = client.app(name).app.active
        client.release(name, number)
        if before != number:
            client.submit(ActivateRelease(name, number))
    same = before == number
    text = f"{name} is at v{number} already" if same else f"{name}: v{before} -> v{number}"
    console.emit({"app": name, "before": before, "active": number}, lambda: print(text))


def logs(
    app: str | None = None,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
) -> None:
    """Show what an app's functions wrote, from all nodes.

    Parameters
    ----------
    app
        The app; the one of this folder's lichen.toml without it.
    follow
        Go on with new lines until Ctrl-C; a broken connection is made again, and said.
    """
    name = app_name(app)
    with connect.signer() as client:
        if not follow:
            for line in client.logs(name):
                _print_line(line)
            return
        _follow(lambda: client.logs(name, follow=True))


def _follow(start: Callable[[], Iterator[LogLine]]) -> None:
    """Follow a log across broken connections, never silently."""
    import time

    from lichen.errors import PeerUnavailableError

    failures = 0
    while True:
        try:
            for line in start():
                failures = 0
                _print_line(line)
            console.say("the log ended; following it again ...")
        except PeerUnavailableError as error:
            console.say(f"the log broke off: {console.clean(error.what)}; following it again ...")
        failures += 1
        if failures > FOLLOW_TRIES_MAX:
            raise PeerUnavailableError(
                "the log cannot be followed any more", hint="see whether the network runs"
            )
        time.sleep(FOLLOW_PAUSE_S)


def _print_line(line: LogLine) -> None:
    name = line.function.rpartition("/")[2]
    text = f"{connect.when(line.time_ms)} {line.level:<6} {name} {line.text}"
    console.emit_line(line, text)


def app_name(given: str | None) -> str:
    """Return the app that is meant: as given, or the one of the current folder's manifest."""
    if given is not None:
        return given
    from lichen.cli.project import manifest

    return manifest.load(Path.cwd()).manifest.name
