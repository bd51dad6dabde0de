"""`lichen deploy`: from a folder to a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lichen.cli import connect, console
from lichen.cli import profile as profiles
from lichen.cli.project.manifest import Tier

if TYPE_CHECKING:
    from lichen.cli.project.release import Deployed


def deploy(
    path: Path = Path(),
    /,
    *,
    app: str | None = None,
    min_tier: Tier | None = None,
    budget: str | None = None,
) -> None:
    """Bundle, store, register and route the project of a folder.

    Parameters
    ----------
    path
        The project's folder; the current one without it.
    app
        Another name than the one in lichen.toml.
    min_tier
        The weakest sandbox that all functions may run in, instead of what lichen.toml says.
        none lets them run on nodes without any: only where the node's owner trusts you.
    budget
        FLK that the gateway may spend on the app from now on. Without it 100, renewed when nearly
        used up; a smaller budget is never widened by itself.
    """
    from lichen.cli.project import build, manifest, release
    from lichen.cli.project.pack import Pack
    from lichen.units import parse_flk

    project = manifest.load(path)
    if min_tier is not None:
        project = project.with_min_tier(min_tier)
    build.require_supported(project.manifest)
    name = app or project.manifest.name
    limit = None if budget is None else parse_flk(budget)
    profile = profiles.current()
    with connect.signer(profile) as client, Pack() as pack:
        release.require_ours(client, name)
        built = build.build(project, pack)
        deployed = release.publish(client, name, project.manifest.description, built, pack, limit)
    url = app_url(profile.gateway, name)
    functions = {function.name: function.code for function in deployed.release.functions}
    data = {
        "app": name,
        "release": deployed.release.number,
        "changed": deployed.changed,
        "site": deployed.release.site,
        "functions": functions,
        "url": url,
    }
    console.emit(data, lambda: _print(name, deployed, profile.gateway, url))


def app_url(gateway: str, name: str) -> str:
    """Return the URL of an app at a gateway."""
    parts = urlsplit(gateway)
    return f"{parts.scheme}://{name}.app.{parts.netloc}/"


def _print(name: str, deployed: Deployed, gateway: str, url: str) -> None:
    release = deployed.release
    if not deployed.changed:
        print(f"no changes: {name} is at v{release.number} already")
    else:
        print(f"{name} v{release.number}")
    pairs: list[tuple[str, object]] = [(f"  {f.name}", f.code) for f in release.functions]
    if release.site is not None:
        pairs += [("  site", release.site), ("  by hash", f"{gateway}/ipfs/{release.site}/")]
    console.fields([*pairs, ("  url", url), ("  try", f"curl {url}")])
