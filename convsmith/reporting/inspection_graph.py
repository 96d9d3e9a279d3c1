"""The drawing of a network: rows in the order of execution, and lanes along which values run from row to row.

A value stays in its lane until it is read for the last time, so that what a block adds to its result runs straight
past the block, and branches lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from convsmith.reporting.formats import clean, fit, percent
from convsmith.reporting.inspection import Drawing, Kind, Node, by
from convsmith.reporting.svg import at, element, short, text

PITCH, TOP = 40, 20
"""Pixels from one row to the next, and above the first."""
WIDE, NARROW = 16, 9
"""Pixels from one lane to the next, where there are few and where there are many."""
FEW = 6
LOADED = 0.62
"""Share of the width that the costliest row's bar takes."""
MERMAID: dict[Kind, tuple[str, str]] = {
    "input": ("([", "])"),
    "output": ("([", "])"),
    "block": ("[[", "]]"),
    "pool": ("[/", "\\]"),
    "merge": ("((", "))"),
}


@dataclass(frozen=True)
class Lanes:
    """Where rows stand.

    Args:
        of: the lane of each node.
        count: how many there are.
    """

    of: tuple[int, ...]
    count: int


def lanes(drawing: Drawing) -> Lanes:
    """Give each node a lane: that of a value it reads for the last time, else the first that is free."""
    last = {source: max(to for one, to in drawing.edges if one == source) for source, _ in drawing.edges}
    parents: dict[int, list[int]] = {}
    for source, to in drawing.edges:
        parents.setdefault(to, []).append(source)
    of: list[int] = []
    busy: set[int] = set()
    for node in range(len(drawing.nodes)):
        ending = sorted(of[parent] for parent in parents.get(node, ()) if last[parent] == node)
        lane = ending[0] if ending else next(lane for lane in range(len(of) + 1) if lane not in busy)
        busy -= set(ending)
        if node in last:
            busy.add(lane)
        of.append(lane)
    return Lanes(tuple(of), max(of, default=0) + 1)


def flow(drawing: Drawing, what: str) -> Markup:
    """Draw a network or a block: lanes on the left, and beside each node what it is, gives and costs.

    Args:
        drawing: nodes and edges.
        what: what is drawn, for those who do not see it.
    """
    places = lanes(drawing)
    step = WIDE if places.count <= FEW else NARROW
    x = [9 + step * lane for lane in places.of]
    y = [TOP + PITCH * row for row in range(len(drawing.nodes))]
    left = 9 + step * places.count + 4
    most = max((node.share or 0.0 for node in drawing.nodes), default=0.0)
    drawn = [_load(node, y[row], left, most) for row, node in enumerate(drawing.nodes) if node.share]
    drawn += [_edge(x[one], y[one], x[to], y[to], skips=to - one > 1) for one, to in drawing.edges]
    for row, node in enumerate(drawing.nodes):
        drawn += [_mark(node.kind, x[row], y[row]), *_words(node, left, y[row])]
    height = TOP + PITCH * len(drawing.nodes) - 8
    described = f"{what}: {len(drawing.nodes)} nodes from top to bottom, each with the size of what it gives"
    svg = element("svg", *drawn, width="100%", height=height, role="img", aria_label=described, overflow="visible")
    return element("div", svg, class_=f"chart flow{' broad' if places.count > FEW else ''}")


def mermaid(drawing: Drawing) -> str:
    """The drawing as the text of a Mermaid flow chart, which many editors and forges show as a picture."""
    lines = ["flowchart TD"]
    for place, node in enumerate(drawing.nodes):
        opening, closing = MERMAID.get(node.kind, ("[", "]"))
        parts = [node.title, *([node.detail] if node.detail else []), by(node.output)]
        lines.append(f'  n{place}{opening}"{"<br/>".join(map(_quoted, parts))}"{closing}')
    lines += [f"  n{source} --> n{to}" for source, to in drawing.edges]
    return "\n".join(lines) + "\n"


def _quoted(words: str) -> str:
    """Text that ends no label and begins no tag."""
    return "".join(c if c.isalnum() or c in " ._-,→×/()+" else f"#{ord(c)};" for c in clean(words))


def _edge(x: int, y: int, to_x: int, to_y: int, *, skips: bool) -> Markup:
    """Down the lane it begins in, and across to the other one on the way to the last row."""
    bend = to_y - PITCH
    down = f"M{x} {y}" + (f"V{bend}" if bend > y else "")
    across = f"V{to_y}" if x == to_x else f"C{x} {to_y - PITCH * 0.4:g} {to_x} {bend + PITCH * 0.4:g} {to_x} {to_y}"
    return element("path", class_="edge skip" if skips else "edge", d=down + across)


def _mark(kind: Kind, x: int, y: int) -> Markup:
    match kind:
        case "block":
            return element("rect", class_="node block", x=x - 7, y=y - 7, width=14, height=14, rx=3)
        case "product":
            return element("circle", class_="node product", cx=x, cy=y, r=6)
        case "pool":
            return element("path", class_="node pool", d=f"M{x - 8} {y - 5}H{x + 8}L{x + 3} {y + 6}H{x - 3}Z")
        case "merge":
            cross = element("path", class_="cross", d=f"M{x - 3.5} {y}H{x + 3.5}M{x} {y - 3.5}V{y + 3.5}")
            return element("g", element("circle", class_="node merge", cx=x, cy=y, r=7), cross)
        case "input" | "output":
            return element("circle", class_="node end", cx=x, cy=y, r=5)
    return element("circle", class_="node small", cx=x, cy=y, r=4)


def _words(node: Node, left: int, y: int) -> list[Markup]:
    drawn = [text(fit(node.title, 13.5), str(left), y + 4, "title", "start")]
    drawn.append(text(by(node.output), "100%", y + 4, "shape", "end"))
    if node.detail and node.detail != node.title:
        drawn.append(text(fit(node.detail, 15), str(left), y + 18, "quiet", "start"))
    if node.share:
        drawn.append(text(percent(node.share), "100%", y + 18, "quiet", "end"))
    return drawn


def _load(node: Node, y: int, left: int, most: float) -> Markup:
    """A bar behind the words: the share of the multiply-adds."""
    share = LOADED * (node.share or 0.0) / most if most else 0.0
    return element("rect", class_="load", x=left - 5, y=short(y - 12.0), width=at(share), height=PITCH - 6, rx=3)
