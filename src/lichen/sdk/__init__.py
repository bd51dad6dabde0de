"""The client library: a gateway's public API as typed calls."""

from lichen.sdk.client import CallResult, Client

__all__ = ["CallResult", "Client"]
