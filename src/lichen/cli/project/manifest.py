"""`lichen.toml`: what an app consists of, as its developer writes it.

The structs below are the one source of the format: reading, limits, the published JSON Schema
(docs/lichen.schema.json) and the messages about what is wrong all come from them.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lichen.cli.project.reader import ManifestError, Reader
from lichen.errors import NotFoundError, UserError
from lichen.units import Amount, parse_flk

FILE_NAME = "lichen.toml"
MANIFEST_BYTES_MAX = 256 * 1024
FUNCTIONS_MAX = 32
ROUTES_MAX = 64
SCHEDULES_MAX = 16
BINDINGS_MAX = 64
DURATION_DAYS_MAX = 3650
EXACT_MEMORY_MB_MAX = 256
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
VERIFY_PATTERN = r"^(none|spot:(0\.[0-9]{1,6}|1(\.0)?)|[1-9][0-9]?-of-[1-9][0-9]?|tee|mpc|zk)$"
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_DURATION = re.compile(r"([1-9][0-9]{0,9})(ms|s|m|h|d|w)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_CRON_FIELD = r"(\*|[0-9]{1,2}(-[0-9]{1,2})?(,[0-9]{1,2}(-[0-9]{1,2})?)*)(/[0-9]{1,2})?"
CRON_PATTERN = rf"^{_CRON_FIELD}( {_CRON_FIELD}){{4}}$"

Name = Annotated[
    str,
    Meta(pattern=NAME_PATTERN, description="lower-case letters, digits and hyphens, at most 40"),
]
RelativePath = Annotated[
    str, Meta(min_length=1, max_length=512, description="a path inside the project")
]
Tier = Literal["none", "wasm", "process", "gvisor", "microvm"]
Route = Annotated[
    str,
    Meta(
        pattern=r"^/[^\s*?#]*\*?$",
        max_length=256,
        description="a path, or the beginning of one when it ends in *",
    ),
]


class SiteSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Static files, answered before functions."""

    dir: RelativePath


class FunctionSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One function: its code, its limits, and what it may cost."""

    name: Name
    main: RelativePath
    runtime: Literal["js", "exact", "wasm"] = "js"
    routes: Annotated[tuple[Route, ...], Meta(max_length=ROUTES_MAX)] = ("/*",)
    memory_mb: Annotated[int, Meta(ge=32, le=4096, description="memory limit in MiB")] = 128
    timeout_ms: Annotated[int, Meta(ge=1, le=300_000, description="wall-clock limit in ms")] = 10000
    verify: Annotated[str, Meta(pattern=VERIFY_PATTERN, description="how results are checked")] = (
        "none"
    )
    max_price: Annotated[str, Meta(description="FLK per run, a hard ceiling")] = "0.01"
    min_tier: Annotated[
        Tier | None,
        Meta(
            description="the weakest sandbox it may run in; none: also without one; "
            "by default process, and wasm for exact functions"
        ),
    ] = None
    run_first: Annotated[bool, Meta(description="answer before the site's files")] = False
    schedule: Annotated[
        tuple[Annotated[str, Meta(pattern=CRON_PATTERN, description="five cron fields")], ...],
        Meta(max_length=SCHEDULES_MAX),
    ] = ()
    input_schema: RelativePath | None = None
    output_schema: RelativePath | None = None
    storage_duration: Annotated[str, Meta(description="such as 365d or 12w")] = "365d"
    node_compat: Annotated[bool, Meta(description="offer Node built-ins")] = False

    @property
    def max_price_amount(self) -> Amount:
        """The ceiling per run in units of 10^-18 FLK."""
        return parse_flk(self.max_price)

    @property
    def weakest_tier(self) -> Tier:
        """The weakest sandbox it may run in."""
        return self.min_tier or ("wasm" if self.runtime == "exact" else "process")

    @property
    def storage_ms(self) -> int:
        """How long code and data are kept and paid for, in milliseconds."""
        return parse_duration_ms(self.storage_duration)


class BindingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something a function finds in its `env`."""

    type: Literal["kv", "objects", "cache", "queue", "secret"]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole `lichen.toml`."""

    manifest_version: Literal[1]
    name: Name
    description: Annotated[str, Meta(max_length=500)] = ""
    site: SiteSection | None = None
    functions: Annotated[tuple[FunctionSection, ...], Meta(max_length=FUNCTIONS_MAX)] = ()
    bindings: Annotated[tuple[BindingSection, ...], Meta(max_length=BINDINGS_MAX)] = ()


class Project(msgspec.Struct, frozen=True):
    """A manifest and the folder it stands in."""

    root: Path
    manifest: Manifest

    def path(self, relative: str) -> Path:
        """Return a path of the manifest as one of this machine."""
        return self.root / relative

    def with_min_tier(self, tier: Tier) -> Project:
        """Return the project with another weakest sandbox for all functions."""
        functions = tuple(
            msgspec.structs.replace(function, min_tier=tier) for function in self.manifest.functions
        )
        manifest = msgspec.structs.replace(self.manifest, functions=functions)
        return msgspec.structs.replace(self, manifest=manifest)


def load(path: Path) -> Project:
    """Read the project at a folder, or at a `lichen.toml` itself; raise ManifestError."""
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise NotFoundError(
            f"there is no {FILE_NAME} in {path}", hint="make one with: lichen init NAME"
        )
    if file.stat().st_size > MANIFEST_BYTES_MAX:
        raise ManifestError(
            f"{file}: larger than {MANIFEST_BYTES_MAX // 1024} KiB", hint="a manifest is short text"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file}: not UTF-8 text", hint="save it as UTF-8") from error
    return Project(root=file.parent.resolve(), manifest=parse(text, str(file)))


def parse(text: str, file: str = FILE_NAME) -> Manifest:
    """Read and check the text of a manifest; every fault names file, line and key."""
    reader = Reader(file, text)
    manifest = reader.read(Manifest)
    for index, function in enumerate(manifest.functions):
        _check_function(reader, index, function)
    _check_unique(reader, "functions", [function.name for function in manifest.functions])
    _check_unique(reader, "bindings", [binding.name for binding in manifest.bindings])
    _check_routes(reader, manifest)
    if manifest.site is not None:
        _check_inside(reader, ("site", "dir"), manifest.site.dir)
    if manifest.site is None and not manifest.functions:
        raise reader.error((), "neither a [site] nor [[functions]]", "add one of the two")
    return manifest


def parse_duration_ms(text: str) -> int:
    """Read a duration such as `30s`, `12h` or `365d` as milliseconds; raise UserError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{text!r} is not a duration", hint="write a number and a unit: ms, s, m, h, d or w"
        )
    return int(match.group(1)) * _UNIT_MS[match.group(2)]


