"""A network's page as a browser shows it: nothing overlaps, nothing is out of reach, on a phone and on a desk."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_inspection import DRAWING, inspection
from test_report_in_browser import ARGUMENTS, CHROMIUM, OUTSIDE, OVERLAPS, pytestmark  # noqa: F401

from convsmith.reporting.inspection import Drawing, Node
from convsmith.reporting.inspection_page import render_inspection


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


def crowded() -> Drawing:
    """Twelve branches side by side, of which each reads all before it, with long names."""
    nodes = [Node(f"features.denseblock1.denselayer{place}", "DenseLayer", "block", (1024, 112, 112), 0.08)
             for place in range(12)]  # fmt: skip
    edges = tuple((source, to) for to in range(12) for source in range(to))
    return Drawing((*nodes,), edges)


@pytest.mark.parametrize("width", [400, 820, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overlaps_and_nothing_is_out_of_reach(browser, tmp_path: Path, width: int, scheme: str):
    file = tmp_path / "network.html"
    file.write_text(render_inspection(inspection(drawing=crowded()), inspection(drawing=DRAWING), command="convsmith"))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERLAPS)["found"] == []
    assert page.evaluate(OUTSIDE) == []
    assert asked == [file.as_uri()]
    assert told == []
    page.close()
