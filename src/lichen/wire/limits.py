"""Every bound of a listener and of a connection pool, with its name and unit."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one listener. Times are seconds and checked every `TICK_S`."""

    connections_max: int = 12_288  # beyond it, those that wait make room; else they are told so
    refusals_max: int = 512  # connections being told that there is no room; more are just closed
    requests_per_turn: int = 64  # of one connection, before others have their turn
    head_bytes_max: int = 32 * KIB
    headers_max: int = 128
    body_bytes_max: int = 64 * MIB  # per request, unless its answer says otherwise
    pipelined_bytes_max: int = 64 * KIB  # held while an earlier request is being answered
    discard_bytes_max: int = 256 * KIB  # of an unwanted body read to keep the connection usable
    header_s: float = 15.0  # from a head's first byte to its last
    idle_s: float = 75.0  # between requests
    room_s: float = 2.0  # who has waited so long, for a request or the rest of its head, makes room
    body_idle_s: float = 30.0  # between two segments of a request body
    send_idle_s: float = 30.0  # for a client that does not read its response
    response_s: float = 120.0  # from the whole request to the upstream's response head
    upstream_idle_s: float = 120.0  # between two segments of an upstream's response body
    tunnel_idle_s: float = 600.0  # for an upgraded connection on which nothing moves
    linger_s: float = 2.0  # reading on after a refusal, so that the client sees it
    stop_s: float = 10.0  # for work in flight when the listener stops


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the connections to one upstream address."""

    connections_max: int = 256
    idle_max: int = 64
    waiting_max: int = 1024
    connect_s: float = 3.0
    idle_s: float = 30.0


TICK_S = 0.25
