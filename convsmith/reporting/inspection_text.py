"""A network that was looked at, as tables of text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from markupsafe import Markup
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from convsmith.reporting.formats import SPACE, clean, percent, size
from convsmith.reporting.inspection import Inspection, Row, Seen, SideBySide, amount, by
from convsmith.reporting.inspection_compared import differing, figures
from convsmith.reporting.svg import element

WIDTH = 120
LEGEND = (
    "Of one image. keeps: what training holds of it for the backward pass; discards: what a downsampling drops; "
    "sees, stride, offset: receptive field in px; (n): layers within."
)
LONG = 14
"""Characters of a layer's path beyond which the columns move closer, so that a line holds all of it."""


def table(inspection: Inspection, *, every: bool = False) -> RenderableType:
    """The layers, the totals, the memory and the notes.

    Args:
        inspection: of the network.
        every: whether to show every layer rather than blocks and stages.
    """
    parts: list[RenderableType] = [
        Text(_named(inspection), style="bold"),
        _layers(inspection, inspection.rows if every else inspection.folded),
        Text(LEGEND, style="dim"),
        *_sums(inspection),
        Text(),
        *(Text(_said(line)) for line in totals(inspection)),
    ]
    if inspection.steps:
        parts += [Text(), _memory(inspection)]
    parts += [Text(f"Note: {_said(note)}") for note in inspection.notes]
    return Group(*parts)


def fields(inspection: Inspection) -> RenderableType:
    """What each stage sees of the user's picture."""
    shown = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    for each in inspection.pictures:
        shown.add_row(_safe(each.name), _safe(each.sentence))
    return Group(Text(f"\nOn your picture (the network's values: {_said(inspection.values)}):"), shown)


def depths(inspection: Inspection) -> RenderableType:
    """How the signal changes through depth."""
    lines = []
    for each in inspection.depths:
        how = f"Signal through depth, {each.name}, {each.images} images of normal numbers; values {_said(each.says)}"
        lines.append(Text(f"\n{how}:\n  {_said(each.sentence)}"))
    return Group(*lines)


def compared(ours: Inspection, theirs: Inspection) -> RenderableType:
    """Two networks side by side: figures with differences, what is spent at each size, and which layers differ."""
    shown = _plain("", "A", "B", "B - A")
    for name, one, other, difference in figures(ours, theirs):
        shown.add_row(*map(_safe, (name, one, other, difference)))
    named = [Text(f"{letter} is {_named(side)}") for letter, side in (("A", ours), ("B", theirs))]
    parts: list[RenderableType] = [*named, Text(), shown, Text(), _sizes(ours, theirs)]
    pairs = differing(ours, theirs)
    if pairs is not None:
        parts += [Text(), _pairs(pairs)]
    parts += [Text(f"Note: {_said(note)}") for note in dict.fromkeys((*ours.notes, *theirs.notes))]
    return Group(*parts)


def as_text(shown: RenderableType, *, width: int = WIDTH) -> str:
    """What is printed, as text without colours."""
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, color_system=None).print(shown)
    return stream.getvalue()


def notebook(inspection: Inspection) -> str:
    """The figures and the folded layers as HTML that needs no style."""
    head = ("layer", "what it does", "gives", "parameters", "MACs", "share", "keeps", "discards", "sees px")
    body = [_cells(inspection, row)[:9] for row in inspection.folded]
    lines = [element("p", element("b", _named(inspection))), *(element("p", line) for line in totals(inspection))]
    notes = [element("p", f"Note: {note}") for note in inspection.notes]
    return str(element("div", *lines, _html_table(head, body), *notes))


def notebook_compared(pair: SideBySide) -> str:
    """The figures of two networks as HTML that needs no style."""
    head = ("", pair.ours.name, pair.theirs.name, "difference")
    return str(element("div", _html_table(head, figures(pair.ours, pair.theirs))))


def _html_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Markup:
    top = element("thead", element("tr", *(element("th", cell) for cell in head)))
    rows = [element("tr", *(element("td", cell) for cell in row)) for row in body]
    return element("table", top, element("tbody", *rows))


def totals(inspection: Inspection) -> list[str]:
    """The figures of the whole network, a line each."""
    frozen = (
        f"{inspection.trainable:,} trainable, {inspection.frozen:,} frozen" if inspection.frozen else "all trainable"
    )
    lines = [
        f"Parameters   {inspection.parameters:,} ({frozen})",
        f"Cost         {amount(inspection.macs)} multiply-adds for one image (convolutions and products)",
    ]
    gates = f"; besides, {len(inspection.gates)} gates see all of it" if inspection.gates else ""
    lines.append(f"Sees         {inspection.field_of_last()}{gates}")
    kept = f"; training keeps {size(inspection.activation_bytes)} of each image" if inspection.activation_bytes else ""
    lines.append(f"Memory       {size(inspection.inference_bytes)} to answer for one image, weights included{kept}")
    return lines


