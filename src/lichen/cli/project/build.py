"""From a project folder to content: functions bundled, site files imported, all in one pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lichen.cli import console
from lichen.cli.project.sitefiles import check_site_files
from lichen.content.cid import CID
from lichen.encoding import to_json
from lichen.errors import NotFoundError, UserError
from lichen.ledger.types import FunctionSpec, Runtime

if TYPE_CHECKING:
    from lichen.cli.project.manifest import FunctionSection, Manifest, Project
    from lichen.cli.project.pack import Pack
    from lichen.runtime.bundle import Bundle
    from lichen.runtime.engines import Engines

SITE_FILES_MAX = 20_000
OFFERED_LATER = frozenset(("gvisor", "microvm"))


class UnsupportedError(UserError):
    """The manifest asks for something that this version of the network does not do."""

    code = "unsupported"


class Built(msgspec.Struct, frozen=True):
    """What a release is made of; every CID's blocks are in the pack."""

    site: CID | None
    functions: tuple[FunctionSpec, ...]
    manifest: CID

    @property
    def roots(self) -> tuple[CID, ...]:
        """The CIDs that a gateway has to have."""
        codes = tuple(function.code for function in self.functions)
        found = (*codes, self.manifest) if self.site is None else (*codes, self.manifest, self.site)
        return tuple(dict.fromkeys(found))


def build(project: Project, pack: Pack) -> Built:
    """Bundle and import a project, one step a line; raise the first fault in it."""
    manifest = project.manifest
    require_supported(manifest)
    functions = _build_functions(project, pack) if manifest.functions else ()
    site = _import_site(project, pack) if manifest.site is not None else None
    record = pack.add_bytes(to_json(manifest))
    return Built(site, functions, record.cid)


def require_supported(manifest: Manifest) -> None:
    """Refuse what this version cannot run, by name, instead of leaving it out silently."""
    for function in manifest.functions:
        wants = {
            f"runtime = {function.runtime!r}": function.runtime == "wasm",
            f"verify = {function.verify!r}": function.verify != "none",
            "schedule": bool(function.schedule),
            "node_compat": function.node_compat,
            "input_schema": function.input_schema is not None,
            "output_schema": function.output_schema is not None,
            f"min_tier = {function.weakest_tier!r}": function.weakest_tier in OFFERED_LATER,
            f"min_tier = {function.weakest_tier!r} with runtime = 'exact'": (
                function.runtime == "exact" and function.weakest_tier == "process"
            ),
        }
        _refuse(f"function {function.name!r}", [name for name, wanted in wants.items() if wanted])
    _refuse("this project", ["[[bindings]]"] if manifest.bindings else [])


def _refuse(who: str, wanted: list[str]) -> None:
    if wanted:
        raise UnsupportedError(
            f"{who} asks for {', '.join(wanted)}, which this version does not offer yet",
            hint="take it out of lichen.toml for now",
        )


def _build_functions(project: Project, pack: Pack) -> tuple[FunctionSpec, ...]:
    from lichen.runtime import engines

    found = engines.ensure(console.say)
    _install(project)
    return tuple(
        _build_function(project, section, found, pack) for section in project.manifest.functions
    )


def _install(project: Project) -> None:
    from lichen.runtime.dependencies import install_dependencies

    if not (project.root / "package.json").is_file():
        return
    with console.step("install npm packages") as step:
        installed = install_dependencies(project.root)
        step.done("installed npm packages" if installed else "npm packages are up to date")


def _build_function(
    project: Project, section: FunctionSection, engines: Engines, pack: Pack
) -> FunctionSpec:
    if not project.path(section.main).is_file():
        raise NotFoundError(
            f"function {section.name!r}: there is no {section.main}",
            hint="mend main in lichen.toml",
        )
    with console.step(f"bundle {section.name}") as step:
        bundle = _bundle(project, section, engines)
        root = pack.add_bytes(bundle.code)
        step.done(f"bundled {section.name}, {len(bundle.code) / 1024:,.0f} KiB, {root.cid}")
    if section.runtime == "exact":
        _evaluate(section, bundle.code, engines)
    return FunctionSpec(
        name=section.name,
        code=root.cid,
        runtime=Runtime(section.runtime),
        routes=section.routes,
        memory_mb=section.memory_mb,
        timeout_ms=section.timeout_ms,
        verify=section.verify,
        max_price=section.max_price_amount,
        min_tier=section.weakest_tier,
        run_first=section.run_first,
        schedule=section.schedule,
        content_bytes=len(bundle.code),
    )


def _bundle(project: Project, section: FunctionSection, engines: Engines) -> Bundle:
    from lichen.runtime import bundle

    return bundle.bundle(project.root, section.main, engines=engines)


def _evaluate(section: FunctionSection, code: bytes, engines: Engines) -> None:
    """Make sure that nodes can evaluate an exact function; raise LoadError with its fault."""
    from lichen.runtime.exact import check

    with console.step(f"evaluate {section.name}") as step:
        made = check.check(code, section.memory_mb, engines)
        step.done(f"evaluated {section.name}, snapshot {made.hash[:16]}")


def _import_site(project: Project, pack: Pack) -> CID:
    section = project.manifest.site
    folder = project.path(section.dir if section else "")
    if not folder.is_dir():
        raise NotFoundError(
            f"the site folder {folder} is missing",
            hint="make it, or mend [site] dir in lichen.toml",
        )
    check_site_files(folder)
    before = pack.files
    with console.step(f"import {folder.name}/") as step:
        root = pack.add(folder)
        files = pack.files - before
        step.done(f"imported {folder.name}/, {files} files, {root.cid}")
    if not files:
        raise UserError(f"the site folder {folder} is empty", hint="put an index.html there")
    return root.cid
