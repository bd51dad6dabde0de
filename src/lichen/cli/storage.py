"""`lichen storage`: content by hash."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from lichen.cli import connect, console
from lichen.cli.progress import progress
from lichen.content.blocks import MissingBlockError
from lichen.errors import PeerUnavailableError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lichen.cli.project.stream import StreamedBlocks
    from lichen.content import CID
    from lichen.content.profile import Profile
    from lichen.gateway.api.views import PinView
    from lichen.sdk.adding import BlockSource
    from lichen.sdk.client import Client

app = App(name="storage", help="Content by hash.")


def _no_option(_type: object, path: str) -> None:
    """Refuse a mistyped option that stands where the path goes; `-` alone is stdin."""
    if path.startswith("-") and path != "-":
        raise ValueError("unknown option; of a file called so write ./ before its name")


@app.command
def add(
    path: Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)],
    /,
    *,
    import_profile: str = "unixfs-v1-2025",
    hidden: bool = False,
) -> None:
    """Store and pin a file, a folder or stdin (-), and print its CID. A .car is imported as it is.

    Only what the gateway lacks is sent: run it again after an interruption, or a change.

    Parameters
    ----------
    path
        A file, a folder, or - for stdin. Symlinks in a folder are kept as symlinks.
    import_profile
        unixfs-v1-2025 or unixfs-v0-2015: what decides the CID.
    hidden
        Take files whose names begin with a dot, too.
    """
    from lichen.content.profile import profile_named

    profile = profile_named(import_profile)
    with connect.signer() as client:
        if path.endswith(".car") and not os.path.isdir(path):
            _add_car(client, Path(path))
        else:
            _add_files(client, path, profile, hidden=hidden)


@app.command
def get(
    target: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    form: Annotated[str | None, Parameter(name="--format")] = None,
) -> None:
    """Fetch content, check every block against its hash, and write it out.

    Parameters
    ----------
    target
        A CID, which may be followed by a path: CID/docs/readme.md.
    output
        The file or folder to write; a file goes to stdout without it.
    form
        Not the content but its one block, as dag-json, dag-cbor, dag-pb, or as it is (raw).
    """
    from lichen.cli.project import fetch

    with connect.reader() as client:
        if form is not None:
            cid, data = fetch.read_block(fetch.blocks_of(client), target, form)
            fetch.write_bytes(data, output)
            if output is not None:
                _say_written(cid, 1, output)
        elif output is None:
            _fetch(fetch.blocks_of(client), target, None)
        else:
            with progress(f"fetch {target}") as update:
                blocks = fetch.blocks_of(client, lambda done: update(done, None))
                cid, files = _fetch(blocks, target, output)
            _say_written(cid, files, output)


@app.command
def ls(target: str | None = None, /) -> None:
    """List a folder, or without one what your account pins at the gateway.

    Parameters
    ----------
    target
        A CID, which may be followed by a path.
    """
    from lichen.cli.project import fetch
    from lichen.content import reader

    if target is None:
        _list_pins()
        return
    with connect.reader() as client:
        blocks = fetch.blocks_of(client, scope="entity")
        entry = fetch.locate(blocks, target)
        if not entry.is_directory:
            raise UserError(f"{target} is no folder", hint="fetch it: lichen storage get")
        blocks.follow(entry.cid)
        entries = list(reader.list_directory(blocks, entry.cid))
    rows = [(console.clean(e.name), e.cid, e.total_bytes or "-") for e in entries]
    console.emit(entries, lambda: console.table(("name", "cid", ">bytes"), rows))


@app.command
def pin(cid: str, /) -> None:
    """Have the gateway keep content for your account; what it lacks it fetches.

    Parameters
    ----------
    cid
        The CID.
    """
    with connect.signer() as client, console.step(f"pin {cid}"):
        found = client.pin(cid)
    if found.missing:
        raise MissingBlockError(found.missing[0])
    console.emit(found, lambda: print(f"{found.cid}  {found.bytes:,} bytes"))


@app.command
def rm(cid: str, /) -> None:
    """Let go of your account's pin of a CID. The gateway may then forget the content.

    Parameters
    ----------
    cid
        The CID.
    """
    with connect.signer() as client:
        found = client.unpin(cid)
    console.emit(found, lambda: print(f"{found.cid} is no longer pinned by you"))


@app.command
def status(cid: str, /) -> None:
    """Say what the gateway's store knows about a CID.

    Parameters
    ----------
    cid
        The CID.
    """
    with connect.reader() as client:
        found = client.storage(cid)
    pairs = [
        ("cid", found.cid),
        ("bytes", f"{found.bytes:,}"),
        ("codec", found.codec),
        ("pinned", "yes" if found.pinned else "no"),
    ]
    console.emit(found, lambda: console.fields(pairs))


def _fetch(blocks: StreamedBlocks, target: str, output: Path | None) -> tuple[CID, int]:
    """Write content out; return its CID and the number of files."""
    from lichen.cli.project import fetch

    entry = fetch.locate(blocks, target)
    blocks.follow(entry.cid)
    return entry.cid, fetch.write(blocks, entry, output)


def _add_files(client: Client, path: str, profile: Profile, *, hidden: bool) -> None:
    cid, size, files = store(client, path, profile, hidden=hidden)
    data = {"cid": cid, "bytes": size, "files": files}
    console.emit(data, lambda: print(cid))


def store(
    client: Client, path: str, profile: Profile, *, hidden: bool = False
) -> tuple[CID, int, int]:
    """Store and pin a file, a folder or stdin; return its CID, its bytes and files."""
    from lichen.cli.project.pack import Pack

    total = os.path.getsize(path) if os.path.isfile(path) else None
    with contextlib.ExitStack() as stack:
        with progress("read stdin" if path == "-" else f"read {path}") as update:
            pack = stack.enter_context(
                Pack(profile, with_hidden=hidden, as_is=True, progress=lambda n: update(n, total))
            )
            root = pack.add_stream(sys.stdin.buffer) if path == "-" else pack.add(Path(path))
        _send(client, pack, [root.cid])
        return root.cid, pack.size, pack.files


def _add_car(client: Client, path: Path) -> None:
    from lichen.cli.project.pack import CarPack

    with contextlib.ExitStack() as stack:
        total = path.stat().st_size if path.exists() else None
        with progress(f"read {path}") as update:
            pack = stack.enter_context(CarPack(path, lambda done: update(done, total)))
        _send(client, pack, pack.roots)
        data = [{"cid": root, "bytes": pack.size, "files": None} for root in pack.roots]

    def human() -> None:
        for root in pack.roots:
            print(root)

    console.emit(data[0] if len(data) == 1 else data, human)


def _send(client: Client, source: BlockSource, roots: Sequence[CID]) -> None:
    """Bring blocks to the gateway and pin them; say what is incomplete."""
    from lichen.sdk.adding import send

    with _resumable(), progress(f"store {source.blocks_bytes:,} bytes") as update:
        sent = send(client, source, roots, update)
    if sent.bytes < source.blocks_bytes:
        console.say(f"  {sent.bytes:,} bytes were sent, the gateway had the rest")
    for kept in sent.pins:
        if kept.missing:
            console.say(
                f"  {kept.cid} is incomplete and kept for a day only: block {kept.missing[0]} "
                "is neither here nor at the gateway"
            )


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Say of what ends an upload before its time that the same command goes on with it."""
    try:
        yield
    except (KeyboardInterrupt, PeerUnavailableError):
        console.say("  what the gateway has is kept for a day: the same command sends the rest")
        raise


def _say_written(cid: CID, files: int, output: Path) -> None:
    data = {"cid": cid, "files": files, "output": str(output)}
    console.emit(data, lambda: print(f"{files} files checked and written to {output}"))


def _list_pins() -> None:
    with connect.signer() as client:
        page = client.pins()
        pins = list(page.items)
        while page.cursor is not None:
            page = client.pins(page.cursor)
            pins += page.items
    data = {
        "pins": pins,
        "pinned_bytes": page.pinned_bytes,
        "pinned_bytes_max": page.pinned_bytes_max,
    }

    def human() -> None:
        rows = [(p.cid, f"{p.bytes:,}", connect.when(p.added_ms), _until(p)) for p in pins]
        console.table(("cid", ">bytes", "added", "until"), rows)
        print(f"{page.pinned_bytes:,} of {page.pinned_bytes_max:,} bytes")

    console.emit(data, human)


def _until(pin: PinView) -> str:
    return "" if pin.expires_ms is None else connect.when(pin.expires_ms)
