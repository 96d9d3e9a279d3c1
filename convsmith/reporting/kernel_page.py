"""The page of `convsmith kernels`: a window that the arrow keys move over a picture, and every sum that it makes.

All that the page shows at first is drawn here, so that it can be read where no script may run; the script in
`kernel_page.js` then takes over and computes the same from the same numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from convsmith.reporting.formats import percent, sentence, shorten, some
from convsmith.reporting.kernel_drawings import Scale, around_zero, brief, figure, png, scale, shade, tint
from convsmith.reporting.page import page
from convsmith.reporting.pictures import TINY
from convsmith.reporting.svg import element
from convsmith.reporting.templates import Section, fill
from convsmith.reporting.words import Term

#: Pixels of a picture's longer side up to which each shows its number.
NUMBERED = 14
#: Units of a drawing over a picture for each pixel: letters of less than one unit are not drawn well.
UNIT = 40
THUMBNAIL = 200
TERMS = 25
CHANNELS = ("red", "green", "blue")

GLOSSARY = {
    "kernel": Term("Kernel", "A small table of numbers, which decide what it finds: edges, lines, blobs, or blur."),
    "patch": Term("Patch", "The pixels that lie under the kernel at one place."),
    "sum": Term("Products and sum", "Each pixel of the patch times the number on it; their sum is one output pixel."),
    "convolution": Term(
        "Convolution",
        "The same kernel at every place of the picture. As in every network it is not turned round first; mathematics "
        "calls that a cross-correlation.",
    ),
    "padding": Term(
        "Padding",
        "Pixels added around the picture, so that the kernel can stand at the edge: zeros, the mirror image (reflect), "
        "the edge again (replicate), or the other end (circular). Valid adds none, and the output is smaller.",
    ),
    "stride": Term("Stride", "How many pixels the window moves at a time. 2 halves the output's height and width."),
    "dilation": Term("Dilation", "How far the numbers stand apart. 2 leaves one pixel between, so 3 numbers span 5."),
    "pooling": Term("Pooling", "A window without numbers: it keeps the largest value under it, or the mean."),
    "signed": Term("Mid grey", "An output of 0, where it can be negative; white is above and black below."),
    "cosine": Term("Likeness (cosine)", "1 where two have the same shape at any strength, 0 where they share nothing."),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One place of the output and how it came about; arrays have a last axis of channels where the picture has colours.

    Args:
        row, column: of the output.
        rows, columns: of the picture under the kernel's rows and columns; None without a kernel.
        patch, products: `[kh, kw]`.
        total: their sum, `[]` or `[C]`.
        pool_patch: the values that pooling looks at, `[K, K]`; None without pooling.
        result: the output's value, `[]` or `[C]`.
    """

    row: int
    column: int
    rows: np.ndarray | None
    columns: np.ndarray | None
    patch: np.ndarray | None
    products: np.ndarray | None
    total: np.ndarray | None
    pool_patch: np.ndarray | None
    result: np.ndarray


@dataclass(frozen=True)
class Example:
    """A classical kernel and what it makes of the picture.

    Args:
        name, summary, source: as in the table of kernels.
        kernel: `[kh, kw]`.
        output: `[H, W]` or `[H, W, 3]`.
    """

    name: str
    summary: str
    source: str
    kernel: np.ndarray
    output: np.ndarray


@dataclass(frozen=True)
class LearntFilter:
    """One filter of a trained network.

    Args:
        index: its number in the layer.
        shapes: at each moment, `[C, k, k]`.
        likenesses: at each moment, what it is most like in words, the cosine, and whether that is near.
        nearest: the classical kernel that it is most like in the end, `[k, k]`.
        kept: cosine between its first and last shape.
        response: what it makes of the picture in the end, `[H, W]`.
    """

    index: int
    shapes: Sequence[np.ndarray]
    likenesses: Sequence[tuple[str, float, bool]]
    nearest: np.ndarray
    kept: float
    response: np.ndarray


@dataclass(frozen=True)
class Learnt:
    """The first layer of a run.

    Args:
        run: its name.
        layer: such as `conv 1->8 k3 s1`.
        moments: label and origin of each.
        filters: all of them.
        threshold: the cosine from which on a filter is near a kernel.
        notes: what is missing, in sentences.
    """

    run: str
    layer: str
    moments: Sequence[tuple[str, str]]
    filters: Sequence[LearntFilter]
    threshold: float
    notes: Sequence[str]


