"""Tools for tests of Lichen and of networks built on it."""
