"""What a caller is told of an exact run that gave no response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.node.errors import (
    BusyNodeError,
    FunctionFailedError,
    FunctionIndeterminateError,
    FunctionOutOfFuelError,
    FunctionOutOfMemoryError,
)
from lichen.runtime.exact.outcome import Kind

if TYPE_CHECKING:
    from lichen.errors import LichenError
    from lichen.runtime.exact.answers import Report
    from lichen.wire import Fault

BROKE: Final = "closed"


def failure(report: Report | None) -> LichenError:
    """Name the failure of a run: what the function threw is for its owner alone."""
    kind = None if report is None else report.kind
    if kind is Kind.OUT_OF_FUEL:
        return FunctionOutOfFuelError(
            "the function used all its fuel", hint="make it do less, or raise timeout_ms"
        )
    if kind is Kind.OUT_OF_MEMORY:
        return FunctionOutOfMemoryError(
            "the function used all its memory", hint="make it keep less, or raise memory_mb"
        )
    if kind is Kind.INDETERMINATE:
        return FunctionIndeterminateError(
            "the run has no result that is the same everywhere",
            hint="it was too slow here, or went too deep; try again",
        )
    return FunctionFailedError("the function failed", hint="its owner sees why with `lichen logs`")


def failure_of_worker(fault: Fault) -> LichenError:
    """Name the failure of a worker: it died with the run in it, or takes no more."""
    if fault.reason == BROKE:
        return FunctionIndeterminateError(
            "the engine ended during the run, which has no result", hint="try again"
        )
    return BusyNodeError("all workers of this node are busy", hint="try again shortly")
