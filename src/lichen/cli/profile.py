"""Which network and which account a command means.

In this order: `--profile NAME` (or LICHEN_PROFILE) in the configuration file; the nearest `.lichen`
folder from the current one upwards; the configuration file's `default` profile. The configuration
file is `~/.config/lichen/config.toml`, or `--config FILE`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from lichen.cli import options
from lichen.cli.project.reader import Reader
from lichen.errors import NotFoundError

FOLDER = ".lichen"
PROFILE_FILE = "profile.toml"
CONFIG_BYTES_MAX = 1024 * 1024

T = TypeVar("T", bound=msgspec.Struct)


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network as seen from the command line. Paths are relative to the file they stand in.

    `gateway` and `ledger` are URLs, `genesis` a file, `keys` the folder of the key vault, `account`
    the key that signs, `password_file` what opens it without asking.
    """

    gateway: str = ""
    ledger: str = ""
    genesis: Path | None = None
    keys: Path | None = None
    account: str = "default"
    password_file: Path | None = None

    def placed(self, folder: Path) -> Profile:
        """Return the profile with its paths seen from `folder`."""
        return msgspec.structs.replace(
            self,
            genesis=_placed(folder, self.genesis),
            keys=_placed(folder, self.keys),
            password_file=_placed(folder, self.password_file),
        )


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration file: named profiles, and the one that counts when none is named."""

    default: str = ""
    profiles: dict[str, Profile] = {}


def current() -> Profile:
    """Return the profile of this command; an empty one when none is set up anywhere."""
    chosen = options.current()
    config_path = chosen.config or user_folder() / "config.toml"
    if chosen.config is not None and not config_path.is_file():
        raise NotFoundError(f"there is no {config_path}", hint="check --config")
    config = _read(config_path, Config) if config_path.is_file() else Config()
    if chosen.profile is not None:
        return _named(config, chosen.profile, config_path)
    folder = find_folder()
    if folder is not None and chosen.config is None:
        return _read(folder / PROFILE_FILE, Profile).placed(folder)
    if config.default:
        return _named(config, config.default, config_path)
    return Profile()


def user_folder() -> Path:
    """Return the folder of this user's configuration and keys."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "lichen"


def keys_folder(profile: Profile) -> Path:
    """Return where the profile's keys are: its own folder, or the user's."""
    return profile.keys or user_folder() / "keys"


def find_folder(start: Path | None = None) -> Path | None:
    """Return the nearest network folder from `start` upwards that a network was made in."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FOLDER / PROFILE_FILE).is_file():
            return folder / FOLDER
    return None


def require_gateway(profile: Profile) -> str:
    """Return the gateway's URL; raise NotFoundError when no network is set up."""
    return _require(profile.gateway, "gateway")


def require_ledger(profile: Profile) -> str:
    """Return the ledger's URL; raise NotFoundError when no network is set up."""
    return _require(profile.ledger, "ledger")


def _require(url: str, name: str) -> str:
    if not url:
        raise NotFoundError(
            "no network here: there is no .lichen folder from here upwards, and no profile",
            hint=f"start one with: lichen up   (or name a {name} in a --profile)",
        )
    return url.rstrip("/")


def _named(config: Config, name: str, path: Path) -> Profile:
    if name not in config.profiles:
        near = difflib.get_close_matches(name, config.profiles, n=1)
        known = ", ".join(sorted(config.profiles)) or "none"
        raise NotFoundError(
            f"there is no profile {name!r} in {path}",
            hint=f"did you mean {near[0]!r}?" if near else f"its profiles: {known}",
        )
    return config.profiles[name].placed(path.parent)


def _read(path: Path, kind: type[T]) -> T:
    return Reader(str(path), path.read_text(encoding="utf-8")[:CONFIG_BYTES_MAX]).read(kind)


def _placed(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path.expanduser()
