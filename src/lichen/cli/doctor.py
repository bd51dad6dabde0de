"""`lichen doctor` and `lichen setup`: what works on this machine, and how to mend the rest."""

from __future__ import annotations

from lichen.cli import console


def doctor() -> None:
    """Say what works on this machine, tier by tier, and how to mend the rest."""
    from lichen.cli.health import examine

    findings = examine()
    marks = {True: "✓", False: "✗", None: "-"}
    rows = [(marks[f.works], f.name, f.detail, f.mend) for f in findings]
    console.emit(findings, lambda: console.table(("", "what", "how it is", "to mend"), rows))


def setup() -> None:
    """Install the engines that run functions: workerd and esbuild, pinned."""
    from lichen.runtime import engines

    with console.step("install the engines") as step:
        found = engines.ensure(console.say)
        step.done("the engines are installed")
    data = {"workerd": found.workerd, "esbuild": found.esbuild, "node": found.node}
    console.emit(data, lambda: console.fields(list(data.items())))
