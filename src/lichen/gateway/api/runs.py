"""Runs: what became of them, why, and their receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from lichen.gateway.api import parameters
from lichen.gateway.api.views import Attempt, RunView, Why, node_text
from lichen.units import Amount, format_flk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext


async def show(context: ApiContext, request: Request) -> RunView:
    """Return a run as this gateway saw it."""
    return view(context, parameters.text(request, "run"))


async def receipt(context: ApiContext, request: Request) -> Response:
    """Return a run's signed receipt, byte for byte as it is verified offline."""
    return Response(
        await context.receipt(parameters.text(request, "run")), media_type="application/json"
    )


async def why(context: ApiContext, request: Request) -> Why:
    """Return a run's story: placement, refusals, retries, bill."""
    run = view(context, parameters.text(request, "run"))
    return Why(run, tuple(tell(run)))


def view(context: ApiContext, run: str) -> RunView:
    """Return a run's record as the API shows it; raise NotFoundError."""
    record = context.run_record(run)
    return RunView(
        run=record.run,
        function=record.function,
        method=record.method,
        target=record.target,
        started_ms=record.started_ms,
        ceiling=Amount(record.ceiling),
        node=node_text(record.node),
        status=record.status,
        wall_us=record.wall_us,
        error=record.error,
        attempts=tuple(Attempt(node_text(a.node), a.outcome, a.after_us) for a in record.attempts),
        refusals=record.refusals,
        amount=None if record.amount < 0 else Amount(record.amount),
    )


def tell(run: RunView) -> Iterator[str]:
    """Tell a run's story, one sentence per step."""
    yield f"{run.method} {run.target} is answered by function {run.function}."
    if run.refusals:
        yield f"Nodes that were not considered: {run.refusals}."
    for number, attempt in enumerate(run.attempts, start=1):
        yield (
            f"Attempt {number}: node {attempt.node}: {attempt.outcome} "
            f"after {attempt.after_us / 1000:.1f} ms."
        )
    if run.node:
        yield f"Node {run.node} ran it in {run.wall_us / 1000:.1f} ms."
    if run.error:
        yield f"It failed: {run.error}."
    elif run.status:
        yield f"The answer's status was {run.status}."
    else:
        yield "The caller went away before the answer was complete."
    yield _bill(run)


def _bill(run: RunView) -> str:
    ceiling = f"of at most {format_flk(run.ceiling)} FLK agreed"
    if run.amount is None:
        return f"The node has not billed it yet; {ceiling}."
    return f"It cost {format_flk(run.amount)} FLK {ceiling}."