def json_schema() -> bytes:
    """Return the JSON Schema of `lichen.toml`, for editors."""
    schema = {
        "$schema": SCHEMA_ID,
        "title": "lichen.toml",
        **msgspec.json.schema(Manifest),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def _check_function(reader: Reader, index: int, function: FunctionSection) -> None:
    where: tuple[str | int, ...] = ("functions", index)
    with reader.naming((*where, "max_price")):
        if function.max_price_amount == 0:
            raise UserError("a ceiling of 0 FLK pays for nothing", hint="write, say, 0.002")
    with reader.naming((*where, "storage_duration")):
        if function.storage_ms > DURATION_DAYS_MAX * _UNIT_MS["d"]:
            raise UserError("longer than ten years", hint=f"at most {DURATION_DAYS_MAX}d")
    _check_quorum(reader, (*where, "verify"), function.verify)
    if function.runtime == "exact" and function.memory_mb > EXACT_MEMORY_MB_MAX:
        raise reader.error(
            (*where, "memory_mb"),
            f"an exact function has at most {EXACT_MEMORY_MB_MAX} MiB",
            'write less, or runtime = "js"',
        )
    for key in ("main", "input_schema", "output_schema"):
        path = getattr(function, key)
        if path is not None:
            _check_inside(reader, (*where, key), path)


def _check_quorum(reader: Reader, where: tuple[str | int, ...], verify: str) -> None:
    match = re.fullmatch(r"([0-9]+)-of-([0-9]+)", verify)
    if match and int(match.group(1)) > int(match.group(2)):
        k, n = match.groups()
        raise reader.error(where, f"{k} of {n} can never agree", f"write {n}-of-{n} or less")


def _check_inside(reader: Reader, where: tuple[str | int, ...], path: str) -> None:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise reader.error(where, f"{path!r} leads out of the project", "use a path inside, with /")


def _check_unique(reader: Reader, section: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise reader.error(
                (section, index, "name"), f"{name!r} is there twice", "rename one of them"
            )


def _check_routes(reader: Reader, manifest: Manifest) -> None:
    seen: dict[str, str] = {}
    for index, function in enumerate(manifest.functions):
        for route in function.routes:
            if route in seen:
                raise reader.error(
                    ("functions", index, "routes"),
                    f"the route {route} belongs to {seen[route]!r} already",
                    "give it to one function only",
                )
            seen[route] = function.name
