"""The charts of a network's page: cost by size of maps, receptive fields, memory of training."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from convsmith.reporting.formats import fit, percent, size
from convsmith.reporting.inspection import Inspection, Row, by
from convsmith.reporting.inspection_text import field_cells
from convsmith.reporting.svg import at, chart, element, text

FRAME, MARGIN = 100.0, 34.0
"""Units of a drawing: a side of the image, and what is seen around it."""
DOTS = 14
"""Positions a side: of more none are drawn."""


class Square(NamedTuple):
    """What one position sees.

    Args:
        name: of the layer.
        says: the field and the stride in words.
        drawing: the image, the field and the positions.
    """

    name: str
    says: str
    drawing: Markup


def cost_bars(shown: Inspection) -> Markup:
    """For each size of maps, its share of the multiply-adds, the parameters and what training keeps."""
    wholes = (shown.macs, shown.parameters, shown.activation_bytes)
    drawn: list[Markup] = []
    y = 4
    for each in shown.sizes:
        drawn.append(text(fit(each.name, 8.2), "0", y + 24, "name", "end", dx=-12))
        for part, value, whole in zip("abc", (each.macs, each.parameters, each.activation_bytes), wholes, strict=True):
            share = value / whole if value is not None and whole else 0.0
            drawn.append(element("rect", class_=f"bar-{part}", x="0", y=y, width=at(0.86 * share), height=11))
            told = "unknown" if value is None or whole is None else percent(share)
            drawn.append(text(told, at(0.86 * share), y + 10, "share", "start", dx=6))
            y += 15
        y += 13
    return chart(drawn, y, "Share of the cost by size of maps; the table below holds the figures", "rows spent")


def memory_bars(shown: Inspection) -> Markup:
    """The most that a training step holds, by precision and optimiser."""
    most = max(step.peak for step in shown.steps) or 1
    drawn: list[Markup] = []
    for row, step in enumerate(shown.steps):
        y = 26 * row + 4
        drawn.append(text(f"{step.precision}, {step.optimizer}", "0", y + 12, "name", "end", dx=-12))
        drawn.append(element("rect", class_="part-a", x="0", y=y, width=at(step.peak / most), height=16))
        drawn.append(text(size(step.peak), "100%", y + 12, "number", "start", dx=10))
    return chart(drawn, 26 * len(shown.steps) + 4, "Memory of a training step; the table below holds the figures",
                 "rows wide")  # fmt: skip


def field_squares(shown: Inspection) -> list[Square]:
    """For each size of maps, what a position in the middle sees at its end."""
    return [square for row in shown.stages if (square := _square(shown, row)) is not None]


def _square(shown: Inspection, row: Row) -> Square | None:
    seen, sides = row.field, shown.sides(row.output)
    if seen is None or sides is None:
        return None
    height, width = shown.shape[1:]
    unit = FRAME / max(height, width)
    tall, wide = height * unit, width * unit
    box = (wide + 2 * MARGIN, tall + 2 * MARGIN)
    drawn = [element("rect", class_="image", x=0, y=0, width=wide, height=tall)]
    middle = (wide / 2, tall / 2)
    if seen.stride is not None:
        middle = tuple(unit * (seen.offset + 0.5 + seen.stride * ((side - 1) // 2)) for side in (sides[1], sides[0]))
        if max(sides) <= DOTS:
            down, across = (
                [unit * (seen.offset + 0.5 + seen.stride * place) for place in range(side)] for side in sides
            )
            drawn += [element("circle", class_="spot", cx=x, cy=y, r=1.1) for y in down for x in across]
    ends = [(spot - unit * extent / 2, spot + unit * extent / 2)
            for spot, extent in zip(middle, (seen.width, seen.height), strict=True)]  # fmt: skip
    limits = [(-MARGIN, whole + MARGIN) for whole in (wide, tall)]
    beyond = any(end[0] < limit[0] or end[1] > limit[1] for end, limit in zip(ends, limits, strict=True))
    (x, right), (y, bottom) = (
        (max(end[0], limit[0] + 1), min(end[1], limit[1] - 1)) for end, limit in zip(ends, limits, strict=True)
    )
    kind = "field beyond" if beyond else "field"
    drawn.insert(1, element("rect", class_=kind, x=x, y=y, width=max(right - x, 1.0), height=max(bottom - y, 1.0)))
    told = f"{field_cells(seen)[0]} px" + (f", one every {seen.stride:g} px" if seen.stride else "")
    svg = element(
        "svg", *drawn, viewBox=f"{-MARGIN:g} {-MARGIN:g} {box[0]:g} {box[1]:g}", role="img",
        aria_label=f"{row.path}: {told}" + (", larger than what is drawn" if beyond else ""),
    )  # fmt: skip
    return Square(fit(row.path, 14), f"{by(sides)} maps: {told}", svg)
