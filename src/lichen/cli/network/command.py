"""What `lichen up` and `lichen down` do."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

from lichen.cli import console
from lichen.cli.network import create, detach, plan, processes, state
from lichen.cli.network.folder import GATEWAY, HOST, LEDGER, NetworkFolder, write_config
from lichen.cli.network.supervisor import Supervisor
from lichen.cli.profile import PROFILE_FILE
from lichen.errors import CorruptionError, LichenError, MachineError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lichen.cli.network.processes import ProcessId

PORT_DEFAULT = 8080
NODES_DEFAULT = 3
ORPHANS_S_MAX = 20.0
STARTING_S_MAX = 90.0
DOWN_S_MAX = 60.0
KILL_S_MAX = 5.0


def open_folder(
    root: Path, nodes: int | None, port: int | None, fault: str, validators: int | None = None
) -> NetworkFolder:
    """Return the network folder, made or brought up to date with the flags."""
    faults = create.parse_faults(fault)
    if faults.counts:
        raise UserError(
            "nodes do not know how to misbehave yet, so --fault would change nothing",
            hint="leave it out; it comes with verification by several nodes",
        )
    if (root / PROFILE_FILE).is_file():
        folder = NetworkFolder(root)
        _require_validators(folder, validators)
        _adapt(folder, nodes, port, faults)
        return folder
    with console.step(f"make a new network in {root}") as step:
        folder = create.create(
            root,
            nodes=nodes or NODES_DEFAULT,
            port=port or PORT_DEFAULT,
            faults=faults,
            validators=validators or 0,
        )
        step.done(f"made a new network in {root}; its developer has {create.describe_funds()}")
    return folder


def _require_validators(folder: NetworkFolder, validators: int | None) -> None:
    has = len(folder.ledgers()) if folder.config(LEDGER).get("engine") == "cometbft" else 0
    if validators is not None and validators != has:
        raise UserError(
            f"the network in {folder.root} was made with --validators {has}, not {validators}",
            hint="leave --validators out, or make another network with --dir",
        )


def _adapt(
    folder: NetworkFolder, nodes: int | None, port: int | None, faults: create.Faults
) -> None:
    names = folder.nodes()
    if nodes is not None and nodes != len(names):
        raise UserError(
            f"the network in {folder.root} was made with --nodes {len(names)}, not {nodes}",
            hint="leave --nodes out, or make another network with --dir",
        )
    bad = faults.of_nodes(names)
    for name in names:
        _update(folder, name, fault=bad[name])
    _update(folder, GATEWAY, private_nodes=True)
    if port is not None:
        _update(folder, GATEWAY, listen=f"{HOST}:{port}")
        for name in names:
            _update(folder, name, content_peers=[f"http://{HOST}:{port}"])
        create.write_profile(folder, port, folder.url(LEDGER))


def _update(folder: NetworkFolder, name: str, **changes: object) -> None:
    old = folder.config(name)
    new = {key: value for key, value in {**old, **changes}.items() if value is not None}
    if new != old:
        write_config(folder.home(name), new)


def run_supervisor(folder: NetworkFolder, announce: Callable[[], None]) -> None:
    """Be the supervisor of the folder until told to stop."""
    progress = detach.Progress()
    try:
        _supervise(folder, progress, announce)
    except LichenError as error:
        progress.failed(error.what, error.hint)
        raise


def _supervise(
    folder: NetworkFolder, progress: detach.Progress, announce: Callable[[], None]
) -> None:
    lock = state.RunLock(folder.lock)
    if not lock.acquire():
        raise MachineError(
            f"the network in {folder.root} runs already", hint="stop it with: lichen down"
        )
    clear_orphans(folder)
    plan.require_ports(folder)
    me = processes.identify("supervisor", os.getpid())
    if me is None:
        raise CorruptionError("this process cannot find itself", hint="is /proc mounted?")
    supervisor = Supervisor(
        plan.stages(folder),
        me=me,
        state_path=folder.state,
        urls=plan.urls(folder),
        report=progress.step,
    )

    def serving() -> None:
        progress.serving()
        announce()

    asyncio.run(supervisor.run(serving))
    lock.release()


def clear_orphans(folder: NetworkFolder) -> None:
    """Wait for what a killed supervisor left behind; kill what does not go by itself."""
    known = state.read(folder.state)
    if known is None:
        return
    _end(list(known.processes), ORPHANS_S_MAX)
    folder.state.unlink(missing_ok=True)


def wait_serving(folder: NetworkFolder) -> state.Running:
    """Wait for a network that is starting elsewhere; raise MachineError when it does not serve."""
    deadline = time.monotonic() + STARTING_S_MAX
    while time.monotonic() < deadline and state.is_running(folder.lock):
        running = state.read(folder.state)
        if running is not None and running.serving:
            return running
        time.sleep(processes.POLL_S)
    raise MachineError(
        f"the network in {folder.root} is starting or stopping, but does not serve",
        hint="try again in a moment, or stop it with: lichen down",
    )


def stop(folder: NetworkFolder) -> tuple[bool, list[str]]:
    """Stop the network; return whether it ran, and the names of what had to be killed."""
    running = state.read(folder.state)
    locked = state.is_running(folder.lock)
    if running is None and not locked:
        return False, []
    if running is None:
        running = wait_serving(folder)
    everything = [*running.processes, running.supervisor]
    was_alive = any(processes.is_alive(process) for process in everything)
    processes.send(running.supervisor, signal.SIGTERM)
    stubborn = _wait_stopped(folder, running.supervisor, everything)
    folder.state.unlink(missing_ok=True)
    return was_alive, [process.name for process in stubborn]


def _wait_stopped(
    folder: NetworkFolder, supervisor: ProcessId, everything: list[ProcessId]
) -> list[ProcessId]:
    """Wait for the supervisor, then for every process it knew of last; return what was killed."""
    processes.wait_gone([supervisor], DOWN_S_MAX)
    latest = state.read(folder.state)
    known = [*everything, *(latest.processes if latest else ())]
    return _end(list(dict.fromkeys(known)), ORPHANS_S_MAX)


def _end(known: list[ProcessId], seconds_max: float) -> list[ProcessId]:
    """Wait until processes are gone, kill those that stay, and whatever any of them left."""
    stubborn = processes.wait_gone(known, seconds_max)
    for process in stubborn:
        processes.kill_group(process)
    processes.wait_gone(stubborn, KILL_S_MAX)
    for process in known:
        processes.sweep_group(process)
    return stubborn
