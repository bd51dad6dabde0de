"""What the three long-running commands share: a home folder, a lifeline, a port that is free."""

from __future__ import annotations

from pathlib import Path


def prepare(home: Path, name: str) -> tuple[str, int]:
    """Watch the supervisor, and check the configured port; return host and port."""
    from lichen.cli.network import lifeline
    from lichen.cli.network.folder import CONFIG_FILE, listen_of, read_config
    from lichen.cli.network.ports import require_free

    lifeline.watch()
    path = home / CONFIG_FILE
    host, port = listen_of(read_config(home), path)
    remedy = f"stop what listens there, or change listen in {path}"
    require_free(host, port, who=f"the {name}", remedy=remedy)
    return host, port
