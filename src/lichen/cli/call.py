"""`lichen call`, `why` and `quote`: one run, its story and its price."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lichen.cli import connect, console
from lichen.cli.options import UsageError
from lichen.errors import NotFoundError, PeerError, UserError

if TYPE_CHECKING:
    from lichen.gateway.api.views import FunctionQuote, Why
    from lichen.sdk.client import CallResult, Client

PROBLEM = "application/problem+json"
DATA_BYTES_MAX = 64 * 2**20


def call(
    target: str,
    /,
    *,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    method: str | None = None,
    header: Annotated[list[str] | None, Parameter(name=("--header", "-H"))] = None,
    verify: str = "none",
    receipt: Path | None = None,
) -> None:
    """Call a function, print its answer, and keep the receipt of the run.

    Parameters
    ----------
    target
        app/path, or a URL.
    data
        The request's body; @FILE reads a file, - reads stdin.
    method
        The HTTP method; POST when there is data, else GET.
    header
        A request header, as Name: value; may be repeated.
    verify
        How the result is checked; so far only none.
    receipt
        Where to keep the signed receipt.
    """
    if verify != "none":
        raise UserError(
            f"this network does not offer verification {verify!r} yet", hint="use --verify none"
        )
    body = _read_data(data)
    headers = _parse_headers(header or [])
    if data is not None:
        headers.setdefault("content-type", _guess_type(body))
    with connect.reader() as client:
        result = client.call(target, method or ("GET" if data is None else "POST"), body, headers)
        if receipt is not None:
            _keep_receipt(client, result, receipt)
    _show(result, receipt)
    _require_success(target, result)


def why(run: str, /) -> None:
    """Tell the story of a run: placement, refusals, retries, bill.

    Parameters
    ----------
    run
        The run's id, as in the Lichen-Run header.
    """
    with connect.reader() as client:
        told = client.why(run)
    console.emit(told, lambda: _tell(told))


def quote(target: str, /, *, verify: str = "none") -> None:
    """Tell what a run would cost, typically and at the very most, before it runs.

    Parameters
    ----------
    target
        What `lichen call` takes (app/path), or app/function.
    verify
        How the result would be checked; so far only none.
    """
    with connect.reader() as client:
        found = client.quote(_function_of(client, target), verify)
    console.emit(found, lambda: _show_quote(found))


def _function_of(client: Client, target: str) -> str:
    """Return `app/function` for a function's name, or for the path that it answers on."""
    from lichen.ledger.views import match_route

    app, _, rest = target.strip("/").partition("/")
    release = client.app(app).release
    if release is None or rest in {function.name for function in release.functions}:
        return f"{app}/{rest}".rstrip("/")
    return f"{app}/{match_route(release, '/' + rest).name}"


def _read_data(data: str | None) -> bytes:
    if data is None:
        return b""
    if data == "-":
        body = sys.stdin.buffer.read(DATA_BYTES_MAX + 1)
    elif data.startswith("@"):
        with Path(data[1:]).open("rb") as stream:
            body = stream.read(DATA_BYTES_MAX + 1)
    else:
        body = data.encode()
    if len(body) > DATA_BYTES_MAX:
        raise UserError("the data is over 64 MiB", hint="send it with another tool, such as curl")
    return body


def _parse_headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"{line!r} is not a header", hint="write --header 'Name: value'")
        headers[name.strip().lower()] = value.strip()
    return headers


def _guess_type(body: bytes) -> str:
    return "application/json" if body.lstrip()[:1] in (b"{", b"[") else "application/octet-stream"


def _keep_receipt(client: Client, result: CallResult, path: Path) -> None:
    from lichen.market.receipt import write_receipt

    if not result.run:
        raise NotFoundError(
            "there is no receipt: the answer was content, not a run",
            hint="content is checked by its CID",
        )
    path.write_bytes(write_receipt(client.receipt(result.run)))


def _show(result: CallResult, receipt: Path | None) -> None:
    def human() -> None:
        if result.header("content-type").startswith(PROBLEM):
            return  # said in words afterwards
        sys.stdout.flush()
        sys.stdout.buffer.write(result.body)
        if sys.stdout.isatty() and not result.body.endswith(b"\n"):
            print()
        if result.run:
            told = f"run {result.run} on node {result.node}, status {result.status}"
            console.say(console.clean(told))
        if receipt is not None:
            console.say(f"receipt kept in {receipt}; check it: lichen verify {receipt}")

    data = {
        "status": result.status,
        "run": result.run,
        "node": result.node,
        "headers": result.headers,
        **_body_fields(result.body),
        "receipt": None if receipt is None else str(receipt),
    }
    console.emit(data, human)


def _require_success(target: str, result: CallResult) -> None:
    """Turn a bad answer into an error: the network's own with its reason, a function's as it is."""
    if result.status < 400:
        return
    if result.header("content-type").startswith(PROBLEM):
        from lichen.sdk.problems import error_of

        raise error_of(result.status, result.body)
    if result.status >= 500:
        raise PeerError(
            f"{target} answered {result.status}",
            hint=f"see: lichen why {result.run}" if result.run else "see: lichen doctor",
        )
    raise UserError(f"{target} answered {result.status}", hint="check path, method and data")


def _body_fields(body: bytes) -> dict[str, object]:
    """Return the body as text where it is UTF-8, else in base64."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": body}


def _tell(told: Why) -> None:
    for line in told.story:
        print(console.clean(line))


def _show_quote(found: FunctionQuote) -> None:
    rows = [
        (node.node, connect.flk(node.typical), connect.flk(node.ceiling)) for node in found.nodes
    ]
    console.table(("node", ">typical", ">at most"), rows, title=found.function)
    if found.refused:
        print(f"left out: {console.clean(found.refused)}")
