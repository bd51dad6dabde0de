"""Opening the keys of a profile: the vault, its password, and the account that signs."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from lichen.cli import profile as profiles
from lichen.errors import NotFoundError
from lichen.identity.passwords import find_password
from lichen.identity.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.cli.profile import Profile
    from lichen.identity import Address, PrivateKey


def vault(profile: Profile) -> Vault:
    """Return the profile's key vault."""
    return Vault(profiles.keys_folder(profile))


def password(profile: Profile, question: str) -> str:
    """Find the password: LICHEN_PASSWORD, the profile's file, or ask on a terminal."""
    return find_password(file=profile.password_file, prompt=_asker(question))


def new_password(profile: Profile, question: str) -> str:
    """Find the password for a new key; on a terminal it is asked for twice."""
    from lichen.errors import UserError

    def ask() -> str:
        first = getpass.getpass(f"{question}: ", stream=sys.stderr)
        if getpass.getpass("once more: ", stream=sys.stderr) != first:
            raise UserError("the two passwords differ", hint="run the command again")
        return first

    return find_password(file=profile.password_file, prompt=ask if sys.stdin.isatty() else None)


def signer(profile: Profile, name: str | None = None) -> PrivateKey:
    """Unlock the account that signs; raise NotFoundError when there is no key yet."""
    account = name or profile.account
    keys = vault(profile)
    if not any(entry.name == account for entry in keys.list()):
        raise NotFoundError(
            f"there is no key named {account!r} in {keys.folder}",
            hint=f"make one: lichen account new {account}",
        )
    return keys.unlock(account, password(profile, f"password of {account}"))


def address(profile: Profile, name: str | None = None) -> Address:
    """Return an account's address, without its password."""
    return vault(profile).show(name or profile.account).address


def resolve(profile: Profile, text: str) -> Address:
    """Read an address, or the name of a key of the vault."""
    from lichen.identity import Address

    return Address.parse(text) if text.startswith("0x") else address(profile, text)


def _asker(question: str) -> Callable[[], str] | None:
    if not sys.stdin.isatty():
        return None
    return lambda: getpass.getpass(f"{question}: ", stream=sys.stderr)
