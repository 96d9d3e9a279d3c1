"""Two networks that were looked at, side by side."""

from __future__ import annotations

from collections.abc import Callable

from convsmith.reporting.formats import MINUS, percent, size
from convsmith.reporting.inspection import Inspection, Row, amount

ALIKE = 0.5
"""Share of the layers' names that two networks have in common, from which it helps to name those that differ."""
WHOLE = -1
MOST = 40
"""Layers that differ: more are not named one by one."""


def figures(ours: Inspection, theirs: Inspection) -> list[tuple[str, str, str, str]]:
    """Name, both values and their difference, of each figure of the whole networks."""
    rows = [
        _row("parameters", ours.parameters, theirs.parameters, lambda number: f"{number:,}"),
        _row("multiply-adds", ours.macs, theirs.macs, amount),
        _row("layers", len(ours.rows), len(theirs.rows), lambda number: f"{number:,}"),
        _row("last maps see, px", _field(ours), _field(theirs), lambda number: "all" if number < 0 else f"{number:,}"),
        _row("training keeps of an image", ours.activation_bytes, theirs.activation_bytes, size),
        _row("answering for one image", ours.inference_bytes, theirs.inference_bytes, size),
    ]
    for one, other in zip(ours.steps, theirs.steps, strict=False):
        name = f"training, batch {ours.batch}, {one.precision}, {one.optimizer}"
        rows.append(_row(name, one.peak, other.peak, size))
    return rows


def differing(ours: Inspection, theirs: Inspection) -> list[tuple[str, Row | None, Row | None]] | None:
    """The layers that are not alike in both, by name; None for networks that are built differently altogether."""
    one, other = ({row.path: row for row in side.rows} for side in (ours, theirs))
    shared = one.keys() & other.keys()
    if len(shared) < ALIKE * max(len(one), len(other)):
        return None
    paths = [path for path in dict.fromkeys((*one, *other)) if _essence(one.get(path)) != _essence(other.get(path))]
    return [(path, one.get(path), other.get(path)) for path in paths] if len(paths) <= MOST else None


def _essence(row: Row | None) -> object:
    return None if row is None else (row.detail, row.output, row.parameters, row.macs)


def _field(inspection: Inspection) -> int | None:
    """Pixels; a negative number stands for the whole image."""
    seen = inspection.last.field if inspection.last else None
    return None if seen is None else WHOLE if seen.whole else seen.height


def _row(name: str, one: int | None, other: int | None, told: Callable[[int], str]) -> tuple[str, str, str, str]:
    if one is None or other is None:
        return name, "?" if one is None else told(one), "?" if other is None else told(other), "?"
    if WHOLE in (one, other):
        return name, told(one), told(other), "none" if one == other else ""
    change = other - one
    sign = "+" if change > 0 else MINUS
    share = f" ({'+' if change > 0 else ''}{percent(change / one)})" if one and change else ""
    return name, told(one), told(other), f"{sign}{told(abs(change))}{share}" if change else "none"
