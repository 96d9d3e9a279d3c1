"""A network's page as a browser shows it: nothing overlaps, nothing is out of reach, and all can read it."""

from __future__ import annotations

import pytest
from made_inspection import DRAWING, inspection
from test_report_in_browser import OUTSIDE, OVERLAPS, browser, pytestmark, show  # noqa: F401

from convsmith.reporting.inspection import Drawing, Node
from convsmith.reporting.inspection_page import render_inspection


def crowded() -> Drawing:
    """Twelve blocks of which each reads all before it, with long names and large maps."""
    nodes = tuple(
        Node(f"features.denseblock1.denselayer{place}", "DenseLayer", "block", (1024, 112, 112), 0.08)
        for place in range(12)
    )
    return Drawing(nodes, tuple((source, to) for to in range(12) for source in range(to)))


@pytest.mark.parametrize("width", [400, 820, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_networks_fit_any_screen_and_can_be_read_by_all(show, width: int, scheme: str):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    both = inspection(drawing=crowded()), inspection(drawing=DRAWING)
    page, asked, said = show(render_inspection(*both, command="convsmith inspect"), width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    texts = page.evaluate(OVERLAPS)
    assert texts["count"] > 100
    assert texts["found"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    grave = [item for item in Axe().run(page).response["violations"] if item["impact"] in {"serious", "critical"}]
    assert [(item["id"], item["nodes"][0]["html"]) for item in grave] == []
    assert (asked, said) == ([], [])
