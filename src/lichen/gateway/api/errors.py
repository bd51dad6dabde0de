"""What can go wrong at the API beside what the rooms below report."""

from __future__ import annotations

from lichen.errors import NotFoundError, UserError


class NoSuchRouteError(NotFoundError):
    """The API has nothing under this path."""

    code = "no-such-route"


class MethodNotAllowedError(UserError):
    """The path exists, but not for this method."""

    code = "method-not-allowed"
    status = 405


class BadParameterError(UserError):
    """A query parameter or path segment is malformed."""

    code = "bad-parameter"


class MediaTypeError(UserError):
    """The body is of a type that this route does not take."""

    code = "unsupported-media-type"
    status = 415
