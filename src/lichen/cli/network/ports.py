"""Ports of this machine: choosing free ones, and saying clearly when one is taken."""

from __future__ import annotations

import errno
import random
import socket

from lichen.errors import MachineError

FIRST, LAST = 20_000, 31_999  # below what systems give to outgoing connections
TRIES_MAX = 1000


class PortTakenError(MachineError):
    """Another process listens on a port that is needed."""

    code = "port-taken"


def choose_free(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return that many different ports that are free now, and are likely to stay so.

    They lie outside of the range for outgoing connections, so that a network that is stopped finds
    its ports again.
    """
    candidates = random.SystemRandom().sample(range(FIRST, LAST + 1), TRIES_MAX)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if _is_free(host, port):
            found.append(port)
    if len(found) < count:
        raise MachineError(
            f"no {count} free ports between {FIRST} and {LAST}", hint="stop what listens there"
        )
    return found


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


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
