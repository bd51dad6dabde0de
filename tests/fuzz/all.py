"""All targets, by importing every module that has some."""

from tests.fuzz import answers, blocks, cars, graphs, heads, hosts, names, records, routes, sites

__all__ = [
    "answers",
    "blocks",
    "cars",
    "graphs",
    "heads",
    "hosts",
    "names",
    "records",
    "routes",
    "sites",
]