@dataclass(frozen=True)
class KernelRecord:
    """All that the page shows.

    Args:
        name: of the picture.
        note: its size, and what was done to it.
        values: `[H, W]` or `[H, W, 3]`.
        low, high: the values that are black and white.
        kernel_name, summary: of the kernel.
        kernel: `[kh, kw]`, None where only pooling is done.
        padding, stride, dilation: as typed.
        margins: pixels of padding before and after rows and columns.
        padded, output: before the kernel, and after kernel and pooling.
        pool: kind, size and stride, or None.
        place: where the window stands at first.
        gallery: the classical kernels.
        learnt: the first layer of a run, or None.
        command: what makes this page.
    """

    name: str
    note: str
    values: np.ndarray
    low: float
    high: float
    kernel_name: str
    summary: str
    kernel: np.ndarray | None
    padding: str
    stride: int
    dilation: int
    margins: tuple[tuple[int, int], tuple[int, int]]
    padded: np.ndarray
    output: np.ndarray
    pool: tuple[str, int, int] | None
    place: Place
    gallery: Sequence[Example]
    learnt: Learnt | None
    command: str


def render_kernels(record: KernelRecord) -> str:
    """Return the page of `convsmith kernels` as one HTML file, made from the record alone.

    Args:
        record: what was computed.
    """
    sections = [_gallery(record), _learnt(record.learnt) if record.learnt else None]
    name = shorten(record.name, 80)
    return page(
        "kernel_page.html", style="kernel_page.css", script="kernel_page.js", glossary=GLOSSARY, kind="kernel lab",
        name=name, made="", sections=[section for section in sections if section], record=record, data=_data(record),
        headline=headline(record), summary=sentence(record.summary), lab=_lab(record), where=where(record),
    )  # fmt: skip


def headline(record: KernelRecord) -> str:
    """What the page is about, in a line."""
    if record.kernel is None:
        assert record.pool is not None
        return f"What {record.pool[0]} pooling keeps"
    name = record.kernel_name.partition(":")[0]
    return f"What {f'{name} kernel' if name == 'your own' else name} makes of the picture"


def where(record: KernelRecord) -> str:
    """Where the window stands, in a sentence."""
    place = record.place
    told = f"Output row {place.row}, column {place.column}"
    if place.rows is None or place.columns is None:
        return f"{told}."
    spans = [f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in (place.rows, place.columns)]
    spans = [span.replace("-", "−") for span in spans]
    if record.pool:
        which = "the largest of them comes" if record.pool[0] == "max" else "the first of them comes"
        return f"{told}: {which} from rows {spans[0]}, columns {spans[1]} of the picture."
    return f"{told}, from rows {spans[0]}, columns {spans[1]} of the picture."


def _data(record: KernelRecord) -> dict[str, Any]:
    """What the script computes with."""
    values = record.values
    height, width = values.shape[:2]
    whole = bool((values == np.round(values)).all() and values.min() >= 0 and values.max() <= 255)
    kernels = [
        {"name": item.name, "summary": item.summary, "rows": item.kernel.tolist()} for item in record.gallery
    ]  # fmt: skip
    if record.learnt:
        whose = f"of {record.learnt.run}, at {record.learnt.moments[-1][0]}"
        kernels += [
            {"name": f"learnt filter {filter_.index}", "summary": whose,
             "rows": filter_.shapes[-1][0].astype(float).tolist()}
            for filter_ in record.learnt.filters
            if filter_.shapes[-1].shape[0] == 1
        ]  # fmt: skip
    chosen = None
    if record.kernel is not None:
        chosen = {"name": record.kernel_name, "summary": record.summary, "rows": record.kernel.tolist()}
    return {
        "height": height, "width": width, "channels": 1 if values.ndim == 2 else 3,
        "low": record.low, "high": record.high, "kernels": kernels, "chosen": chosen,
        "base64": base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii") if whole else None,
        "values": None if whole else values.ravel().tolist(),
        "padding": record.padding, "stride": record.stride, "dilation": record.dilation, "pool": record.pool,
        "row": record.place.row, "column": record.place.column,
    }  # fmt: skip


def _lab(record: KernelRecord) -> dict[str, Any]:
    """The drawings and tables of the first screen."""
    place, (top, left) = record.place, (record.margins[0][0], record.margins[1][0])
    given = Scale(record.low, record.high, signed=False)
    drawn = scale(record.output, record.kernel, record.low, record.high)
    height, width = record.values.shape[:2]
    step = record.pool[2] if record.pool else 1
    marks = [_outline(left, top, width, height)] if any(map(any, record.margins)) else []
    if place.rows is not None and place.columns is not None:
        taps = [(int(row) + top, int(column) + left) for row in place.rows for column in place.columns]
    elif record.pool:
        size = record.pool[1]
        taps = [(step * place.row + i, step * place.column + j) for i in range(size) for j in range(size)]
    else:
        taps = []
    return {
        "input": _pane(record.padded, given, taps, marks, "the picture"),
        "output": _pane(record.output, drawn, [(place.row, place.column)], [], "the output"),
        "says": f"Output: {drawn.says(record.output)[0].lower()}{drawn.says(record.output)[1:]}",
        "tile": "" if record.kernel is None else tile(record.kernel[None]),
        "kernel_size": "" if record.kernel is None else f"{record.kernel.shape[0]} x {record.kernel.shape[1]}",
        "tables": _tables(record, drawn),
        "result": [figure(value) for value in np.atleast_1d(place.result)],
        "terms": _terms(place, record),
    }


