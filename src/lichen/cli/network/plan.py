"""Which processes a network folder needs, and in which order they start."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lichen.cli.network.folder import GATEWAY, LEDGER
from lichen.cli.network.ports import require_free
from lichen.cli.network.service import Service

if TYPE_CHECKING:
    from lichen.cli.network.folder import NetworkFolder


def stages(folder: NetworkFolder) -> list[list[Service]]:
    """Return the services: the ledgers, then all nodes, then the gateway."""
    nodes = [_service(folder, name, "node") for name in folder.nodes()]
    return [
        [_service(folder, name, LEDGER) for name in folder.ledgers()],
        nodes,
        [_service(folder, GATEWAY, GATEWAY)],
    ]


def urls(folder: NetworkFolder) -> dict[str, str]:
    """Return what serves where."""
    _, port = folder.listen(GATEWAY)
    others = {name: folder.url(name) for name in (*folder.ledgers(), *folder.nodes())}
    return {GATEWAY: f"http://localhost:{port}", **others}


def require_ports(folder: NetworkFolder) -> None:
    """Raise PortTakenError for the first port that something else listens on."""
    for name in (GATEWAY, *folder.ledgers(), *folder.nodes()):
        host, port = folder.listen(name)
        remedy = f"stop what listens there, or change listen in {folder.home(name)}/config.toml"
        if name == GATEWAY:
            remedy = "choose another one with --port, or stop what listens there"
        require_free(host, port, who=f"the {name}", remedy=remedy)


def _service(folder: NetworkFolder, name: str, command: str) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-m", "lichen", command, "run", "--home", str(folder.home(name))),
        url=folder.url(name),
        log=folder.log(name),
    )
