"""What may go wrong between two sockets, as types of the one tree."""

from __future__ import annotations

from lichen.errors import LimitError, MachineError, PeerError, PeerUnavailableError, UserError


class MalformedError(UserError):
    """A request that is not HTTP/1.1 as RFC 9112 wants it, or is ambiguous about its framing."""

    code = "malformed-request"
    status = 400


class RequestTimeoutError(UserError):
    """The client took longer than a named bound to send its request."""

    code = "request-timeout"
    status = 408


class NotImplementedMethodError(UserError):
    """A method or transfer coding that this server does not speak."""

    code = "not-implemented"
    status = 501


class ForeignHostError(UserError):
    """A client that takes this server for its proxy asks for a host that is not the server's."""

    code = "foreign-host"
    status = 421


class HeadTooLargeError(LimitError):
    """The head has more bytes or fields than the listener accepts."""

    code = "head-too-large"
    status = 431


class BodyTooLargeError(LimitError):
    """The body has more bytes than this request may carry."""

    code = "body-too-large"
    status = 413


class BusyError(PeerUnavailableError):
    """A bound on connections is reached; trying again later helps."""

    code = "busy"


class UpstreamError(PeerError):
    """The upstream refused, broke off or answered something that is not HTTP/1.1."""

    code = "upstream-failed"


class UpstreamBusyError(PeerUnavailableError):
    """The upstream cannot be reached, or all connections to it are in use."""

    code = "upstream-unavailable"


class UpstreamTimeoutError(PeerError):
    """The upstream did not answer in time."""

    code = "upstream-timeout"
    status = 504


class MuxError(PeerError):
    """The other end of a multiplexed connection broke its rules; the connection is of no use."""

    code = "mux-broken"


class PortTakenError(MachineError):
    """Another process listens on the address already."""

    code = "port-taken"
