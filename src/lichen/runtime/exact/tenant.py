"""An exact function that is being served, with the face of any other tenant."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from lichen.runtime.exits import ExitKind, ExitReason
from lichen.runtime.logs import LogLimiter, LogLine, cut_text, level_of
from lichen.runtime.meter import Cost, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.runtime.exact.control import Logged
    from lichen.runtime.logpump import LogCallback
    from lichen.runtime.tenant import TenantSpec

BACKLOG: Final = 256


class ExactTenant:
    """One function: `socket_path` takes its HTTP requests. Runs are metered by their workers."""

    def __init__(
        self,
        number: int,
        spec: TenantSpec,
        directory: str,
        snapshot: int,
        *,
        on_stop: Callable[[ExactTenant], None],
    ) -> None:
        self.number, self.name, self.owner = number, spec.name, spec.owner
        self.timeout_ms, self.snapshot = spec.timeout_ms, snapshot
        self.socket_path = f"{directory}/{number}.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket_path)
        self.listener.listen(BACKLOG)
        self.exited: asyncio.Future[ExitReason] = asyncio.get_running_loop().create_future()
        self.in_flight = 0
        self.last_used = time.monotonic()
        self._on_stop = on_stop
        self._listeners: list[LogCallback] = []
        self._limiter = LogLimiter()

    def begin(self) -> Run:
        """Begin a run; its cost comes with its answer."""
        self.in_flight += 1
        self.last_used = time.monotonic()
        return Run(0, 0, time.monotonic_ns())

    def end(self, run: Run) -> Cost:
        """End a run. A run whose worker did not report is not billed for its work."""
        self.in_flight -= 1
        return Cost(0, 0, time.monotonic_ns() - run.started_ns)

    async def responsive(self, timeout_s: float) -> bool:  # noqa: ARG002  # the face of a tenant
        """Return True: its workers end a run that takes too long by themselves."""
        return True

    def on_log(self, callback: LogCallback) -> None:
        """Call `callback` in the event loop with every console line from now on."""
        self._listeners.append(callback)

    def logged(self, report: Logged) -> None:
        """Pass a run's console lines on, as many as are let through."""
        now_ms = time.time_ns() // 1_000_000
        for level, text in report.lines:
            if not self._limiter.admit(now_ms, len(text)):
                continue
            line = LogLine(level_of(level), cut_text(text), now_ms, report.run or None)
            for listener in self._listeners:
                listener(line)

    def stop(self, kind: ExitKind = "stopped") -> None:
        """Serve it no more."""
        if self.exited.done():
            return
        self.exited.set_result(
            ExitReason(kind=kind, detail="the function is served no more", exit_code=0)
        )
        self._on_stop(self)
        self.listener.close()
        os.unlink(self.socket_path)
        os.close(self.snapshot)
