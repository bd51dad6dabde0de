"""Hands one tenant's code to the one process that was claimed for it.

Each process has a socket of its own, so which code it gets is not up to what it asks for. The
answer is an HTTP/1.1 response whose body is a 4-byte length, that many bytes of JSON
({compatibilityDate, compatibilityFlags, env}), and the bundled main module.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any, Final

import msgspec

from lichen.runtime.config import COMPATIBILITY_DATE

REQUEST_BYTES_MAX: Final = 16 * 1024
REQUEST_S_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 4

_NOT_CLAIMED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def pack_code(code: bytes, env: dict[str, Any], *, node_compat: bool) -> tuple[bytes, bytes]:
    """Return what goes before the code (HTTP head, length, JSON) and the code itself."""
    spec = msgspec.json.encode(
        {
            "compatibilityDate": COMPATIBILITY_DATE,
            "compatibilityFlags": ["nodejs_compat" if node_compat else "nodejs_als"],
            "env": env,
        }
    )
    size = 4 + len(spec) + len(code)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
    return head + len(spec).to_bytes(4, "big") + spec, code


class CodeServer:
    """Serves at a unix socket whatever was last offered."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offer: tuple[bytes, bytes] | None = None
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Listen. The folder above decides who can connect; the sandboxed uid must be able to."""
        self._server = await asyncio.start_unix_server(
            self._serve, self._path, limit=REQUEST_BYTES_MAX
        )
        os.chmod(self._path, 0o666)  # noqa: S103  # see docstring

    def offer(self, packed: tuple[bytes, bytes]) -> None:
        """Answer with this from now on."""
        self._offer = packed

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        with suppress(OSError):  # never made, or its folder is gone
            os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S_MAX):
                    await self._answer(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # the process at the other end broke off or misbehaved
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.writelines(self._offer or (_NOT_CLAIMED,))
        await writer.drain()
