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
    twins,
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
    "twins",
]
