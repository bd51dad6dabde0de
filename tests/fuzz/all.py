"""All targets, by importing every module that has some."""

from tests.fuzz import (
    answers,
    blocks,
    cars,
    graphs,
    heads,
    names,
    records,
    routes,
    sites,
    streams,
)

__all__ = [
    "answers",
    "blocks",
    "cars",
    "graphs",
    "heads",
    "names",
    "records",
    "routes",
    "sites",
    "streams",
]
