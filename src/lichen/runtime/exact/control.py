"""What a node and its workers say to each other: one datagram a message, descriptors beside it."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from typing import Final

import msgspec

MESSAGE_BYTES_MAX: Final = 160 * 1024
DESCRIPTORS_MAX: Final = 2
# fcntl.h: what has these seals can never change again.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS: Final = 0x0002 | 0x0004 | 0x0008  # shrink, grow, write


class Start(msgspec.Struct, frozen=True):
    """How a worker is started: descriptors of its socket, the engine, and its compiled form."""

    channel: int
    engine: int
    compiled: int


class Message(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all messages; `id` numbers a function within one pool."""

    id: int


class Load(Message, frozen=True, tag="load"):
    """Evaluate a bundle (descriptor 0) and answer Loaded or Refused."""

    heap_mb: int


class Serve(Message, frozen=True, tag="serve"):
    """Answer requests that arrive at a listening socket (0) from a snapshot (1)."""

    name: str
    timeout_ms: int
    fuel_max: int


class Drop(Message, frozen=True, tag="drop"):
    """Serve this function no more."""


class Loaded(Message, frozen=True, tag="loaded"):
    """The snapshot is descriptor 0; `hash` in hex."""

    hash: str


class Refused(Message, frozen=True, tag="refused"):
    """A bundle cannot be evaluated, for its owner to read."""

    text: str
    hint: str


class Logged(Message, frozen=True, tag="logged"):
    """The console lines of one run: (level, text)."""

    run: str
    lines: list[tuple[str, str]]


class Ready(Message, frozen=True, tag="ready"):
    """The worker has its engine."""


Order = Load | Serve | Drop
Report = Loaded | Refused | Logged | Ready

_encoder = msgspec.json.Encoder()
_orders = msgspec.json.Decoder(Order)
_reports = msgspec.json.Decoder(Report)


def send(
    channel: socket.socket, message: Order | Report, descriptors: tuple[int, ...] = ()
) -> bool:
    """Send a message whole, or say that it is too large or there is no room for it now."""
    encoded = _encoder.encode(message)
    if len(encoded) > MESSAGE_BYTES_MAX:
        return False
    try:
        socket.send_fds(channel, [encoded], list(descriptors))
    except BlockingIOError:
        return False
    return True


def receive_order(channel: socket.socket) -> tuple[Order, list[int]] | None:
    """Take the next order; None when the node is gone."""
    data, descriptors = _receive(channel)
    return (_orders.decode(data), descriptors) if data else None


def receive_report(channel: socket.socket) -> tuple[Report, list[int]] | None:
    """Take the next report; None when the worker is gone. Raises ValueError for nonsense."""
    data, descriptors = _receive(channel)
    try:
        return (_reports.decode(data), descriptors) if data else None
    except msgspec.DecodeError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    data, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)


def sealed_file(data: bytes) -> int:
    """Return a descriptor of a file in memory with these bytes for ever."""
    descriptor = os.memfd_create("lichen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
    return descriptor


def is_sealed(descriptor: int) -> bool:
    """Tell whether a file's bytes can never change."""
    try:
        return fcntl.fcntl(descriptor, _GET_SEALS) & _SEALS == _SEALS
    except OSError:  # no file in memory
        return False


def read_file(descriptor: int, bytes_max: int) -> bytes:
    """Return what a file holds; raise ValueError beyond `bytes_max`."""
    size = os.fstat(descriptor).st_size
    if size > bytes_max:
        raise ValueError(f"more than {bytes_max} bytes")
    return os.pread(descriptor, size, 0)
