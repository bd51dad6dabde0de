"""The flags that every command takes, wherever they stand on the command line."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from lichen.errors import UserError

END_OF_FLAGS = "--"


class UsageError(UserError):
    """The command line itself is wrong."""

    code = "usage"
    exit_code = 2


class Options(msgspec.Struct, frozen=True):
    """What the global flags ask for.

    `json` puts data on stdout as JSON, `profile` names a profile of the configuration file,
    `config` is that file, `debug` shows tracebacks.
    """

    json: bool = False
    profile: str | None = None
    config: Path | None = None
    debug: bool = False


_SWITCHES = {"--json": "json", "--debug": "debug"}
_VALUES = {"--profile": "profile", "--config": "config"}
_current = Options()


def take(arguments: list[str]) -> tuple[Options, list[str]]:
    """Split the global flags off the arguments; what follows `--` is left alone."""
    found: dict[str, object] = {"profile": os.environ.get("LICHEN_PROFILE") or None}
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        flag, equals, value = argument.partition("=")
        if argument == END_OF_FLAGS:
            return _options(found), [*rest, argument, *queue]
        if argument in _SWITCHES:
            found[_SWITCHES[argument]] = True
        elif flag in _VALUES:
            if not equals and not queue:
                raise UsageError(f"{flag} needs a value", hint=f"write {flag} VALUE")
            found[_VALUES[flag]] = value if equals else queue.pop(0)
        else:
            rest.append(argument)
    return _options(found), rest


def _options(found: dict[str, object]) -> Options:
    config = found.pop("config", None)
    return msgspec.convert({**found}, Options) if config is None else _with_config(found, config)


def _with_config(found: dict[str, object], config: object) -> Options:
    return msgspec.structs.replace(msgspec.convert(found, Options), config=Path(str(config)))


def use(options: Options) -> None:
    """Make these the options of this process."""
    global _current  # noqa: PLW0603 - one command per process, set once before it runs
    _current = options


def current() -> Options:
    """Return the options of this process."""
    return _current
