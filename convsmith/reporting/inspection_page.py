"""The page of `convsmith inspect`: what a network is made of and costs, what it sees, and how it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from convsmith.reporting.formats import SPACE, percent, sentence, shorten, size
from convsmith.reporting.inspection import Inspection, Row, amount, by
from convsmith.reporting.inspection_charts import cost_bars, field_squares, memory_bars
from convsmith.reporting.inspection_compared import differing, figures
from convsmith.reporting.inspection_graph import flow, mermaid
from convsmith.reporting.inspection_text import discards_cell, field_cells, share_cell
from convsmith.reporting.page import page
from convsmith.reporting.pictures import address
from convsmith.reporting.signal import signal_chart
from convsmith.reporting.templates import Section, fill
from convsmith.reporting.words import Term

BLOCKS_SHOWN = 12
LARGEST = 2_000_000
"""Bytes of a drawing on the user's picture."""
LONGEST = 44
GLOSSARY = {
    "parameters": Term("Parameters", "The numbers that training changes; frozen ones stay as they are."),
    "macs": Term(
        "Multiply-adds (MACs)",
        "One multiplication and one addition each: of convolutions and matrix products, as papers count them. Norms, "
        "activations and pooling are not counted.",
    ),
    "keeps": Term("Keeps", "What training holds of each image, from the forward to the backward pass, for gradients."),
    "discards": Term(
        "Discards", "The share of the numbers that a downsampling does not read, or that find no room in what it gives."
    ),
    "field": Term("Receptive field", "The pixels of the image that one position of a layer's maps can depend on."),
    "stride": Term("Stride", "How many pixels of the image lie between one position of a layer's maps and the next."),
    "offset": Term("Offset", "Where the first position's field has its centre, in pixels from the first pixel."),
    "precision": Term(
        "Precision", "float32 has 32 bits a number; with bfloat16 what is computed has 16, and the weights keep 32."
    ),
    "optimiser": Term(
        "Optimiser", "What turns gradients into steps. Momentum keeps one number more for each weight, AdamW two."
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """The first screen.

    Args:
        headline: what it holds and costs.
        answers: title and sentences of each box.
        command: what to type to see it again.
    """

    headline: str
    answers: list[tuple[str, list[str]]]
    command: str


def render_inspection(ours: Inspection, theirs: Inspection | None = None, *, command: str = "") -> str:
    """Return a network, or two side by side, as one HTML file.

    Args:
        ours: of the network.
        theirs: of the one it is compared with.
        command: what was typed.
    """
    both = [ours] if theirs is None else [ours, theirs]
    sections: list[Section | None] = [None if theirs is None else _compared(ours, theirs)]
    for number, each in enumerate(both):
        mark, of = (f"-{number + 1}", f": {shorten(each.name, 40)}") if theirs else ("", "")
        sections += [
            Section(f"built{mark}", f"How it is built{of}", _built_lead(each), _built(each)),
            _inside(each, mark, of),
            Section(f"cost{mark}", f"Where the cost lies{of}", COST_LEAD, _cost(each)),
            _sees(each, mark, of),
            _through(each, mark, of),
            _memory(each, mark, of),
            _sums(each, mark, of),
            Section(f"layers{mark}", f"Layer by layer{of}", LAYERS_LEAD, _layers(each)),
        ]
    name = ours.name if theirs is None else f"{ours.name} and {theirs.name}"
    return page(
        "inspection_page.html", style="inspection_page.css", glossary=GLOSSARY, kind="network", name=name, made="",
        two=theirs is not None,
        opening=_opening(ours, theirs, command), sections=[section for section in sections if section is not None],
    )  # fmt: skip


COST_LEAD = (
    "Every network trades these against each other: large maps, near the image, cost multiply-adds and memory; small "
    "maps, near the answer, hold the parameters."
)
LAYERS_LEAD = "The figures of each layer for one image. Receptive field, stride and offset are in pixels of the image."


def _opening(ours: Inspection, theirs: Inspection | None, command: str) -> Opening:
    questions = {
        "What it holds": _holds,
        "What it costs": _costs,
        "What it needs": _needs,
        "What it sees": _field_words,
    }
    told = (
        f"{_whole(ours.parameters)} parameters, {_whole(ours.macs)} multiply-adds for each {by(ours.shape[1:])} image"
    )
    if theirs is None:
        answers = [(title, answer(ours)) for title, answer in questions.items()]
        return Opening(f"{_name(ours)}: {told}.", answers, command)
    other = f"{_whole(theirs.parameters)} and {_whole(theirs.macs)}"
    headline = f"{_name(ours)} has {told}; {_name(theirs, 'the other')} has {other}."
    sides = ((_name(ours, "The first"), ours), (_name(theirs, "The other"), theirs))
    answers = [
        (
            title.replace("it", "each"),
            [f"{name}: {answer(side)[-1 if title == 'What it needs' else 0]}" for name, side in sides],
        )
        for title, answer in questions.items()
    ]
    return Opening(headline, answers, command)


def _whole(number: int | None) -> str:
    """A count that no line break parts from its unit."""
    return amount(number).replace(" ", SPACE)


def _name(shown: Inspection, other: str = "This network") -> str:
    """Its name, if it is short enough for a heading, as a line of layers is not."""
    return shorten(shown.name, LONGEST) if len(shown.name) <= LONGEST else other


def _holds(shown: Inspection) -> list[str]:
    frozen = f"{shown.trainable:,} are trained, {shown.frozen:,} are frozen." if shown.frozen else "All are trained."
    told = [f"{shown.parameters:,} parameters in {len(shown.rows)} layers. {frozen}"]
    if shown.parameters:
        heaviest = max(shown.rows, key=lambda row: row.parameters)
        share = percent(heaviest.parameters / shown.parameters)
        told.append(f"The largest layer is {heaviest.path or 'the network itself'}, with {share} of them.")
    return told


def _costs(shown: Inspection) -> list[str]:
    if shown.macs is None:
        return ["Not all products in it are known here, so its multiply-adds are not."]
    told = [f"{shown.macs:,} multiply-adds for one image."]
    spent = [each for each in shown.sizes if each.macs]
    if spent and shown.macs:
        most = max(spent, key=lambda each: each.macs or 0)
        told.append(f"The largest part, {percent((most.macs or 0) / shown.macs)}, goes to {_maps(most.name)}.")
    return told


def _maps(name: str) -> str:
    return "layers without maps" if name == "no maps" else f"maps of {name}"


def _needs(shown: Inspection) -> list[str]:
    told = [f"{size(shown.inference_bytes)} to answer for one image, weights included."]
    by_kind = {(step.precision, step.optimizer): step.peak for step in shown.steps}
    if by_kind:
        full, half = by_kind["float32", "adamw"], by_kind["bfloat16", "adamw"]
        told.append(f"{size(full)} to train on {shown.batch} at once with AdamW, {size(half)} in bfloat16.")
    return told


def _field_words(shown: Inspection) -> list[str]:
    told = [sentence(shown.field_of_last())]
    if shown.gates:
        told.append(f"Besides, {len(shown.gates)} gates look at all of it.")
    return told


def _built_lead(shown: Inspection) -> str:
    return (
        "From the image at the top to the answer at the bottom. Beside each part stands the size of what it gives "
        "(channels, height, width), and its share of the multiply-adds, which is also the bar."
    )


def _built(shown: Inspection) -> Markup:
    return fill(
        "inspection_parts:built", drawing=flow(shown.drawing, f"The network {shown.name}"),
        mermaid=mermaid(shown.drawing),
    )  # fmt: skip


def _inside(shown: Inspection, mark: str, of: str) -> Section | None:
    if not shown.blocks:
        return None
    blocks = [
        (block.type, _others(block.paths), flow(block.drawing, f"The block {block.type}"))
        for block in shown.blocks[:BLOCKS_SHOWN]
    ]
    lead = (
        "Each kind of block once. A line that runs past others and comes back is a shortcut: what came in is kept and "
        "joined later."
    )
    left = len(shown.blocks) - len(blocks)
    return Section(
        f"inside{mark}", f"Inside the blocks{of}", lead, fill("inspection_parts:inside", blocks=blocks, left=left)
    )


def _others(paths: Sequence[str]) -> str:
    first = shorten(paths[0], 40)
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more built like it"


def _cost(shown: Inspection) -> Markup:
    sizes = shown.sizes
    rows = [
        (_maps(each.name), each.layers, f"{each.parameters:,}", amount(each.macs), size(each.activation_bytes))
        for each in sizes
    ]
    return fill("inspection_parts:cost", chart=cost_bars(shown), rows=rows)


def _sees(shown: Inspection, mark: str, of: str) -> Section | None:
    squares = field_squares(shown)
    if not squares and not shown.pictures:
        return None
    lead = (
        "The frame is the image. The square is what one position in the middle of the maps can depend on, at the end "
        "of each stage; the dots are where the positions look. Padding counts, so a field can be larger than the image."
    )
    notes = []
    if shown.gates:
        notes.append(f"Left out are the gates, which weigh channels by all of the image: {_some(shown.gates)}.")
    if shown.statistics:
        notes.append(f"Left out are the statistics over all positions of the norms {_some(shown.statistics)}.")
    return Section(
        f"sees{mark}", f"What it sees{of}", lead,
        fill("inspection_parts:sees", squares=squares, notes=notes, pictures=_pictures(shown), values=shown.values),
    )  # fmt: skip


def _pictures(shown: Inspection) -> list[tuple[str, str, str]]:
    """Address, name and sentence of each stage's drawing on the user's picture."""
    return [(address(each.png, most=LARGEST), each.name, each.sentence) for each in shown.pictures]


def _through(shown: Inspection, mark: str, of: str) -> Section | None:
    if not shown.depths:
        return None
    lead = (
        "The variance of what each layer gives, on a logarithmic scale, from the image at the left to the answer at "
        f"the right, for {shown.depths[0].images} images of independent normal numbers. Where it falls or grows from "
        "layer to layer, so does the gradient's, and a deep network does not begin to learn (Glorot and Bengio 2010; "
        "He et al. 2015)."
    )
    charts = [(each.name, sentence(each.says), each.sentence, signal_chart(each.signals)) for each in shown.depths]
    return Section(
        f"signal{mark}", f"The signal through depth{of}", lead, fill("inspection_parts:signal", charts=charts)
    )


def _some(paths: Sequence[str]) -> str:
    return ", ".join(shorten(path, 40) for path in paths[:3]) + (
        f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    )


def _memory(shown: Inspection, mark: str, of: str) -> Section | None:
    if not shown.steps:
        return None
    lead = (
        f"The most that a training step of {shown.batch} images holds at any moment, found by going through it without "
        "computing, with what convolutions on a processor take for a moment. What PyTorch itself takes comes on top."
    )
    rows = [
        (f"{step.precision}, {_optimizer(step.optimizer)}",
         *map(size, (step.weights, step.gradients, step.state, step.activations, step.peak)))
        for step in shown.steps
    ]  # fmt: skip
    body = fill("inspection_parts:memory", chart=memory_bars(shown), rows=rows)
    return Section(f"memory{mark}", f"Memory of training{of}", lead, body)


def _optimizer(name: str) -> str:
    return {"sgd": "SGD", "momentum": "SGD with momentum", "adamw": "AdamW"}.get(name, name)


def _sums(shown: Inspection, mark: str, of: str) -> Section | None:
    if not shown.sums:
        return None
    lead = "How each window comes to the size that it leaves: what fits, in steps of the stride, rounded down."
    return Section(
        f"sums{mark}", f"How sizes come about{of}", lead, fill("inspection_parts:sums", rows=list(shown.sums.items()))
    )


def _layers(shown: Inspection) -> Markup:
    folded = [_cells(shown, row) for row in shown.folded]
    every = [_cells(shown, row) for row in shown.rows] if len(shown.rows) > len(shown.folded) else []
    total = (f"{shown.parameters:,}", amount(shown.macs), size(shown.activation_bytes))
    return fill("inspection_parts:layers", folded=folded, every=every, total=total, notes=list(shown.notes))


def _cells(shown: Inspection, row: Row) -> dict[str, Any]:
    more = f", {row.layers} layers" if row.layers > 1 else ""
    return {
        "path": row.path or "the network itself", "detail": f"{row.detail}{more}", "output": by(row.output),
        "parameters": f"{row.parameters:,}" if row.parameters else "",
        "macs": amount(row.macs) if row.macs != 0 else "",
        "share": share_cell(row.macs, shown.macs),
        "keeps": "?" if row.activation_bytes is None else size(row.activation_bytes) if row.activation_bytes else "",
        "discards": discards_cell(row), "field": field_cells(row.field),
    }  # fmt: skip


def _compared(ours: Inspection, theirs: Inspection) -> Section:
    pairs = differing(ours, theirs)
    told = None if pairs is None else [(path, _row_words(one), _row_words(other)) for path, one, other in pairs]
    body = fill(
        "inspection_parts:compared", names=(ours.name, theirs.name), rows=figures(ours, theirs), pairs=told,
        charts=[(side.name, cost_bars(side)) for side in (ours, theirs)],
    )  # fmt: skip
    return Section(
        "compared", "Side by side", "The same measures of both, and how much more or less the second has.", body
    )


def _row_words(row: Row | None) -> str:
    return "none" if row is None else f"{row.detail}, gives {by(row.output)}, {row.parameters:,} parameters"
