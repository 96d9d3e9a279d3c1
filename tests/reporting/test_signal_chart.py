"""The chart of the signal through depth: places on the logarithmic scale, what lies off it, and text from a network."""

import re
from xml.etree import ElementTree

from convsmith.reporting.signal import signal_chart


def signal(path: str, variance: float | None, kind: str = "weights") -> dict:
    mean = None if variance is None else 0.5
    return {"path": path, "type": "Conv2d", "kind": kind, "mean": mean, "variance": variance}


def circles(drawn: str) -> list[dict]:
    root = ElementTree.fromstring(drawn)
    return [{**circle.attrib, "told": circle[0].text} for circle in root.iter("circle")]


def test_variances_lie_on_a_logarithmic_scale():
    drawn = signal_chart([signal("a", 1.0), signal("b", 0.1), signal("c", 0.01)], height=200)
    assert [float(circle["cy"]) for circle in circles(drawn)] == [0, 100, 200]
    assert [circle["cx"] for circle in circles(drawn)] == ["16.67%", "50%", "83.33%"]
    assert re.findall(r'class="tick"[^>]*>([^<]*)<', drawn) == ["10⁻²", "10⁻¹", "1", "a", "c"]
    assert "L500 50" in drawn


def test_norms_are_left_out_and_kinds_have_lines_of_their_own():
    rows = [signal("a", 1.0), signal("b", 1.0, "norm"), signal("c", 10.0, "other"), signal("d", 1.0)]
    drawn = signal_chart([*rows, signal("e", 5.0, "other")])
    assert [circle["class"] for circle in circles(drawn)] == ["point a", "point c", "point a", "point c"]
    assert drawn.count("<path") == 2


def test_a_dead_signal_is_at_the_bottom_and_one_that_is_not_finite_at_the_top():
    drawn = signal_chart([signal("a", 1.0), signal("b", 0.0), signal("c", None)], height=100)
    _, dead, lost = circles(drawn)
    assert (dead["class"], float(dead["cy"])) == ("point b", 100)
    assert (lost["class"], float(lost["cy"])) == ("point b", 0)
    assert lost["told"] == "c (Conv2d): values that are not finite"
    assert dead["told"] == "b (Conv2d): variance 0, mean 0.5"
    assert re.findall(r'class="quiet"[^>]*>([^<]*)<', drawn) == ["zero", "not finite"]


def test_names_are_escaped_and_a_wide_range_has_few_ticks():
    rows = [signal("<b>&", 1e-30), *(signal(str(k), 10.0**k) for k in range(-29, 12))]
    drawn = signal_chart(rows)
    assert "<b>" not in drawn
    assert circles(drawn)[0]["told"] == "<b>& (Conv2d): variance 1e-30, mean 0.5"
    assert 4 <= drawn.count('class="grid"') <= 7


def test_a_network_without_layers_has_an_empty_chart():
    assert circles(signal_chart([])) == []
