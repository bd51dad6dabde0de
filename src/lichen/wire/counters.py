"""Plain integers that a listener counts in; Prometheus reads them when it scrapes."""

from __future__ import annotations


class Counters:
    """What one listener did since it started. Bytes are those handed to and taken from sockets."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "client_gone",
        "connections",
        "made_room",
        "malformed",
        "refused",
        "requests",
        "retries",
        "statuses",
        "timeouts",
        "tunnels",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0
        self.refused = 0  # connections turned away at the limit
        self.made_room = 0  # connections closed at the limit because they only waited
        self.malformed = 0
        self.timeouts = 0
        self.client_gone = 0
        self.retries = 0  # upstream attempts after the first
        self.tunnels = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.statuses = [0, 0, 0, 0, 0, 0]  # by hundreds; index 0 is unused

    def snapshot(self) -> dict[str, int]:
        """Return all counters by name; statuses as `responses_1xx` .. `responses_5xx`."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "statuses"}
        return plain | {f"responses_{n}xx": self.statuses[n] for n in range(1, 6)}
