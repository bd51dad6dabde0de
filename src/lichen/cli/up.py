"""`lichen up` and `lichen down`: a whole network on this machine."""

from __future__ import annotations

from pathlib import Path

from lichen.cli import console
from lichen.cli import profile as profiles
from lichen.errors import NotFoundError


def up(
    *,
    nodes: int | None = None,
    validators: int | None = None,
    dir: Path | None = None,  # noqa: A002 - the flag is called --dir
    port: int | None = None,
    detach: bool = False,
    fault: str = "",
) -> None:
    """Start a whole network on this machine: a ledger, nodes and a gateway.

    Parameters
    ----------
    nodes
        How many nodes a new network gets (3).
    validators
        How many ledgers of a new network agree by CometBFT; without it, one orders alone.
    dir
        The network folder; made on first use, resumed with all its data afterwards. Without it
        the nearest .lichen from here upwards, or a new one here.
    port
        The gateway's port (8080).
    detach
        Return once everything serves, and leave it running.
    fault
        Nodes that behave badly, such as slow=1,lazy=1.
    """
    from lichen.cli.network import command, plan, state
    from lichen.cli.network.folder import NetworkFolder

    root = (dir or profiles.find_folder() or Path(profiles.FOLDER)).absolute()
    folder = NetworkFolder(root)
    if state.is_running(folder.lock):
        running = command.wait_serving(folder)
        console.say(f"the network in {root} is already running")
        _show(running.urls, already=True)
        return
    _ensure_engines()
    if validators:
        _ensure_cometbft()
    folder = command.open_folder(root, nodes, port, fault, validators)
    urls = plan.urls(folder)
    if not detach:
        command.run_supervisor(folder, lambda: _announce(urls))
        return
    from lichen.cli.network import detach as background

    background.start(["up", "--dir", str(root), *_fault_flag(fault)], folder.log("supervisor"))
    _show(urls, already=False)


def down(
    *,
    dir: Path | None = None,  # noqa: A002 - the flag is called --dir
) -> None:
    """Stop the network of this folder and wait until every process is gone.

    Parameters
    ----------
    dir
        The network folder; by default the nearest .lichen from here upwards.
    """
    from lichen.cli.network import command
    from lichen.cli.network.folder import NetworkFolder

    root = dir.absolute() if dir is not None else profiles.find_folder()
    if root is None or not (root / profiles.PROFILE_FILE).is_file():
        raise NotFoundError(
            f"there is no network in {root or Path.cwd()}", hint="name its folder with --dir"
        )
    folder = NetworkFolder(root)
    with console.step(f"stop the network in {root}") as step:
        was_running, killed = command.stop(folder)
        if not was_running:
            step.done(f"the network in {root} was not running")
        elif killed:
            step.done(f"stopped the network; had to kill {', '.join(killed)}")
        else:
            step.done("stopped the network; no process is left")
    data = {"running": was_running, "killed": killed}
    console.emit(data, lambda: None)


def _ensure_engines() -> None:
    """Install the engines here, where somebody watches, and not in a child that must be quick."""
    from lichen.runtime import engines

    if not engines.status().installed:
        with console.step("install the engines") as step:
            engines.ensure(console.say)
            step.done("installed the engines")


def _ensure_cometbft() -> None:
    from lichen.ledger.comet import binary

    if binary.find() is None:
        with console.step("install CometBFT") as step:
            binary.install(console.say)
            step.done("installed CometBFT")


def _fault_flag(fault: str) -> list[str]:
    return ["--fault", fault] if fault else []


def _announce(urls: dict[str, str]) -> None:
    _show(urls, already=False)
    console.say("press Ctrl-C to stop")


def _show(urls: dict[str, str], *, already: bool) -> None:
    def human() -> None:
        console.fields(list(urls.items()))
        if not already:
            print("\nnext: lichen init hello && cd hello && lichen deploy")

    console.emit({"urls": urls, "already": already}, human)
