"""Apps: a name with an owner, releases that never change, and which of them serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from lichen.ledger.checks import check_description, check_name, check_release
from lichen.ledger.errors import (
    NameTakenError,
    NotOwnerError,
    UnknownAppError,
    UnknownReleaseError,
)
from lichen.ledger.tables import APPS, RELEASES, release_id
from lichen.ledger.types import App, Release

if TYPE_CHECKING:
    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import ActivateRelease, CreateApp, PublishRelease


def create(draft: Draft, call: Call, body: CreateApp) -> None:
    """Give a free name to the signer."""
    check_name(body.name)
    check_description(body.description)
    if draft.read(APPS, body.name.encode()) is not None:
        raise NameTakenError(f"the name {body.name!r} is taken", hint="choose another name")

    app = App(body.name, call.address, body.description, draft.time_ms, releases=0, active=0)
    draft.write(APPS, body.name.encode(), app)


def publish(draft: Draft, call: Call, body: PublishRelease) -> None:
    """Add the app's next release and let it serve."""
    check_release(body)
    app = owned_app(draft, call, body.app)

    number = app.releases + 1
    release = Release(app.name, number, body.site, body.functions, body.manifest, draft.time_ms)
    draft.write(RELEASES, release_id(app.name, number), release)
    draft.write(APPS, app.name.encode(), replace(app, releases=number, active=number))


def activate(draft: Draft, call: Call, body: ActivateRelease) -> None:
    """Let an earlier or later release serve."""
    app = owned_app(draft, call, body.app)
    if not 1 <= body.number <= app.releases:
        raise UnknownReleaseError(
            f"{app.name} has no release {body.number}",
            hint=f"it has the releases 1 to {app.releases}" if app.releases else "publish one",
        )

    draft.write(APPS, app.name.encode(), replace(app, active=body.number))


def known_app(draft: Draft, name: str) -> App:
    """Return an app; raise UnknownAppError when there is none of this name."""
    check_name(name)
    app = draft.read(APPS, name.encode())
    if app is None:
        raise UnknownAppError(f"there is no app {name!r}", hint="create it first")
    return app


def owned_app(draft: Draft, call: Call, name: str) -> App:
    """Return the signer's app; raise UnknownAppError or NotOwnerError."""
    app = known_app(draft, name)
    if app.owner != call.address:
        raise NotOwnerError(f"{name} belongs to {app.owner}", hint="sign with the owner's key")
    return app
