"""Lichen: an open, decentralized cloud and edge network."""

__version__ = "0.1.0"
