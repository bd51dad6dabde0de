"""From built content to a release that serves: compare, upload, transact, wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from lichen.cli import connect, console
from lichen.errors import NotAllowedError, NotFoundError, PeerUnavailableError, UserError
from lichen.ledger.transactions import CreateApp, GrantSpending, PublishRelease, Transaction
from lichen.ledger.types import Release
from lichen.units import FLK, Amount

if TYPE_CHECKING:
    from lichen.cli.project.build import Built
    from lichen.cli.project.pack import Pack
    from lichen.gateway.api.views import Status
    from lichen.ledger.types import App, Grant
    from lichen.sdk.client import Client

GRANT_LIMIT = Amount(100 * FLK)
GRANT_LEFT_MIN = Amount(20 * FLK)
GRANT_MS = 90 * 86_400_000
GRANT_RENEW_MS = 7 * 86_400_000
SERVE_S_MAX = 60.0
POLL_S = 0.05


class Deployed(msgspec.Struct, frozen=True):
    """The release that serves now; `changed` tells whether this deploy made it."""

    release: Release
    changed: bool


def require_ours(client: Client, name: str) -> App | None:
    """Return the app if it exists; raise NotAllowedError when somebody else owns it."""
    try:
        app = client.app(name).app
    except NotFoundError:
        return None
    if client.key is not None and app.owner != client.key.address:
        raise NotAllowedError(
            f"the app name {name!r} is taken, by {app.owner}",
            hint="choose another one: lichen deploy --app NAME, or name in lichen.toml",
        )
    return app


def publish(
    client: Client, name: str, description: str, built: Built, pack: Pack, budget: Amount | None
) -> Deployed:
    """Make `built` the app's active release, unless it is already.

    `budget` is what the gateway may spend on the app from now on; None leaves a grant that will do.
    """
    status = client.status()
    app = require_ours(client, name)
    active = client.app(name).release if app is not None else None
    same = active is not None and is_same(active, built)
    bodies: list[Transaction] = []
    if app is None:
        bodies.append(CreateApp(name, description))
    if not same:
        bodies.append(PublishRelease(name, built.site, built.functions, built.manifest))
    held = _held(client, name, status)
    grant = _grant(name, status, held, budget) if built.functions else None
    if grant is not None:
        bodies.append(grant)
    if bodies:
        _require_balance(client, len(bodies), grant)
    if not same:
        upload(client, built, pack)
    if bodies:
        with console.step(f"publish {name}") as step:
            results = client.submit(*bodies)
            step.done(f"published {name} in block {results[-1].height}")
        if grant is not None:
            _say_grant(name, grant, held)
    if same and active is not None:
        return Deployed(active, changed=False)
    return Deployed(wait_serving(client, name, (app.releases if app else 0) + 1), changed=True)


def is_same(active: Release, built: Built) -> bool:
    """Tell whether a release has the same CIDs and the same settings."""
    return (active.site, active.functions, active.manifest) == (
        built.site,
        built.functions,
        built.manifest,
    )


def upload(client: Client, built: Built, pack: Pack) -> None:
    """Have the gateway keep what the release is made of; send it the blocks that it lacks."""
    from lichen.sdk.adding import send

    with console.step("upload") as step:
        sent = send(client, pack, built.roots)
        if any(pin.missing for pin in sent.pins):
            raise PeerUnavailableError(
                "the gateway did not store what was sent", hint="run the command again"
            )
        step.done(f"uploaded {sent.bytes:,} of {pack.blocks_bytes:,} bytes")


def wait_serving(client: Client, name: str, number: int) -> Release:
    """Wait until the gateway routes to a release; it follows the ledger by itself."""
    deadline = time.monotonic() + SERVE_S_MAX
    with console.step("wait until the gateway serves it") as step:
        while time.monotonic() < deadline:
            release = _served(client, name)
            if release is not None and release.number >= number:
                step.done("the gateway serves it")
                return release
            time.sleep(POLL_S)
    raise PeerUnavailableError(
        f"v{number} is on the ledger, but the gateway does not serve it after {SERVE_S_MAX:.0f} s",
        hint="see its log, or: lichen doctor",
    )


def _served(client: Client, name: str) -> Release | None:
    try:
        return client.app(name).release
    except NotFoundError:  # the gateway has not seen the block yet
        return None


def _grant(
    name: str, status: Status, held: Grant | None, budget: Amount | None
) -> GrantSpending | None:
    """Return the grant to give, if any."""
    limit = next_limit(held, status.time_ms, budget)
    if limit is None:
        return None
    expires_ms = time.time_ns() // 1_000_000 + GRANT_MS
    return GrantSpending(name, status.gateway, limit, expires_ms)


def _say_grant(name: str, grant: GrantSpending, held: Grant | None) -> None:
    left = connect.flk(grant.limit - (held.spent if held else 0))
    until = connect.when(grant.expires_ms)[:10]
    console.say(f"  the gateway may spend up to {left} on {name} until {until}")


def next_limit(held: Grant | None, now_ms: int, budget: Amount | None) -> Amount | None:
    """Return the limit of the grant to give, None when the one that is held will do.

    A budget counts from now on. Without one, a grant of the usual size is renewed when it is nearly
    used up; a smaller one is somebody's decision and only its time is prolonged.
    """
    if held is None:
        return GRANT_LIMIT if budget is None else budget
    if budget is not None:
        return Amount(held.spent + budget)
    if held.limit >= GRANT_LIMIT and held.limit - held.spent < GRANT_LEFT_MIN:
        return Amount(held.spent + GRANT_LIMIT)
    if held.expires_ms - now_ms < GRANT_RENEW_MS:
        return held.limit
    return None


def _held(client: Client, name: str, status: Status) -> Grant | None:
    try:
        grants = client.grants(name)
        return next((grant for grant in grants if grant.delegate == status.gateway), None)
    except NotFoundError:  # the app is new
        return None


def _require_balance(client: Client, transactions: int, grant: GrantSpending | None) -> None:
    """Fail before anything is sent when the account cannot pay; say how much is missing."""
    fees = client.genesis().params.transaction_fee * transactions
    need = fees + (FLK if grant is not None else 0)
    account = client.account()
    if account.balance < need:
        raise UserError(
            f"the account has {connect.flk(account.balance)}, deploying takes "
            f"{connect.flk(need)}: {connect.flk(need - account.balance)} are missing",
            hint=f"send FLK to {account.address}, or deploy from another account",
        )
