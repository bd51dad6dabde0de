"""`lichen storage`: content by hash."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from lichen.cli import connect, console
from lichen.errors import UserError, VerificationError

if TYPE_CHECKING:
    from lichen.cli.project.pack import Pack
    from lichen.content import CID
    from lichen.content.importer import Root

app = App(name="storage", help="Content by hash.")
CAR_BYTES_MAX = 2 * 2**30
READ_BYTES = 256 * 1024


@app.command
def add(
    path: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    import_profile: str = "unixfs-v1-2025",
    hidden: bool = False,
) -> None:
    """Store a file, a folder or stdin (-), and print its CID. A .car is imported as it is.

    Parameters
    ----------
    path
        A file, a folder, or - for stdin.
    import_profile
        unixfs-v1-2025 or unixfs-v0-2015: what decides the CID.
    hidden
        Take files whose names begin with a dot, too.
    """
    from lichen.cli.project.pack import Pack
    from lichen.content.profile import profile_named

    if path.endswith(".car"):
        _add_car(Path(path))
        return
    with Pack(profile_named(import_profile), with_hidden=hidden) as pack:
        root = pack.add_stream(sys.stdin.buffer) if path == "-" else pack.add(Path(path))
        with connect.signer() as client, console.step(f"store {pack.size:,} bytes"):
            stored = client.upload_car(pack.parts(root.cid))
        if stored.roots != (root.cid,):
            raise VerificationError(
                f"the gateway stored {stored.roots}, not {root.cid}", hint="use another gateway"
            )
        _print_root(root, pack)


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
        blocks = fetch.blocks_of(client)
        if form is not None:
            cid, data = fetch.read_block(blocks, target, form)
            fetch.write_bytes(data, output)
            if output is not None:
                _say_written(cid, 1, output)
            return
        entry = fetch.locate(blocks, target)
        files = fetch.write(blocks, entry, output)
    if output is not None:
        _say_written(entry.cid, files, output)


@app.command
def ls(target: str, /) -> None:
    """List a folder.

    Parameters
    ----------
    target
        A CID, which may be followed by a path.
    """
    from lichen.cli.project import fetch
    from lichen.content import reader

    with connect.reader() as client:
        blocks = fetch.blocks_of(client)
        entry = fetch.locate(blocks, target)
        if not entry.is_directory:
            raise UserError(f"{target} is no folder", hint="fetch it: lichen storage get")
        entries = list(reader.list_directory(blocks, entry.cid))
    rows = [(console.clean(e.name), e.cid, e.total_bytes or "-") for e in entries]
    console.emit(entries, lambda: console.table(("name", "cid", ">bytes"), rows))


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
    pairs = [("cid", found.cid), ("bytes", f"{found.bytes:,}"), ("codec", found.codec)]
    console.emit(found, lambda: console.fields(pairs))


def _add_car(path: Path) -> None:
    if path.stat().st_size > CAR_BYTES_MAX:
        raise UserError(f"{path} is over 2 GiB", hint="split it")
    with connect.signer() as client, console.step(f"import {path}"), path.open("rb") as stream:
        stored = client.upload_car(iter(lambda: stream.read(READ_BYTES), b""))
    data = [{"cid": root, "bytes": stored.bytes, "files": None} for root in stored.roots]

    def human() -> None:
        for root in stored.roots:
            print(root)

    console.emit(data[0] if len(data) == 1 else data, human)


def _say_written(cid: CID, files: int, output: Path) -> None:
    data = {"cid": cid, "files": files, "output": str(output)}
    console.emit(data, lambda: print(f"{files} files checked and written to {output}"))


def _print_root(root: Root, pack: Pack) -> None:
    data = {"cid": root.cid, "bytes": pack.size, "files": pack.files}
    console.emit(data, lambda: print(root.cid))
