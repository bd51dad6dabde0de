"""An app's log lines, gathered from all nodes that its links lead to, as they come."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lichen.encoding import from_json, to_json
from lichen.errors import LichenError, PeerError
from lichen.gateway.api.views import LogLine
from lichen.identity import Address
from lichen.node.logbook import Entry
from lichen.wire.client import stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from lichen.gateway.links import Link

QUEUE_LINES_MAX = 1000
LINE_BYTES_MAX = 256 * 1024
IDLE_S_MAX = 3600.0


async def gather(links: Sequence[Link], *, follow: bool) -> AsyncIterator[bytes]:
    """Yield lines as JSON; without `follow` the kept ones, in the order of their time."""
    if follow:
        async for line in _follow(links):
            yield to_json(line)
        return
    lines: list[LogLine] = []
    for link in links:
        with contextlib.suppress(LichenError):
            lines += [line async for line in _read(link, follow=False)]
    for line in sorted(lines, key=lambda line: line.time_ms):
        yield to_json(line)


async def _follow(links: Sequence[Link]) -> AsyncIterator[LogLine]:
    queue: asyncio.Queue[LogLine] = asyncio.Queue(QUEUE_LINES_MAX)

    async def pump(link: Link) -> None:
        try:
            async for line in _read(link, follow=True):
                await queue.put(line)
            why = "the node ended the stream"
        except LichenError as error:
            why = error.what
        node = str(Address(link.peer.address))
        await queue.put(LogLine(0, node, "", "", "notice", f"no more lines from here: {why}"))

    async with asyncio.TaskGroup() as tasks:
        pumps = [tasks.create_task(pump(link)) for link in links]
        try:
            while not all(task.done() for task in pumps) or not queue.empty():
                yield await queue.get()
        finally:
            for task in pumps:
                task.cancel()


async def _read(link: Link, *, follow: bool) -> AsyncIterator[LogLine]:
    if not link.session:
        return
    headers = [
        (b"host", link.peer.host.encode()),
        (b"authorization", b"Bearer " + link.session),
    ]
    target = b"/v1/logs?follow=1" if follow else b"/v1/logs"
    node = str(Address(link.peer.address))
    rest = b""
    async with stream(
        link.peer.pool, b"GET", target, headers=headers, idle_s=IDLE_S_MAX
    ) as response:
        if response.status != 200:
            return
        async for chunk in response.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                entry = from_json(line, Entry)
                yield LogLine(
                    entry.time_ms, node, entry.function, entry.run or "", entry.level, entry.text
                )
            if len(rest) > LINE_BYTES_MAX:
                raise PeerError("the node sent an endless log line")
