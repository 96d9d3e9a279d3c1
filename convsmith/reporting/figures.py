"""Charts as inline SVG: pure functions from numbers to markup.

A chart has no `viewBox`. Places along the width are percentages and heights are pixels, so that one SVG fits every
screen while its letters keep their size. Lines, which cannot be given in percentages, sit in an inner SVG that is
stretched, their strokes kept even by `vector-effect`. Colours are classes, because a strict content policy allows no
inline style and because light and dark share one drawing. The margins of a chart are the padding of its frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from convsmith.reporting.formats import fit, number, percent, text_width
from convsmith.reporting.svg import at, chart, curve, element, label, short, text, upright

Interval = Mapping[str, Any]
Point = tuple[float, float]


def interval_bar(estimate: Interval, *, marks: Sequence[tuple[str, float]], kind: str = "good") -> Markup:
    """The headline: a share of the whole, its interval, and what it has to beat.

    Args:
        estimate: an `Estimate` between 0 and 1 as JSON.
        marks: label and value of each baseline, drawn below the bar on a row of its own.
        kind: the verdict's kind, a class for the colour.
    """
    value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
    top, thick, words = 30, 26, percent(value)
    drawn = [element("rect", class_="track", x="0", y=top, width="100%", height=thick, rx=3)]
    if low is None or high is None:
        drawn.append(element("rect", class_="fill", x="0", y=top, width=at(value), height=thick, rx=3))
    else:
        drawn.append(element("rect", class_="fill", x="0", y=top, width=at(low), height=thick, rx=3))
        drawn.append(element("rect", class_="band", x=at(low), y=top, width=at(high - low), height=thick))
        drawn += [upright("edge", end, top - 4, top + thick + 4) for end in (low, high)]
        words += f" ({percent(low)} to {percent(high)})"
    drawn.append(upright("value", value, top, top + thick))
    drawn.append(label(words, value, top - 12, "strong"))
    row = top + thick + 22
    for name, place in marks:
        drawn.append(upright("over" if place < value else "mark", place, top, top + thick))
        drawn.append(upright("mark", place, top + thick, row - 12))
        drawn.append(label(f"{name}: {percent(place)}", place, row, "quiet"))
        row += 20
    drawn.append(text("0", "0", row, "tick", "start"))
    drawn.append(text("100 %", "100%", row, "tick", "end"))
    summary = f"{words}. " + "; ".join(f"{name} {percent(place)}" for name, place in marks)
    return chart(drawn, row + 6, summary, f"interval {kind}")


def interval_rows(
    rows: Sequence[tuple[str, Interval]], *, what: str, reference: float | None = None, wide: bool = False
) -> Markup:
    """Dot and whisker for each row on one scale that ends at 100 %; a row without a value says so.

    The scale begins at 0, or at 50, 75 or 90 % where all whiskers lie above that: places carry the figures here, and
    not lengths.

    Args:
        rows: name and `Estimate` as JSON, drawn from the top in the given order.
        what: what the rows show, for the description.
        reference: a value drawn as one line through all rows, such as the mean.
        wide: whether names have half as much room again.
    """
    pitch, top = 26, 8
    height = top + pitch * len(rows)
    begin = _begin([estimate for _, estimate in rows], reference)

    def place(share: float) -> float:
        return (share - begin) / (1 - begin)

    drawn = [upright("grid", tick / 4, 0, height) for tick in range(5)]
    if reference is not None:
        drawn.append(upright("mark", place(reference), 0, height))
    for position, (name, estimate) in enumerate(rows):
        middle = top + pitch * position + pitch / 2 - 2
        drawn.append(text(fit(name, 13 if wide else 8.2), "0", middle + 4, "name", "end", dx=-12))
        value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
        if value is None:
            drawn.append(text("not defined", "2", middle + 4, "quiet", "start"))
            continue
        if low is not None and high is not None:
            drawn.append(element("line", class_="whisker", x1=at(place(low)), x2=at(place(high)), y1=middle, y2=middle))
        drawn.append(element("circle", class_="dot", cx=at(place(value)), cy=middle, r=4.5))
        drawn.append(text(percent(value), "100%", middle + 4, "number", "start", dx=12))
    for tick in (begin, (begin + 1) / 2, 1):
        words = percent(tick, 0 if round(200 * tick) % 2 == 0 else 1)
        drawn.append(text(words, at(place(tick)), height + 18, "tick", "middle"))
    kind = "rows wide" if wide else "rows"
    return chart(drawn, height + 24, f"{what} with its interval; the table below holds the figures", kind)


def _begin(estimates: Sequence[Interval], reference: float | None) -> float:
    lows = [
        item["value"] if item.get("low") is None else item["low"] for item in estimates if item["value"] is not None
    ]
    lowest = min([*lows, 1.0 if reference is None else reference], default=0.0)
    return max(start for start in (0.0, 0.5, 0.75, 0.9) if start <= max(lowest, 0.0))


def confusion_matrix(
    classes: Sequence[str], counts: Sequence[Sequence[int]], links: Mapping[tuple[int, int], str] | None = None
) -> Markup:
    """True classes down, predicted across; the shade is the share of the row, right in one colour, wrong in another.

    Args:
        classes: names, in the order of rows and columns.
        counts: `[K, K]`.
        links: row and column of a cell to the anchor that it leads to.
    """
    number_of, links = len(classes), links or {}
    side = 34 if number_of <= 12 else 26
    labels = [fit(name, 7.2) for name in classes]
    head = 14 + round(13 * max(map(text_width, labels), default=0.0))
    step = 100 / max(number_of, 1)
    drawn: list[Markup] = []
    small = number_of > 12 or max((count for row in counts for count in row), default=0) > 9999
    # Shades of mistakes run up to the largest share, yet a rare mistake never looks like a common one.
    off = [count / sum(line) for row, line in enumerate(counts) for k, count in enumerate(line) if k != row and count]
    most_wrong = max([0.15, *off])
    for column, name in enumerate(labels):
        turned = element("text", name, class_="name", transform="rotate(-90)", x=0, y=4, text_anchor="start")
        drawn.append(element("svg", turned, x=f"{short((column + 0.5) * step)}%", y=head - 8, overflow="visible"))
    for row, (name, line) in enumerate(zip(labels, counts, strict=True)):
        y, total = head + row * side, sum(line)
        drawn.append(text(name, "0", y + side / 2 + 4, "name", "end", dx=-10))
        for column, count in enumerate(line):
            share = count / total if total else 0.0
            kind = "right" if row == column else "wrong"
            shade = 0.45 * math.sqrt(share if row == column else min(share / most_wrong, 1.0))
            place = {"x": f"{short(column * step)}%", "width": f"{short(step)}%"}
            cell = [element("rect", class_=f"cell {kind}", y=y, height=side, fill_opacity=round(shade, 3), **place)]
            if count and not small:
                middle = f"{short((column + 0.5) * step)}%"
                cell.append(text(number(count), middle, y + side / 2 + 4, "count", "middle"))
            if (row, column) in links:
                told = f"“{classes[row]}” taken for “{classes[column]}”, {number(count)} times: show the pictures"
                cell = [element("a", *cell, href=f"#{links[row, column]}", aria_label=told)]
            drawn += cell
    drawn.append(element("rect", class_="outline", x=0, y=head, width="100%", height=side * number_of))
    described = (
        "Confusion matrix: rows are the true classes, columns the predicted ones; the table below holds the counts"
    )
    return chart(drawn, head + side * number_of + 4, described, "matrix", links=bool(links))


def count_bars(rows: Sequence[tuple[str, Sequence[int]]]) -> Markup:
    """Images of each class as a bar of parts, such as train, tune and test, on one scale.

    Args:
        rows: class and its counts, in the order of the parts; drawn from the top.
    """
    pitch, thick = 24, 14
    most = max((sum(counts) for _, counts in rows), default=0) or 1
    drawn = []
    for position, (name, counts) in enumerate(rows):
        y, begin = pitch * position + 4, 0
        drawn.append(text(fit(name, 8.2), "0", y + 11, "name", "end", dx=-12))
        for part, count in zip("abc", counts, strict=False):
            if count:
                place = {"x": at(begin / most), "width": at(count / most)}
                drawn.append(element("rect", class_=f"part-{part}", y=y, height=thick, **place))
            begin += count
        drawn.append(text(number(begin), "100%", y + 11, "number", "start", dx=12))
    return chart(drawn, pitch * len(rows) + 4, "Images of each class; the table below holds the counts", "rows counts")


def learning_curve(points: Sequence[tuple[int, Interval]]) -> Markup:
    """A share with its interval against the number of training images, whose scale is logarithmic.

    Args:
        points: training images, above 0, and an `Estimate` between 0 and 1 as JSON that has a value.
    """
    height, places = 220, [math.log(images) for images, _ in points]
    first, span = min(places), (max(places) - min(places)) or 1.0
    ends = [end for _, item in points for end in (item.get("low"), item["value"], item.get("high")) if end is not None]
    low, high, ticks = scale(min(ends), max(ends), share=True)
    drawn = []

    def up(share: float) -> float:
        return height - (share - low) / (high - low) * height

    for tick in ticks:
        drawn.append(element("line", class_="grid", x1="0", x2="100%", y1=up(tick), y2=up(tick)))
        words = _tick(tick, (high - low) / max(len(ticks) - 1, 1), share=True)
        drawn.append(text(words, "0", up(tick) + 4, "tick", "end", dx=-10))
    across = [0.04 + 0.92 * (place - first) / span for place in places]
    drawn.append(
        curve("a", [(x, (item["value"] - low) / (high - low)) for x, (_, item) in zip(across, points, strict=True)],
               height)
    )  # fmt: skip
    for x, (_, item) in zip(across, points, strict=True):
        if item.get("low") is not None and item.get("high") is not None:
            ends_at = {"y1": up(item["low"]), "y2": up(item["high"])}
            drawn.append(element("line", class_="whisker", x1=at(x), x2=at(x), **ends_at))
        drawn.append(element("circle", class_="point a", cx=at(x), cy=up(item["value"]), r=4.5))
    free = 2.0
    for x, (images, _) in reversed(list(zip(across, points, strict=True))):
        if free - x > 0.16:  # numbers so close that their letters would meet are left to the table
            drawn.append(text(number(images), at(x), height + 20, "tick", "middle"))
            free = x
    described = "Share right against the number of training images; the table below holds the figures"
    return chart(drawn, height + 26, described, "lines learning")


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Stated confidence across, share that was right up, with intervals; on the diagonal the two agree."""
    side = 300
    most = max((item["n"] for item in bins), default=1) or 1
    drawn = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = side - tick * side
        drawn.append(element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        if tick in (0, 0.5, 1):
            drawn.append(text(percent(tick, 0), "0", y + 4, "tick", "end", dx=-10))
            drawn.append(text(percent(tick, 0), at(tick), side + 20, "tick", "middle"))
    drawn.append(element("line", class_="diagonal", x1="0", y1=side, x2="100%", y2=0))
    for item in bins:
        estimate = item["accuracy"]
        if estimate["value"] is None or item["confidence"] is None:
            continue
        x = at(item["confidence"])
        radius = 2.5 + 4.5 * math.sqrt(item["n"] / most)
        low, high = estimate.get("low"), estimate.get("high")
        if low is not None and high is not None:
            drawn.append(element("line", class_="whisker", x1=x, x2=x, y1=side * (1 - low), y2=side * (1 - high)))
        drawn.append(element("circle", class_="dot", cx=x, cy=side * (1 - estimate["value"]), r=radius))
    described = "Reliability diagram: share right against stated confidence; the table below holds the figures"
    return chart(drawn, side + 26, described, "square")


def line_chart(
    series: Sequence[tuple[str, Sequence[Point]]], *, what: str, end: float, share: bool = False, height: int = 190
) -> Markup:
    """Lines over the course of training, at most four, from 0 to `end` epochs.

    Args:
        series: a class for the colour (`a`, `b`) and the points; few points are also drawn as dots.
        what: a description for those who do not see the chart.
        end: the right end of the horizontal scale.
        share: whether the vertical scale is a percentage, which need not begin at 0.
    """
    values = [value for _, points in series for _, value in points]
    low, high, ticks = scale(min(values, default=0.0), max(values, default=1.0), share=share)
    span = high - low
    drawn = []
    for tick in ticks:
        y = height - (tick - low) / span * height
        drawn.append(element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        drawn.append(text(_tick(tick, span / (len(ticks) - 1), share=share), "0", y + 4, "tick", "end", dx=-10))
    for kind, points in series:
        drawn.append(curve(kind, [(x / end, (value - low) / span) for x, value in points], height))
        if len(points) <= 24:
            for x, value in points:
                y = height - (value - low) / span * height
                drawn.append(element("circle", class_=f"point {kind}", cx=at(x / end), cy=y, r=3.5))
    for tick in scale(0.0, end, count=4)[2]:
        if tick <= end * 1.0001:
            drawn.append(text(f"{tick:g}", at(tick / end), height + 20, "tick", "middle"))
    return chart(drawn, height + 26, what, "lines")


def scale(low: float, high: float, *, share: bool = False, count: int = 4) -> tuple[float, float, list[float]]:
    """Return round ends and ticks that hold `low` and `high`; only a share may begin above 0."""
    low = low - 0.1 * (high - low) if share and high > low else min(low, 0.0)
    if not high > low:
        high = low + 1.0
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if share else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if share:
        first, last = max(first, 0), min(last, math.floor(1 / step + 1e-9)) if high <= 1 else last
        if last * step < high:
            last += 1
    ticks = [index * step for index in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _tick(value: float, step: float, *, share: bool) -> str:
    if share:
        return percent(round(value, 9), 0 if step >= 0.00999 else 1 if step >= 0.00099 else 2)
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
