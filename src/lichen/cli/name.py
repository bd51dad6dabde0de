"""`lichen name`: names that stay while content changes (IPNS), and what they stand for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from lichen.cli import connect, console, keys, name_files
from lichen.cli import profile as profiles
from lichen.errors import LichenError, NotFoundError, PeerError, UserError, VerificationError

if TYPE_CHECKING:
    from lichen.cli.profile import Profile
    from lichen.content.ipns import Name, Record
    from lichen.identity import PrivateKey
    from lichen.sdk.client import Client

app = App(name="name", help="Names that stay while content changes.")
RETRY_S = 60.0
EVERY_S_MIN = 1.0


@app.command
def publish(
    target: str,
    /,
    *,
    key: str | None = None,
    lifetime: str = "48h",
    ttl: str = "5m",
) -> None:
    """Let a key's name stand for content from now on.

    Parameters
    ----------
    target
        A CID, which may be followed by a path; another name: /ipns/NAME; or a file or folder, which
        is stored first.
    key
        The key whose name it is; the profile's account without it.
    lifetime
        How long the record holds; `lichen name keep` signs it again in time.
    ttl
        How long others may believe it before they ask again.
    """
    from lichen.sdk import names

    lifetime_s, ttl_s = _seconds(lifetime), _seconds(ttl)  # before anything is stored
    profile = profiles.current()
    chosen = key or profile.account
    secret = keys.signer(profile, chosen)
    with connect.signer(profile) if Path(target).exists() else connect.reader(profile) as client:
        record = names.publish(
            client,
            secret,
            _stored(client, target),
            now_ns=time.time_ns(),
            lifetime_s=lifetime_s,
            ttl_s=ttl_s,
            last=name_files.read(profile, chosen, _name_of(secret)),
        )
    name_files.write(profile, chosen, record)
    data = _view(_name_of(secret), record)
    console.emit(data, lambda: console.fields(list(data.items())))


@app.command
def resolve(name: str, /) -> None:
    """Say what a name, or a domain with a DNSLink, stands for now; a key's record is verified.

    Parameters
    ----------
    name
        A name (k51..., 12D3KooW...) or a domain.
    """
    from lichen.content.ipns import verify_record

    name = name.removeprefix("/ipns/").removeprefix("ipns://")
    data: dict[str, object] = {}
    with connect.reader() as client:
        if "." not in name:
            key = _parse(name)
            encoded = client.name_record(key)
            if encoded is None:
                raise NotFoundError(
                    f"the gateway has no record of {key}", hint="lichen name import or publish"
                )
            data = _view(key, verify_record(key, encoded, time.time_ns()))
        found = client.name(name)
    data |= {"name": name, "path": found.path, "ttl_s": found.ttl_s}
    console.emit(data, lambda: print(console.clean(found.path)))


@app.command(name="import")
def import_(
    files: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    name: str | None = None,
) -> None:
    """Give the gateway records that were signed elsewhere.

    Parameters
    ----------
    files
        Records, each called NAME.ipns-record (whatever follows NAME_ in a file's name is for you).
    name
        The name that one record is of, where its file does not say so.
    """
    from lichen.content.ipns import RECORD_BYTES_MAX, verify_record

    if name is not None and len(files) > 1:
        raise UserError("--name is for one file", hint="call the files NAME.ipns-record")
    taken: list[dict[str, object]] = []
    refused: list[str] = []
    with connect.reader() as client:
        for file in files:
            with file.open("rb") as stream:
                encoded = stream.read(RECORD_BYTES_MAX + 1)
            try:
                of = _parse(name or file.name.partition(".")[0].partition("_")[0])
                record = verify_record(of, encoded, time.time_ns())
                counts = client.publish_name(of, record.encoded)
            except PeerError:
                raise
            except LichenError as error:
                console.say(f"{file.name}: {error.what}")
                refused.append(file.name)
            else:
                taken.append({"file": file.name, **_view(of, record), "newest": counts})
    rows = [(row["name"], row["value"], "yes" if row["newest"] else "no") for row in taken]
    console.emit(taken, lambda: console.table(("name", "value", "newest"), rows))
    if refused:
        raise VerificationError(
            f"{len(refused)} of {len(files)} records were refused",
            hint="each one is named above, with what is wrong with it",
        )


@app.command
def keep(
    names: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    /,
    *,
    lifetime: str = "48h",
    every: str = "1h",
    once: bool = False,
) -> None:
    """Sign the records of your names again before they end, for as long as this runs.

    Parameters
    ----------
    names
        The keys; all that were published from here without any.
    lifetime
        How long a record holds that is signed again, which happens when half of it is over.
    every
        How often to look.
    once
        Look once, and end: for timers.
    """
    lifetime_s = _seconds(lifetime)
    profile = profiles.current()
    pause_s = max(float(_seconds(every)), EVERY_S_MIN)
    chosen = names or name_files.published(profile)
    if not chosen:
        raise NotFoundError("no name was published from here", hint="lichen name publish CID")
    secrets = {name: keys.signer(profile, name) for name in chosen}
    while True:
        is_done = True
        for name, secret in secrets.items():
            is_done = _keep(profile, name, secret, lifetime_s, fails=once) and is_done
        if once:
            return
        time.sleep(pause_s if is_done else min(pause_s, RETRY_S))


@app.command
def ls() -> None:
    """List the keys of the vault with their names, and what they were published for from here."""
    from lichen.content.ipns import Name
    from lichen.content.ipns_time import NS_PER_S
    from lichen.content.libp2p_key import public_key

    profile = profiles.current()
    data, rows = [], []
    for entry in keys.vault(profile).list():
        name = Name.of(public_key(entry.public_key))
        record = name_files.read(profile, entry.name, name)
        said = {} if record is None else _view(name, record)
        data.append({"key": entry.name, "name": str(name), **said})
        ends = "-" if record is None else connect.when(record.eol_ns // (NS_PER_S // 1000))
        rows.append((entry.name, name, "-" if record is None else record.value, ends))
    console.emit(data, lambda: console.table(("key", "name", "value", "ends"), rows))


def _stored(client: Client, target: str) -> str:
    """Return a target's content path; a file or folder is stored, unless its name is a CID."""
    from lichen.cli.storage import store
    from lichen.content.profile import V1_2025
    from lichen.sdk import names

    try:
        return names.path_of(target)
    except UserError as error:
        if not Path(target).exists():
            raise UserError(
                f"there is no file or folder {target}, and {error.what}", hint=error.hint
            ) from error
    return f"/ipfs/{store(client, target, V1_2025)[0]}"


def _keep(profile: Profile, name: str, secret: PrivateKey, lifetime_s: int, *, fails: bool) -> bool:
    """Keep one name fresh; tell whether that could be done."""
    from lichen.sdk import names

    last = name_files.read(profile, name, _name_of(secret))
    try:
        with connect.reader(profile) as client:
            record = names.keep(client, secret, last, now_ns=time.time_ns(), lifetime_s=lifetime_s)
    except LichenError as error:
        if fails:
            raise
        console.say(f"{name}: {error.what}; will be tried again")
        return False
    if record is None:
        console.say(f"{name} was never published")
    elif last is None or record.encoded != last.encoded:
        name_files.write(profile, name, record)
        view = _view(_name_of(secret), record)
        console.emit_line(view, f"{name}: {view['value']} holds until {view['ends']}")
    return True


def _seconds(text: str) -> int:
    from lichen.cli.project.manifest import parse_duration_ms

    return max(1, parse_duration_ms(text) // 1000)


def _parse(text: str) -> Name:
    from lichen.content.ipns import Name

    return Name.parse(text)


def _name_of(secret: PrivateKey) -> Name:
    from lichen.content.ipns import Name
    from lichen.content.libp2p_key import public_key

    return Name.of(public_key(secret))


def _view(name: Name, record: Record) -> dict[str, object]:
    from lichen.content.ipns_time import NS_PER_S, spell_time

    return {
        "name": str(name),
        "value": record.value,
        "sequence": record.sequence,
        "ends": spell_time(record.eol_ns).decode(),
        "ttl_s": record.ttl_ns // NS_PER_S,
    }
