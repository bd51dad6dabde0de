"""Fuzz targets: one function per parser, given any bytes, that fails where a promise does not hold.

`make fuzz` runs them guided by coverage (atheris); what it found stays in `seeds/`, and runs with the
unit tests for ever.
"""
