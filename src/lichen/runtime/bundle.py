"""TypeScript, JSX and npm libraries into one JavaScript module, by esbuild.

The same input gives the same bytes wherever the project lies: paths in the bundle and its source
map are relative to the project.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lichen.errors import MachineError, NotFoundError
from lichen.runtime.engines import ensure
from lichen.runtime.errors import BundleError, BundleTooLargeError

if TYPE_CHECKING:
    from lichen.runtime.engines import Engines

BUNDLE_BYTES_MAX: Final = 10 * 2**20
BUNDLE_S_MAX: Final = 120.0
LARGEST_SHOWN: Final = 3

_OPTIONS: Final = (
    "--bundle",
    "--format=esm",
    "--platform=neutral",
    "--target=es2024",
    "--main-fields=module,main",
    "--conditions=workerd,worker,browser",
    "--jsx=automatic",
    '--define:process.env.NODE_ENV="production"',
    "--external:node:*",
    "--external:cloudflare:*",
    "--legal-comments=none",
    "--charset=utf8",
    "--loader:.html=text",
    "--loader:.txt=text",
    "--loader:.sql=text",
    "--log-level=error",
    "--log-limit=1",
    "--color=false",
)
_NODE_BUILTINS: Final = (
    "assert async_hooks buffer console crypto dns events fs http https module net os path "
    "perf_hooks process punycode querystring stream string_decoder timers tls url util zlib"
)
_ERROR: Final = re.compile(
    r"\[ERROR\] (?P<text>[^\n]*)(?:\n\s*\n {4}(?P<file>[^\n]+?):(?P<line>\d+):(?P<column>\d+):)?"
)


class Input(msgspec.Struct, frozen=True):
    """One file that went into a bundle, and how many bytes of it stayed."""

    path: str
    bytes: int


class Bundle(msgspec.Struct, frozen=True):
    """A module: its code, its source map (empty if none), what went in, how long it took."""

    code: bytes
    source_map: bytes
    inputs: tuple[Input, ...]
    ms: int


def bundle(
    project_dir: str | os.PathLike[str],
    entry: str,
    *,
    engines: Engines | None = None,
    minify: bool = False,
    sourcemap: bool = True,
    bundle_bytes_max: int = BUNDLE_BYTES_MAX,
) -> Bundle:
    """Bundle `entry` (relative to `project_dir`) with all it imports into one module (blocking).

    Without `engines` they are looked up, and installed if missing. Raises BundleError where the
    code does not compile, BundleTooLargeError over `bundle_bytes_max`, NotFoundError when there is
    no such entry.
    """
    project = Path(project_dir).resolve()
    if not (project / entry).is_file():
        raise NotFoundError(
            f"{entry} does not exist in {project}", hint="check `main` in lichen.toml"
        )
    began_ns = time.monotonic_ns()
    with tempfile.TemporaryDirectory(prefix="lichen-bundle-") as temporary:
        out = Path(os.path.realpath(temporary))
        _run(
            (engines or ensure()).esbuild,
            project,
            _arguments(project, entry, out, minify, sourcemap),
        )
        code = (out / "index.js").read_bytes()
        inputs = _inputs((out / "meta.json").read_bytes())
        source_map = _relative_map(out, project) if sourcemap else b""
    if len(code) > bundle_bytes_max:
        raise _too_large(len(code), bundle_bytes_max, inputs)
    return Bundle(code, source_map, inputs, (time.monotonic_ns() - began_ns) // 1_000_000)


def _arguments(project: Path, entry: str, out: Path, minify: bool, sourcemap: bool) -> list[str]:
    # A library of that name in node_modules (such as `buffer` or `events`) is preferred.
    builtins = [
        f"--external:{name}"
        for name in _NODE_BUILTINS.split()
        if not (project / "node_modules" / name).exists()
    ]
    path = entry if entry.startswith((".", "/")) else f"./{entry}"
    arguments = [path, *_OPTIONS, *builtins, f"--outfile={out}/index.js"]
    arguments.append(f"--metafile={out}/meta.json")
    if minify:
        arguments.append("--minify")
    if sourcemap:
        arguments.append("--sourcemap=external")
    return arguments


def _run(esbuild: str, project: Path, arguments: list[str]) -> None:
    try:
        done = subprocess.run(
            [esbuild, *arguments],
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BUNDLE_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"bundling took more than {BUNDLE_S_MAX:.0f} s", hint="is the machine overloaded?"
        ) from None
    if done.returncode != 0:
        raise _compile_error(done.stderr.decode("utf-8", "replace"))


def _compile_error(output: str) -> BundleError:
    """Read esbuild's first message. Its lines count from 1, its columns from 0."""
    match = _ERROR.search(output)
    if match is None:
        return BundleError(output.strip()[:500] or "esbuild failed", file="", line=0, column=0)
    hint = ""
    if missing := re.match(r'Could not resolve "([^"./][^"]*)"', match["text"]):
        hint = f"add {missing[1]} to package.json, or correct the import"
    if match["file"] is None:
        return BundleError(match["text"], file="", line=0, column=0, hint=hint)
    line, column = int(match["line"]), int(match["column"]) + 1
    return BundleError(match["text"], file=match["file"], line=line, column=column, hint=hint)


class _OutputInput(msgspec.Struct):
    size: int = msgspec.field(name="bytesInOutput")


class _Output(msgspec.Struct):
    inputs: dict[str, _OutputInput]


class _Metafile(msgspec.Struct):
    outputs: dict[str, _Output]


def _inputs(metafile: bytes) -> tuple[Input, ...]:
    """Read esbuild's metafile: the inputs of the module, largest first."""
    outputs = msgspec.json.decode(metafile, type=_Metafile).outputs
    inputs = [
        Input(path, i.size)
        for name, output in outputs.items()
        if name.endswith(".js")
        for path, i in output.inputs.items()
    ]
    return tuple(sorted(inputs, key=lambda i: (-i.bytes, i.path)))


def _relative_map(out: Path, project: Path) -> bytes:
    """Return the source map with its sources relative to the project, not to our folder."""
    document: dict[str, Any] = msgspec.json.decode((out / "index.js.map").read_bytes())
    document["sources"] = [
        os.path.relpath(os.path.normpath(out / source), project) for source in document["sources"]
    ]
    return msgspec.json.encode(document)


def _too_large(size: int, bundle_bytes_max: int, inputs: tuple[Input, ...]) -> BundleTooLargeError:
    largest = ", ".join(f"{i.path} ({i.bytes})" for i in inputs[:LARGEST_SHOWN])
    return BundleTooLargeError(
        f"the bundle has {size} bytes; bundle_bytes_max is {bundle_bytes_max}",
        hint=f"the largest inputs are {largest}",
    )
