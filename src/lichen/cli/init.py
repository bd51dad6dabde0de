"""`lichen init`: a project that deploys as it is."""

from __future__ import annotations

from pathlib import Path

from lichen.cli import console


def init(name: str = "", /, *, template: str = "hono") -> None:
    """Make a project that deploys as it is. Existing files are never overwritten.

    Parameters
    ----------
    name
        The app's name and its folder; without one the current folder is used.
    template
        hono (a JSON API), ssr (a React page), static (a site) or exact (the same everywhere).
    """
    from lichen.cli.project import templates

    target = Path.cwd() / name if name else Path.cwd()
    app = target.name.lower()
    files = templates.create(template, target, app)
    shown = [str(file.relative_to(Path.cwd())) for file in files]
    data = {"name": app, "template": template, "files": shown}
    console.emit(data, lambda: _print(app, name, shown))


def _print(app: str, folder: str, files: list[str]) -> None:
    for file in files:
        print(f"  {file}")
    enter = f"cd {folder} && " if folder else ""
    print(f"{app} is ready. Next: {enter}lichen deploy")
