"""Functions of active releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.gateway.api import apps, parameters
from lichen.gateway.api.paging import page
from lichen.gateway.api.views import FunctionView, Page
from lichen.ledger.errors import UnknownRouteError

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext


async def of_app(context: ApiContext, request: Request) -> Page[FunctionView]:
    """Return the functions of an app's active release, by name."""
    found = sorted(active(context, request), key=lambda function: function.id)
    return page(request, found, lambda function: function.id)


async def show(context: ApiContext, request: Request) -> FunctionView:
    """Return one function of an app's active release."""
    return find(context, request)


def find(context: ApiContext, request: Request) -> FunctionView:
    """Return the function that the path names; raise UnknownRouteError.

    Where the path names an app alone, that app's only function is meant.
    """
    found = active(context, request)
    if "function" in request.path_params:
        name = parameters.text(request, "function")
        found = [function for function in found if function.spec.name == name]
    if len(found) != 1:
        app = request.path_params["app"]
        names = ", ".join(f.spec.name for f in active(context, request)) or "none"
        raise UnknownRouteError(
            f"that names {len(found)} functions of {app}", hint=f"its functions: {names}"
        )
    return found[0]


def active(context: ApiContext, request: Request) -> list[FunctionView]:
    """Return the functions of the active release of the app in the path."""
    app = apps.find(context, request)
    release = context.replica.state.release(app.name, app.active)
    return [
        FunctionView(f"{app.name}/{app.active}/{spec.name}", app.owner, app.name, app.active, spec)
        for spec in (release.functions if release is not None else ())
    ]
