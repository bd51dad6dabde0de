"""CometBFT's JSON-RPC, over its socket: as much as handing over transactions takes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from lichen.errors import PeerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_S = 15.0
CONNECTIONS_MAX = 4
_EVERYWHERE = ("0.0.0.0", "[::]")
_IN_CACHE = "tx already exists in cache"


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    data: str = ""


class _Answer(msgspec.Struct, frozen=True):
    id: int
    error: _Error | None = None
    result: Any = None


class Rpc:
    """Calls one CometBFT. Close it."""

    def __init__(self, address: str) -> None:
        """Take the path of its socket, or host and port."""
        at_socket = address.startswith("/")
        transport = httpx.AsyncHTTPTransport(
            uds=address if at_socket else None,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
        )
        host, _, port = address.rpartition(":")
        host = "127.0.0.1" if host in _EVERYWHERE else host
        url = "http://cometbft/" if at_socket else f"http://{host}:{port}/"
        self._http = httpx.AsyncClient(
            base_url=url, transport=transport, timeout=ANSWER_S, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def takes_transactions(self) -> bool:
        """Tell whether CometBFT has started and has the blocks that its peers have."""
        try:
            (answer,) = await self._call([{"method": "status", "params": {}}])
            return not answer.result["sync_info"]["catching_up"]
        except (PeerUnavailableError, KeyError, TypeError):
            return False

    async def hand_over(self, raws: Sequence[bytes]) -> list[str]:
        """Hand transactions over, in order; per transaction why it was not taken, or nothing.

        Taken means: CometBFT asks the application about it now, or has done so already.
        """
        calls = [
            {"method": "broadcast_tx_async", "params": {"tx": base64.b64encode(raw).decode()}}
            for raw in raws
        ]
        answers = await self._call(calls)
        return ["" if one.error is None else _reason(one.error) for one in answers]

    async def _call(self, calls: list[dict[str, Any]]) -> list[_Answer]:
        batch = [{"jsonrpc": "2.0", "id": index, **call} for index, call in enumerate(calls)]
        try:
            response = await self._http.post("/", content=msgspec.json.encode(batch))
            body = response.content
            # one answer comes without a list around it
            answers = msgspec.json.decode(
                body if body.startswith(b"[") else b"[" + body + b"]", type=list[_Answer]
            )
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise PeerUnavailableError(
                f"CometBFT does not answer: {error!r}", hint="its log says why; try again"
            ) from error
        if len(answers) != len(calls):
            raise PeerUnavailableError("CometBFT did not answer every call", hint="try again")
        return answers


def _reason(error: _Error) -> str:
    text = error.data or error.message or "no reason given"
    return "" if _IN_CACHE in text else text