def _pane(
    values: np.ndarray, drawn: Scale, taps: Sequence[tuple[int, int]], marks: Sequence[Markup], what: str
) -> dict[str, Any]:
    """A picture with what is drawn over it."""
    height, width = values.shape[:2]
    longer = max(height, width)
    over = [*marks, *_window(taps, longer)]
    if longer <= NUMBERED and values.ndim == 2:
        over += _numbers(values, drawn)
    return {
        "address": png(values, drawn), "tiny": longer <= TINY, "form": form(height, width),
        "size": f"{height} x {width}", "alt": f"{what}, {height} rows and {width} columns",
        "over": element("svg", *over, viewBox=f"0 0 {UNIT * width} {UNIT * height}", aria_hidden="true"),
    }  # fmt: skip


def _window(taps: Sequence[tuple[int, int]], longer: int) -> list[Markup]:
    """A frame around what the kernel covers, wide enough to be seen; on a small picture also each tap, if apart."""
    if not taps:
        return []
    rows, columns = [row for row, _ in taps], [column for _, column in taps]
    height, width = max(rows) - min(rows) + 1, max(columns) - min(columns) + 1
    least = longer / 28
    tall, wide = max(height, least), max(width, least)
    box = {
        "x": UNIT * (min(columns) + (width - wide) / 2), "y": UNIT * (min(rows) + (height - tall) / 2),
        "width": UNIT * wide, "height": UNIT * tall,
    }  # fmt: skip
    frame = [element("rect", class_="halo", **box), element("rect", class_="frame", **box)]
    if longer > TINY or len(taps) == height * width:
        return frame
    dots = [
        element("rect", class_="tap", x=UNIT * column + 1, y=UNIT * row + 1, width=UNIT - 2, height=UNIT - 2)
        for row, column in taps
    ]
    return [*dots, *frame]


def _outline(left: int, top: int, width: int, height: int) -> Markup:
    """Where the picture ends and its padding begins."""
    return element("rect", class_="edge-of", x=UNIT * left, y=UNIT * top, width=UNIT * width, height=UNIT * height)


def _numbers(values: np.ndarray, drawn: Scale) -> list[Markup]:
    words = np.vectorize(brief)(values)
    size = "long" if max(map(len, words.flat)) > 4 else "short"
    size += " many" if max(values.shape) > 6 else ""  # too small to be read on a phone
    made = []
    for row, column in np.ndindex(values.shape):
        kind = "dark" if drawn.grey(values[row, column]) > 140 else "light"
        made.append(
            element(
                "text", str(words[row, column]), class_=f"{kind} {size}", x=UNIT * (column + 0.5), y=UNIT * (row + 0.5)
            )
        )  # fmt: skip
    return made


def form(height: int, width: int) -> str:
    """The class by which a picture is given its room, so that the sum below it is still on the first screen."""
    return "wide" if width > 1.2 * height else "tall" if height > 1.2 * width else "square"


def _tables(record: KernelRecord, drawn: Scale) -> list[dict[str, Any]]:
    """Patch, kernel and products, and what pooling looks at; of several channels the first, as the script begins."""
    place, made = record.place, []
    if place.patch is not None and record.kernel is not None and place.rows is not None and place.columns is not None:
        patch, products = _first(place.patch), _first(np.asarray(place.products))
        inside = np.outer(
            (place.rows >= 0) & (place.rows < record.values.shape[0]),
            (place.columns >= 0) & (place.columns < record.values.shape[1]),
        )
        most, product = float(np.abs(record.kernel).max()), float(np.abs(products).max())
        made = [
            _table("patch", "Patch", patch, lambda value: shade(value, record.low, record.high), inside),
            _table("kernel", "Kernel", record.kernel, lambda value: tint(value, most)),
            _table("products", "Products", products, lambda value: tint(value, product)),
        ]
    if place.pool_patch is not None and record.pool is not None:
        seen = _first(place.pool_patch)
        pool = _table(
            "pool", "Pooling looks at", seen, lambda value: f"g{round(int(drawn.grey(np.array(value))) / 255 * 16)}"
        )
        if record.pool[0] == "max":
            row, column = np.unravel_index(int(seen.argmax()), seen.shape)
            words, kind = pool["rows"][row][column]
            pool["rows"][row][column] = (words, f"{kind} won")
        made.append(pool)
    return made


