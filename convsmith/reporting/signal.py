"""How large a network's signal is at each depth, as a chart: the variance behind each layer on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from convsmith.reporting.formats import fit, number
from convsmith.reporting.svg import at, chart, curve, element, label, text

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def signal_chart(signals: Sequence[Mapping[str, Any]], *, height: int = 220) -> Markup:
    """Draw the variance behind each layer, the first at the left; norms, which always leave about 1, are left out.

    One line (`a`) joins convolutions and linear layers, another (`c`) activations, pooling and sums. A signal that is
    zero, or not finite, is a dot (`b`) on the lower or upper edge. Each dot says its layer and figures when pointed at.

    Args:
        signals: `Signal` records as JSON, in the order of the calls.
        height: of the plot in px.
    """
    shown = [signal for signal in signals if signal["kind"] != "norm"]
    powers = [math.log10(signal["variance"]) for signal in shown if signal["variance"]]
    low, high = math.floor(min([0.0, *powers])), math.ceil(max([0.0, *powers]))
    low, high = (low - 1, high + 1) if low == high else (low, high)
    step = math.ceil((high - low) / 5)
    drawn = []
    for tick in range(math.ceil(low / step) * step, high + 1, step):
        y = height * (high - tick) / (high - low)
        drawn.append(element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        drawn.append(text(_power(tick), "0", y + 4, "tick", "end", dx=-10))
    lines: dict[str, list[tuple[float, float]]] = {"c": [], "a": []}
    dots, radius = [], 3.5 if len(shown) <= 80 else 2.0
    off: dict[str, float] = {}  # where the first signal without a place on the scale is
    for position, signal in enumerate(shown):
        x, kind = (position + 0.5) / len(shown), "a" if signal["kind"] == "weights" else "c"
        if signal["variance"]:
            up = (math.log10(signal["variance"]) - low) / (high - low)
            lines[kind].append((x, up))
        else:
            up, kind = float(signal["variance"] is None), "b"
            off.setdefault("not finite" if up else "zero", x)
        told = element("title", _told(signal))
        dots.append(element("circle", told, class_=f"point {kind}", cx=at(x), cy=height - up * height, r=radius))
    drawn += [curve(kind, points, height) for kind, points in lines.items() if len(points) > 1]
    drawn += [label(words, x, height - 10 if words == "zero" else 18, "quiet") for words, x in off.items()]
    first, last = (fit(shown[end]["path"] if shown else "", 12) for end in (0, -1))
    drawn += [*dots, text(first, "0", height + 20, "tick", "start"), text(last, "100%", height + 20, "tick", "end")]
    described = f"Variance behind {number(len(shown))} layers, from {first} to {last}, on a logarithmic scale"
    return chart(drawn, height + 26, described, "lines signal")


def _power(exponent: int) -> str:
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(SUPERSCRIPTS))


def _told(signal: Mapping[str, Any]) -> str:
    name = f"{signal['path'] or 'the network'} ({signal['type']})"
    if signal["variance"] is None:
        return f"{name}: values that are not finite"
    return f"{name}: variance {signal['variance']:.3g}, mean {signal['mean']:.3g}"
