"""Bodies that are read whole, before anybody knows whose they are: bounded each, and together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from lichen.wire.errors import BodyTooLargeError, BusyError, RequestTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

BODIES_BYTES_MAX: Final = 128 << 20  # of all bodies that are being read or worked on
BODY_S_MAX: Final = 30.0  # from its first byte to its last


class Bodies:
    """The memory that all bodies of this process share."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX, body_s_max: float = BODY_S_MAX) -> None:
        self._bytes_max = bytes_max
        self._body_s_max = body_s_max
        self.held_bytes = 0

    @contextlib.asynccontextmanager
    async def whole(self, request: Request, bytes_max: int) -> AsyncIterator[bytes]:
        """Read a body of at most `bytes_max`; what it takes counts until the block ends.

        Raises BodyTooLargeError, BusyError when there is no memory left, RequestTimeoutError.
        """
        parts: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(self._body_s_max):
                    async for part in request.stream():
                        size += len(part)
                        self.held_bytes += len(part)
                        self._check(size, bytes_max)
                        parts.append(part)
            except TimeoutError as error:
                raise RequestTimeoutError(
                    f"the body did not come within {self._body_s_max:.0f} s", hint="send it at once"
                ) from error
            yield b"".join(parts)
        finally:
            self.held_bytes -= size

    def _check(self, size: int, bytes_max: int) -> None:
        if size > bytes_max:
            raise BodyTooLargeError(
                f"the body is over {bytes_max} bytes", hint="send it in smaller pieces"
            )
        if self.held_bytes > self._bytes_max:
            raise BusyError("too many bodies are being read here", hint="try again shortly")


BODIES: Final = Bodies()
