"""Ports of this machine: choosing free ones, and saying clearly when one is taken."""

from __future__ import annotations

import errno
import socket

from lichen.errors import MachineError

PORT_MAX = 65535


class PortTakenError(MachineError):
    """Another process listens on a port that is needed."""

    code = "port-taken"


def choose_free(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return that many different ports that are free now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def require_free(host: str, port: int, *, who: str, remedy: str) -> None:
    """Raise PortTakenError unless `who` could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(
                    f"port {port} is taken, {who} cannot listen on it", hint=remedy
                ) from error
            raise MachineError(
                f"{who} cannot listen on {host}:{port}: {error.strerror}", hint=remedy
            ) from error
