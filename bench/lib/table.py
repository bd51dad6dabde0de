"""The one table at the end: each figure beside the bound it has to reach."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """One measured figure; `bound` is `(">=" or "<=", number)`, absent for context.

    A value of None stands for what could not be measured; the note says why.
    """

    name: str
    value: float | None
    unit: str
    bound: tuple[str, float] | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.bound is None or self.value is None:
            return None
        sign, number = self.bound
        return self.value <= number if sign == "<=" else self.value >= number


def show(figures: list[Figure]) -> str:
    """Lay figures out as a Markdown table."""
    rows = [("measured", "figure", "bound", "", "")]
    for one in figures:
        bound = "" if one.bound is None else f"{one.bound[0]} {_number(one.bound[1])}"
        verdict = {None: "", True: "reached", False: "NOT REACHED"}[one.reached]
        rows.append((one.name, f"{_number(one.value)} {one.unit}", bound, verdict, one.note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
