"""The `lichen` command: global flags, the table of commands, and how each of them ends.

Commands are imported when they are called, so that `lichen --version` and the shell's completion
stay fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import lichen

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("Network", "up", "up:up", "Start a whole network on this machine."),
    ("Network", "down", "up:down", "Stop the network of this folder."),
    ("Network", "doctor", "doctor:doctor", "Say what works on this machine and mend the rest."),
    ("Network", "setup", "doctor:setup", "Install the engines that run functions."),
    ("Apps", "init", "init:init", "Make a project that deploys as it is."),
    ("Apps", "deploy", "deploy:deploy", "Bundle, store, register and route an app."),
    ("Apps", "rollback", "apps:rollback", "Make an earlier or later release the active one."),
    ("Apps", "releases", "apps:releases", "List an app's releases."),
    ("Apps", "ls", "apps:ls", "List the apps of an account."),
    ("Apps", "logs", "apps:logs", "Show what an app's functions wrote."),
    ("Runs", "call", "call:call", "Call a function and keep the receipt."),
    ("Runs", "verify", "verify:verify", "Check a receipt without any network."),
    ("Runs", "why", "call:why", "Tell the story of a run: placement, retries, bill."),
    ("Runs", "quote", "call:quote", "Tell what a run would cost at most, before it runs."),
    ("Money", "account", "account:app", "Keys and FLK."),
    ("Money", "market", "market:app", "The open market: nodes and prices."),
    ("Content", "storage", "storage:app", "Content by hash."),
    ("Content", "name", "name:app", "Names that stay while content changes."),
    ("Servers", "node", "node:app", "Offer this machine: run a node and watch it earn."),
    ("Servers", "ledger", "ledger:app", "Run the ledger, or prove what stands in it."),
    ("Servers", "gateway", "gateway:app", "Run a gateway."),
)
GLOBAL_FLAGS = (
    "Every command takes: --json (data on stdout, chatter on stderr), --profile NAME, "
    "--config FILE, --debug (tracebacks). Exit codes: 0 success, 1 user error, 2 usage, "
    "3 network or peer error, 4 verification failed."
)


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    if arguments in (["--version"], ["-V"]):
        print(f"lichen {lichen.__version__}")
        return 0
    from lichen.cli import failures, options

    try:
        chosen, rest = options.take(arguments)
        options.use(chosen)
        return _dispatch(rest)
    except BrokenPipeError:
        return _silence_stdout()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place to say it
        return failures.report(error)


def _dispatch(arguments: list[str]) -> int:
    from cyclopts import CycloptsError

    from lichen.cli.options import UsageError

    app = build_app()
    try:
        result = app(arguments)
    except CycloptsError as error:
        command = " ".join(["lichen", *(error.command_chain or ())])
        raise UsageError(
            str(error).replace("\n", " ").strip(), hint=f"see {command} --help"
        ) from error
    return result if isinstance(result, int) else 0


def build_app() -> App:
    """Return the whole tree of commands; each is imported when it is first needed."""
    from cyclopts import App, Group

    app = App(
        name="lichen",
        help=f"{lichen.__doc__}",
        help_epilogue=GLOBAL_FLAGS,
        version=f"lichen {lichen.__version__}",
        help_format="plaintext",
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        help_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    groups: dict[str, Group] = {}
    for group, name, target, text in COMMANDS:
        shown = groups.setdefault(group, Group.create_ordered(group))
        app.command(f"lichen.cli.{target}", name=name, help=text, group=shown)
    return app


def _silence_stdout() -> int:
    """End quietly when the reader went away, as in `lichen ls | head -1`."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
