"""Charts as inline SVG: pure functions from numbers to markup.

A chart has no `viewBox`. Places along the width are percentages and heights are pixels, so that one SVG fits every
screen while its letters keep their size. Lines, which cannot be given in percentages, sit in an inner SVG that is
stretched, their strokes kept even by `vector-effect`. Colours are classes, because a strict content policy allows no
inline style and because light and dark share one drawing. The margins of a chart are the padding of its frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from convsmith.reporting.formats import clean, fit, number, percent, text_width

Interval = Mapping[str, Any]
Point = tuple[float, float]


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return one element; text is cleaned and escaped, `Markup` is taken as it is, `_` in attribute names means `-`."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(clean(_short(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>")


def interval_bar(estimate: Interval, *, marks: Sequence[tuple[str, float]], tone: str = "good") -> Markup:
    """The headline: a share of the whole, its interval, and what it has to beat.

    Args:
        estimate: an `Estimate` between 0 and 1 as JSON.
        marks: label and value of each baseline, drawn below the bar on a row of its own.
        tone: a class for the colour.
    """
    value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
    top, thick, words = 30, 26, percent(value)
    drawn = [element("rect", class_="track", x="0", y=top, width="100%", height=thick, rx=3)]
    if low is None or high is None:
        drawn.append(element("rect", class_="fill", x="0", y=top, width=_at(value), height=thick, rx=3))
    else:
        drawn.append(element("rect", class_="fill", x="0", y=top, width=_at(low), height=thick, rx=3))
        drawn.append(element("rect", class_="band", x=_at(low), y=top, width=_at(high - low), height=thick))
        drawn += [_upright("edge", end, top - 4, top + thick + 4) for end in (low, high)]
        words += f" ({percent(low)} to {percent(high)})"
    drawn.append(_upright("value", value, top, top + thick))
    drawn.append(_label(words, value, top - 12, "strong"))
    row = top + thick + 22
    for text, place in marks:
        drawn.append(_upright("over" if place < value else "mark", place, top, top + thick))
        drawn.append(_upright("mark", place, top + thick, row - 12))
        drawn.append(_label(f"{text}: {percent(place)}", place, row, "quiet"))
        row += 20
    drawn.append(_text("0", "0", row, "tick", "start"))
    drawn.append(_text("100 %", "100%", row, "tick", "end"))
    summary = f"{words}. " + "; ".join(f"{text} {percent(place)}" for text, place in marks)
    return _chart(drawn, row + 6, summary, f"interval {tone}")


def interval_rows(rows: Sequence[tuple[str, Interval]], *, what: str, reference: float | None = None) -> Markup:
    """Dot and whisker for each row on one scale that ends at 100 %; a row without a value says so.

    The scale begins at 0, or at 50, 75 or 90 % where all whiskers lie above that: places carry the figures here, and
    not lengths.

    Args:
        rows: name and `Estimate` as JSON, drawn from the top in the given order.
        what: the name of the figure, for the description.
        reference: a value drawn as one line through all rows, such as the mean.
    """
    pitch, top = 26, 8
    height = top + pitch * len(rows)
    begin = _begin([estimate for _, estimate in rows], reference)

    def place(share: float) -> float:
        return (share - begin) / (1 - begin)

    drawn = [_upright("grid", tick / 4, 0, height) for tick in range(5)]
    if reference is not None:
        drawn.append(_upright("mark", place(reference), 0, height))
    for position, (name, estimate) in enumerate(rows):
        middle = top + pitch * position + pitch / 2 - 2
        drawn.append(_text(fit(name, 8.2), "0", middle + 4, "name", "end", dx=-12))
        value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
        if value is None:
            drawn.append(_text("not defined", "2", middle + 4, "quiet", "start"))
            continue
        if low is not None and high is not None:
            drawn.append(
                element("line", class_="whisker", x1=_at(place(low)), x2=_at(place(high)), y1=middle, y2=middle)
            )
        drawn.append(element("circle", class_="dot", cx=_at(place(value)), cy=middle, r=4.5))
        drawn.append(_text(percent(value), "100%", middle + 4, "number", "start", dx=12))
    for tick in (begin, (begin + 1) / 2, 1):
        words = percent(tick, 0 if round(200 * tick) % 2 == 0 else 1)
        drawn.append(_text(words, _at(place(tick)), height + 18, "tick", "middle"))
    return _chart(
        drawn, height + 24, f"{what} of each class with its interval; the table below holds the figures", "rows"
    )


def _begin(estimates: Sequence[Interval], reference: float | None) -> float:
    lows = [
        item["value"] if item.get("low") is None else item["low"] for item in estimates if item["value"] is not None
    ]
    lowest = min([*lows, 1.0 if reference is None else reference], default=0.0)
    return max(start for start in (0.0, 0.5, 0.75, 0.9) if start <= max(lowest, 0.0))


def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """True classes down, predicted across; the shade is the share of the row, right in one colour, wrong in another."""
    number_of = len(classes)
    side = 34 if number_of <= 12 else 26
    labels = [fit(name, 7.2) for name in classes]
    head = 14 + round(13 * max(map(text_width, labels), default=0.0))
    step = 100 / max(number_of, 1)
    drawn: list[Markup] = []
    small = number_of > 12 or max((count for row in counts for count in row), default=0) > 9999
    # Shades of mistakes run up to the largest share, yet a rare mistake never looks like a common one.
    off = [count / sum(line) for row, line in enumerate(counts) for at, count in enumerate(line) if at != row and count]
    most_wrong = max([0.15, *off])
    for column, label in enumerate(labels):
        turned = element("text", label, class_="name", transform="rotate(-90)", x=0, y=4, text_anchor="start")
        drawn.append(element("svg", turned, x=f"{_short((column + 0.5) * step)}%", y=head - 8, overflow="visible"))
    for row, (label, line) in enumerate(zip(labels, counts, strict=True)):
        y, total = head + row * side, sum(line)
        drawn.append(_text(label, "0", y + side / 2 + 4, "name", "end", dx=-10))
        for column, count in enumerate(line):
            share = count / total if total else 0.0
            kind = "right" if row == column else "wrong"
            shade = 0.45 * math.sqrt(share if row == column else min(share / most_wrong, 1.0))
            place = {"x": f"{_short(column * step)}%", "width": f"{_short(step)}%"}
            drawn.append(
                element("rect", class_=f"cell {kind}", y=y, height=side, fill_opacity=round(shade, 3), **place)
            )
            if count and not small:
                middle = f"{_short((column + 0.5) * step)}%"
                drawn.append(_text(number(count), middle, y + side / 2 + 4, "count", "middle"))
    drawn.append(element("rect", class_="outline", x=0, y=head, width="100%", height=side * number_of))
    described = (
        "Confusion matrix: rows are the true classes, columns the predicted ones; the table below holds the counts"
    )
    return _chart(drawn, head + side * number_of + 4, described, "matrix")


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Stated confidence across, share that was right up, with intervals; on the diagonal the two agree."""
    side = 300
    most = max((item["n"] for item in bins), default=1) or 1
    drawn = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = side - tick * side
        drawn.append(element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        if tick in (0, 0.5, 1):
            drawn.append(_text(percent(tick, 0), "0", y + 4, "tick", "end", dx=-10))
            drawn.append(_text(percent(tick, 0), _at(tick), side + 20, "tick", "middle"))
    drawn.append(element("line", class_="diagonal", x1="0", y1=side, x2="100%", y2=0))
    for item in bins:
        estimate = item["accuracy"]
        if estimate["value"] is None or item["confidence"] is None:
            continue
        x = _at(item["confidence"])
        radius = 2.5 + 4.5 * math.sqrt(item["n"] / most)
        low, high = estimate.get("low"), estimate.get("high")
        if low is not None and high is not None:
            drawn.append(element("line", class_="whisker", x1=x, x2=x, y1=side * (1 - low), y2=side * (1 - high)))
        drawn.append(element("circle", class_="dot", cx=x, cy=side * (1 - estimate["value"]), r=radius))
    described = "Reliability diagram: share right against stated confidence; the table below holds the figures"
    return _chart(drawn, side + 26, described, "square")


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
        drawn.append(_text(_tick(tick, span / (len(ticks) - 1), share=share), "0", y + 4, "tick", "end", dx=-10))
    for kind, points in series:
        drawn.append(_curve(kind, [(x / end, (value - low) / span) for x, value in points], height))
        if len(points) <= 24:
            for x, value in points:
                y = height - (value - low) / span * height
                drawn.append(element("circle", class_=f"point {kind}", cx=_at(x / end), cy=y, r=3.5))
    for tick in scale(0.0, end, count=4)[2]:
        if tick <= end * 1.0001:
            drawn.append(_text(f"{tick:g}", _at(tick / end), height + 20, "tick", "middle"))
    return _chart(drawn, height + 26, what, "lines")


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


def _curve(kind: str, points: Iterable[Point], height: int) -> Markup:
    path = "".join(
        f"{'M' if position == 0 else 'L'}{_short(1000 * x)} {_short(100 - 100 * y)}"
        for position, (x, y) in enumerate(points)
    )
    line = element("path", class_=f"curve {kind}", d=path)
    box = {"viewBox": "0 0 1000 100", "preserveAspectRatio": "none", "overflow": "visible"}
    return element("svg", line, x=0, y=0, width="100%", height=height, **box)


def _chart(parts: Iterable[Markup], height: float, described: str, kind: str) -> Markup:
    drawing = element("svg", *parts, width="100%", height=height, role="img", aria_label=described, overflow="visible")
    return element("div", drawing, class_=f"chart {kind}")


def _upright(kind: str, share: float, top: float, bottom: float) -> Markup:
    return element("line", class_=kind, x1=_at(share), x2=_at(share), y1=top, y2=bottom)


def _label(text: str, share: float, y: float, kind: str) -> Markup:
    """Text at a place that hangs to the side with more room, so that 60 % of the chart's width is always enough."""
    if share > 0.6:
        return _text(text, _at(share), y, kind, "end", dx=6 if share < 0.98 else 0)
    return _text(text, _at(share), y, kind, "start" if share < 0.4 else "middle", dx=-2 if 0.02 < share < 0.4 else 0)


def _text(text: str, x: str, y: float, kind: str, anchor: str, dx: float | None = None) -> Markup:
    return element("text", text, class_=kind, x=x, y=y, dx=dx or None, text_anchor=anchor)


def _at(share: float) -> str:
    return f"{_short(100 * min(max(share, 0.0), 1.0))}%"


def _short(value: object) -> object:
    """Two decimals are finer than a pixel, and keep the file small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _tick(value: float, step: float, *, share: bool) -> str:
    if share:
        return percent(round(value, 9), 0 if step >= 0.00999 else 1 if step >= 0.00099 else 2)
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
