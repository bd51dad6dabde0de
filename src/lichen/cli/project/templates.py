"""Project templates: the repository's examples, which are tested, are what `lichen init` copies.

A wheel carries them in `lichen/cli/project/templates/`; a source tree has them in `examples/`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import lichen
from lichen.cli.project.manifest import FILE_NAME, NAME_PATTERN
from lichen.errors import NotFoundError, UserError

TEMPLATES = {"hono": "hello", "ssr": "ssr", "static": "site", "exact": "exact"}
IGNORED = frozenset({"node_modules", ".lichen", "__pycache__", ".DS_Store"})
RENAMED = frozenset({FILE_NAME, "package.json", "package-lock.json", "README.md"})
FILES_MAX = 200


def names() -> list[str]:
    """Return the templates that exist."""
    return list(TEMPLATES)


def create(template: str, target: Path, name: str) -> list[Path]:
    """Copy a template into `target` under a new app name; return the files written.

    Nothing is ever overwritten: a file that exists already is a UserError before any is written.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"{name!r} cannot be an app's name",
            hint="use lower-case letters, digits and hyphens, at most 40",
        )
    source = _source(template)
    files = _files(source)
    for file in files:
        if (target / file).exists():
            raise UserError(
                f"{target / file} exists, and nothing is overwritten",
                hint="choose another NAME, or an empty folder",
            )
    for file in files:
        _copy(source / file, target / file, TEMPLATES[template], name)
    return [target / file for file in files]


def _source(template: str) -> Path:
    if template not in TEMPLATES:
        raise UserError(
            f"there is no template {template!r}", hint=f"templates: {', '.join(TEMPLATES)}"
        )
    packaged = Path(__file__).parent / "templates" / TEMPLATES[template]
    in_tree = Path(lichen.__file__).parents[2] / "examples" / TEMPLATES[template]
    for folder in (packaged, in_tree):
        if (folder / FILE_NAME).is_file():
            return folder
    raise NotFoundError(
        f"the template {template!r} is not part of this installation", hint="install lichen again"
    )


def _files(source: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(set(folders) - IGNORED)
        found += [Path(folder, file).relative_to(source) for file in files if file not in IGNORED]
    if len(found) > FILES_MAX:
        raise UserError(f"the template has over {FILES_MAX} files", hint="clean its folder")
    return sorted(found)


def _copy(source: Path, target: Path, old: str, new: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    if source.name in RENAMED:
        data = _rename(source.name, data.decode(), old, new).encode()
    with target.open("xb") as stream:
        stream.write(data)


def _rename(file: str, text: str, old: str, new: str) -> str:
    """Replace the app's name where it stands for itself, not where a word happens to be equal."""
    if file == FILE_NAME:
        return text.replace(f'name = "{old}"', f'name = "{new}"', 1)
    if file == "README.md":
        text = text.replace(f"# {old}\n", f"# {new}\n", 1)
        text = text.replace(f"http://{old}.app.", f"http://{new}.app.")
        return text.replace(f"lichen call {old}/", f"lichen call {new}/")
    return text.replace(f'"name": "{old}"', f'"name": "{new}"')