def field_cells(seen: Seen | None) -> tuple[str, str, str]:
    """Size, stride and offset of a receptive field, in pixels."""
    if seen is None:
        return "?", "?", "?"
    if seen.whole:
        return "all", "–", "–"
    sides = f"{seen.height}" if seen.height == seen.width else f"{seen.height}x{seen.width}"
    return sides, "uneven" if seen.stride is None else f"{seen.stride:g}", f"{seen.offset:g}"


def discards_cell(row: Row) -> str:
    """What a downsampling discards."""
    if row.discards is None:
        return ""
    return percent(row.discards, 0 if row.discards in (0, 0.5, 0.75) else 1)


def share_cell(part: int | None, whole: int | None) -> str:
    """A share of a whole."""
    return "?" if part is None or whole is None else percent(part / whole) if whole and part else ""


def _layers(inspection: Inspection, rows: Sequence[Row]) -> Table:
    close = max((len(row.path) for row in rows), default=0) > LONG
    figures = ("parameters", "MACs", "share", "keeps", "discards", "sees", "stride", "offset")
    shown = _plain("layer", "what it does", "gives", *figures, close=close)
    for row in rows:
        shown.add_row(*map(_safe, _cells(inspection, row)))
    return shown


def _cells(inspection: Inspection, row: Row) -> tuple[str, ...]:
    more = f" ({row.layers})" if row.layers > 1 else ""
    return (
        row.path or "(the network itself)", f"{row.detail}{more}", by(row.output),
        f"{row.parameters:,}" if row.parameters else "", amount(row.macs) if row.macs != 0 else "",
        share_cell(row.macs, inspection.macs),
        "?" if row.activation_bytes is None else size(row.activation_bytes) if row.activation_bytes else "",
        discards_cell(row), *field_cells(row.field),
    )  # fmt: skip


def _memory(inspection: Inspection) -> Table:
    shown = _plain(
        f"training, batch {inspection.batch}", "weights", "gradients", "optimiser", "activations", "at the most"
    )
    for step in inspection.steps:
        shown.add_row(
            f"{step.precision}, {step.optimizer}",
            *(_safe(size(each)) for each in (step.weights, step.gradients, step.state, step.activations, step.peak)),
        )
    return shown


def _sums(inspection: Inspection) -> Iterable[RenderableType]:
    if inspection.sums:
        yield Text("\nHow the sizes come about:")
        shown = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
        for name, sum_ in inspection.sums.items():
            shown.add_row(_safe(name), _safe(sum_))
        yield shown


def _sizes(ours: Inspection, theirs: Inspection) -> Table:
    shown = _plain("maps", *(f"{side} {what}" for what in ("MACs", "parameters", "keeps") for side in "AB"))
    one, other = ({each.name: each for each in side.sizes} for side in (ours, theirs))
    for name in sorted({**one, **other}, key=lambda name: -int(name.split()[0]) if name[0].isdigit() else 1):
        pair = [one.get(name), other.get(name)]
        shown.add_row(
            name,
            *("" if each is None else amount(each.macs) for each in pair),
            *("" if each is None else amount(each.parameters) for each in pair),
            *("" if each is None else _safe(size(each.activation_bytes)) for each in pair),
        )
    return shown


def _pairs(pairs: Sequence[tuple[str, Row | None, Row | None]]) -> RenderableType:
    if not pairs:
        return Text("The layers are alike.")
    shown = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("layers that differ", "A", "B"):
        shown.add_column(column, overflow="fold")
    for path, one, other in pairs:
        shown.add_row(_safe(path), *(_safe(_told(row)) for row in (one, other)))
    return shown


def _named(inspection: Inspection) -> str:
    return f"{clean(inspection.name)} on an image of {by(inspection.shape)}"


def _told(row: Row | None) -> str:
    if row is None:
        return "none"
    return f"{row.detail}, gives {by(row.output)}, {row.parameters:,} parameters, {amount(row.macs)} MACs"


def _plain(first: str, *columns: str, close: bool = False) -> Table:
    """A table without lines; `close` leaves one space between columns in place of two."""
    padding = (0, 1, 0, 0) if close else (0, 1)
    shown = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=padding)
    shown.add_column(_safe(first), no_wrap=True)
    for column in columns:
        text = column in ("what it does", "gives")
        shown.add_column(
            _safe(column), justify="left" if text else "right", overflow="fold", no_wrap=column != "what it does"
        )
    return shown


def _safe(text: str) -> str:
    return escape(_said(text))


def _said(text: str) -> str:
    """Text for a terminal, where a space that does not break would only be in the way of a search."""
    return clean(text).replace(SPACE, " ")
