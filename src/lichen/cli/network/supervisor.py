"""The supervisor: starts the network's processes in order, keeps them running, stops them in order.

Stages start one after the other (the ledger, then the nodes, then the gateway) and stop in the
opposite order. While a process starts, its end is an error, unless it was killed or something that
it needs went away; once it serves, it is started again whenever it ends, after a pause that doubles
up to a bound; the bound is short for one that had served.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lichen.cli.network import state
from lichen.cli.network.lifeline import Lifeline
from lichen.cli.network.service import Child, Service, ServiceFailedError, trim_log

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.cli.network.processes import ProcessId

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 10.0
PAUSE_S_MAX_SERVED = 0.8
STEADY_S = 30.0
START_ATTEMPTS_MAX = 5
LOG_CHECK_EVERY_S = 30.0

Report = Callable[[str, float], None]


class Supervisor:
    """Runs services in stages. `report(text, seconds)` is told of every step."""

    def __init__(
        self,
        stages: Sequence[Sequence[Service]],
        *,
        me: ProcessId,
        state_path: Path,
        urls: dict[str, str],
        report: Report,
    ) -> None:
        self._stages = stages
        self._me = me
        self._state_path = state_path
        self._urls = urls
        self._report = report
        self._children: dict[str, Child] = {}
        self._stopping = asyncio.Event()
        self._lifeline = Lifeline()
        self._serving = False
        self._keepers: list[asyncio.Task[None]] = []
        self._ends = 0

    async def run(self, serving: Callable[[], None]) -> None:
        """Start everything, call `serving`, and keep it until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            if await self._start_all():
                self._serving = True
                self._save()
                serving()
                self._keepers.append(asyncio.create_task(self._trim_logs()))
                await self._stopping.wait()
        finally:
            await self._stop_all()

    async def _start_all(self) -> bool:
        """Start the stages; tell whether nobody asked to stop meanwhile."""
        for stage in self._stages:
            starting = asyncio.create_task(self._start_stage(stage))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                return False
            starting.result()
        return True

    async def _start_stage(self, stage: Sequence[Service]) -> None:
        """Start services side by side; the first failure ends the wait for the others."""
        tasks = [asyncio.create_task(self._start_one(service)) for service in stage]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_one(self, service: Service) -> None:
        """Start a service; again if it was killed, or if another one ended meanwhile."""
        started_s = time.monotonic()
        for attempt in range(1, START_ATTEMPTS_MAX + 1):
            ends, child = self._ends, await self._launch(service)
            try:
                await child.wait_serving()
                break
            except ServiceFailedError:
                excused = child.was_killed or (child.has_ended and self._ends > ends)
                if not excused or attempt == START_ATTEMPTS_MAX:
                    raise
                self._report(f"{service.name} {await child.ended()}; starting it again", 0.0)
        self._keepers.append(asyncio.create_task(self._keep(child)))
        self._report(f"{service.name} serves on {service.url}", time.monotonic() - started_s)

    async def _launch(self, service: Service) -> Child:
        child = await Child.start(service, self._lifeline)
        self._children[service.name] = child
        self._save()
        return child

    async def _keep(self, child: Child) -> None:
        """Start a service again whenever it ends."""
        service, pause_s = child.service, PAUSE_S_MIN
        served = True
        while True:
            how = await child.ended()
            if self._stopping.is_set():
                return
            self._ends += 1
            steady = time.monotonic() - child.started_s > STEADY_S
            pause_s_max = PAUSE_S_MAX_SERVED if served else PAUSE_S_MAX
            pause_s = PAUSE_S_MIN if steady else min(pause_s * 2, pause_s_max)
            self._report(f"{service.name} ended ({how}); starting it again", pause_s)
            await asyncio.sleep(pause_s)
            child = await self._launch(service)
            served = await child.serves()

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_EVERY_S)
            for child in self._all():
                trim_log(child.service.log)

    async def _stop_all(self) -> None:
        self._stopping.set()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for stage in reversed(self._stages):
            children = [self._children[s.name] for s in stage if s.name in self._children]
            started_s = time.monotonic()
            await asyncio.gather(*(child.stop() for child in children))
            await asyncio.gather(*(child.ended() for child in children))
            if children:
                names = ", ".join(child.service.name for child in children)
                self._report(f"stopped {names}", time.monotonic() - started_s)
        self._lifeline.close()
        self._state_path.unlink(missing_ok=True)

    def _all(self) -> list[Child]:
        return list(self._children.values())

    def _save(self) -> None:
        known = (child.identity for child in self._all())
        processes = tuple(process for process in known if process is not None)
        state.write(
            self._state_path,
            state.Running(self._me, processes, self._urls, serving=self._serving),
        )
