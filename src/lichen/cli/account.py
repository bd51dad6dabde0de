"""`lichen account`: keys and FLK."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lichen.cli import connect, console, keys
from lichen.cli import profile as profiles

if TYPE_CHECKING:
    from lichen.identity.vault import VaultEntry
    from lichen.sdk.client import Client
    from lichen.units import Amount

app = App(name="account", help="Keys and FLK.")
SECRET_TEXT_MAX = 256


@app.command
def new(
    name: str = "default", /, *, kind: Literal["secp256k1", "ed25519", "p256"] = "secp256k1"
) -> None:
    """Make a key and keep it under a password. No network is needed.

    Parameters
    ----------
    name
        What to call the key on this machine.
    kind
        The signature scheme; a secp256k1 account is also an Ethereum account.
    """
    from lichen.identity import KeyKind

    profile = profiles.current()
    password = keys.new_password(profile, f"new password for {name}")
    keys.vault(profile).create(name, password, KeyKind[kind.upper()])
    _show_entries([keys.vault(profile).show(name)], None)


@app.command
def show(name: str | None = None, /) -> None:
    """Show one key or all of them, with their balances when the network answers.

    Parameters
    ----------
    name
        A key's name, or the address of any account.
    """
    profile = profiles.current()
    client = connect.reader(profile) if profile.gateway else None
    if name is not None and name.startswith("0x"):
        _show_address(name, client or connect.reader(profile))
        return
    vault = keys.vault(profile)
    entries = list(vault.list()) if name is None else [vault.show(name)]
    if not entries:
        console.say("there is no key yet; make one: lichen account new")
    _show_entries(entries, client)


@app.command(name="import")
def import_(name: str, /, *, file: Path | None = None) -> None:
    """Take over a secp256k1 key from a wallet: 64 hexadecimal digits, read from stdin or a file.

    Parameters
    ----------
    name
        What to call the key on this machine.
    file
        Where the digits are; stdin without it, so that they never stand on a command line.
    """
    import getpass

    profile = profiles.current()
    if file is not None:
        text = file.read_text(encoding="ascii")[:SECRET_TEXT_MAX]
    elif sys.stdin.isatty():
        text = getpass.getpass("private key (hexadecimal): ", stream=sys.stderr)
    else:
        text = sys.stdin.readline(SECRET_TEXT_MAX)
    password = keys.new_password(profile, f"new password for {name}")
    _show_entries([keys.vault(profile).import_hex(name, text, password)], None)


@app.command
def transfer(
    to: str,
    amount: str,
    /,
    *,
    account: Annotated[str | None, Parameter(name="--from")] = None,
) -> None:
    """Send FLK to an address, or to a key of this machine.

    Parameters
    ----------
    to
        An address, or a key's name.
    amount
        FLK, such as 1.5.
    account
        The key that pays; the profile's account without it.
    """
    from lichen.units import parse_flk

    profile = profiles.current()
    target, flk = keys.resolve(profile, to), parse_flk(amount)
    with connect.signer(profile, account) as client:
        result = client.transfer(target, flk)
    data = {"to": target, "amount": flk, "height": result.height, "id": result.id}
    text = f"sent {connect.flk(flk)} to {target} in block {result.height}"
    console.emit(data, lambda: print(text))


@app.command
def history(name: str | None = None, /, *, limit: int = 20) -> None:
    """Show what moved an account's balance, the newest first.

    Parameters
    ----------
    name
        A key's name or an address; the profile's account without it.
    limit
        How many entries.
    """
    profile = profiles.current()
    address = keys.resolve(profile, name or profile.account)
    with connect.reader(profile) as client:
        entries = client.history(address, limit=limit).items
    rows = [
        (
            connect.when(entry.time_ms),
            entry.kind,
            connect.flk(int(entry.change)),
            connect.flk(entry.balance),
        )
        for entry in entries
    ]
    console.emit(entries, lambda: console.table(("when", "what", ">change", ">balance"), rows))


def _show_address(text: str, client: Client) -> None:
    from lichen.identity import Address

    account = client.account(Address.parse(text))
    console.emit(
        account,
        lambda: console.fields(
            [("address", account.address), ("balance", connect.flk(account.balance))]
        ),
    )


def _balances(entries: list[VaultEntry], client: Client | None) -> list[Amount | None]:
    """Ask for balances; keys are shown without them where no network answers, and that is said."""
    from lichen.errors import PeerUnavailableError

    if client is None:
        return [None] * len(entries)
    try:
        return [client.account(entry.address).balance for entry in entries]
    except PeerUnavailableError as error:
        console.say(f"balances are unknown: {console.clean(error.what)}")
        return [None] * len(entries)


def _show_entries(entries: list[VaultEntry], client: Client | None) -> None:
    balances = _balances(entries, client)
    data = [
        {"name": entry.name, "kind": entry.kind, "address": entry.address, "balance": balance}
        for entry, balance in zip(entries, balances, strict=True)
    ]
    rows = [
        (entry.name, entry.address, entry.kind, "-" if balance is None else connect.flk(balance))
        for entry, balance in zip(entries, balances, strict=True)
    ]
    console.emit(data, lambda: console.table(("name", "address", "kind", ">balance"), rows))