def _table(key: str, title: str, values: np.ndarray, kind: Any, inside: np.ndarray | None = None) -> dict[str, Any]:
    rows = [
        [
            (figure(value), kind(float(value)) + ("" if inside is None or inside[i, j] else " beyond"))
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(values)
    ]
    return {"key": key, "title": title, "rows": rows, "small": values.shape[1] > 5}


def _terms(place: Place, record: KernelRecord) -> str:
    """The sum written out, where it is short enough to be read."""
    if place.products is None or place.total is None or place.products.shape[0] * place.products.shape[1] > TERMS:
        return ""
    terms = [figure(value) for value in _first(place.products).ravel()]
    joined = terms[0] + "".join(f" − {term[1:]}" if term.startswith("−") else f" + {term}" for term in terms[1:])
    return f"{joined} = {figure(float(np.atleast_1d(place.total)[0]))}"


def _first(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 2 else values[..., 0]


def _gallery(record: KernelRecord) -> Section | None:
    """The picture under every classical kernel."""
    if not record.gallery:
        return None
    shown = [
        {
            "address": png(item.output, scale(item.output, item.kernel, record.low, record.high), longest=THUMBNAIL),
            "tiny": max(item.output.shape[:2]) <= TINY, "name": item.name, "summary": item.summary,
            "source": item.source, "index": index, "tile": tile(item.kernel[None]),
        }
        for index, item in enumerate(record.gallery)
    ]  # fmt: skip
    lead = "The same picture under each of them: what stands out is what the kernel's numbers are made for."
    return Section("classical", "The classical kernels", lead, fill("kernel_parts:gallery", shown=shown))


def _learnt(learnt: Learnt) -> Section:
    """The filters of a run from its start to its end."""
    near = [
        sum(filter_.likenesses[moment][2] for filter_ in learnt.filters) for moment in range(len(learnt.moments))
    ]  # fmt: skip
    rows = [
        {
            "index": filter_.index,
            "cells": [
                {"tile": tile(shape), "says": says, "cosine": f"{cosine:.2f}", "near": is_near}
                for shape, (says, cosine, is_near) in zip(filter_.shapes, filter_.likenesses, strict=True)
            ],
            "nearest": tile(filter_.nearest[None]),
            "kept": f"{filter_.kept:.2f}".replace("-", "−"),
            "address": png(filter_.response, around_zero(filter_.response), longest=THUMBNAIL),
            "tiny": max(filter_.response.shape) <= TINY,
        }
        for filter_ in sorted(learnt.filters, key=lambda each: -each.likenesses[-1][1])
    ]
    count = len(learnt.filters)
    strips = [
        (f"{label.capitalize()}: {origin}", [tile(filter_.shapes[moment]) for filter_ in learnt.filters])
        for moment, (label, origin) in enumerate(learnt.moments)
    ]
    counted = [
        f"{label}: {number} of {count} ({percent(number / count, 0)})"
        for (label, _), number in zip(learnt.moments, near, strict=True)
    ]
    size = learnt.filters[0].shapes[0].shape[-1]
    lead = (
        f"{some(count, 'filter')} of the first layer of {shorten(learnt.run, 60)}, {learnt.layer}. Nobody told the "
        "network what to look for; beside each filter stands the classical kernel that it is most like."
    )
    return Section(
        "learnt", "What a network has learnt", lead,
        fill("kernel_parts:learnt", rows=rows, strips=strips, moments=[label for label, _ in learnt.moments],
             counted=counted, notes=learnt.notes,
             threshold=f"{learnt.threshold:.2f}", size=f"{size}x{size}"),
    )  # fmt: skip


def tile(shape: np.ndarray) -> Markup:
    """A filter `[C, k, k]` as a small drawing: in two colours by sign, or of three channels in their colours."""
    channels, height, width = shape.shape
    most = float(np.abs(shape).max()) or 1.0
    drawn = []
    for row, column in np.ndindex(height, width):
        place = {"x": UNIT * column, "y": UNIT * row, "width": UNIT, "height": UNIT}
        if channels == 3:
            red, green, blue = (round(127.5 + 127.5 * float(value) / most) for value in shape[:, row, column])
            drawn.append(element("rect", fill=f"rgb({red},{green},{blue})", **place))
            continue
        value = float(shape[:, row, column].mean())
        strength = round(abs(value) / most, 3)
        if strength:
            drawn.append(element("rect", class_="minus" if value < 0 else "plus", fill_opacity=strength, **place))
    frame = element("rect", class_="outline", x=0, y=0, width=UNIT * width, height=UNIT * height)
    return element(
        "svg", *drawn, frame, viewBox=f"0 0 {UNIT * width} {UNIT * height}", class_="tile", aria_hidden="true"
    )
