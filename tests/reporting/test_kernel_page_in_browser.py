"""The kernel lab in a browser: the arrow keys move the window, and the script computes what Python does."""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from kernel_records import lab, learnt, record
from PIL import Image
from test_report_in_browser import ARGUMENTS, OUTSIDE, OVERLAPS

from convsmith.cli.kernel_lab import page_record
from convsmith.reporting.kernel_drawings import figure
from convsmith.reporting.kernel_page import render_kernels

CHROMIUM = shutil.which("chromium")
MISSING = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
IMAGE = "10 20 15 25 30 / 40 50 60 32 18 / 25 33 45 60 80 / 15 20 30 40 50 / 40 30 25 15 10"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on the PATH: apt-get install chromium"),
    pytest.mark.skipif(bool(MISSING), reason="pip install convsmith[browser]"),
]

CELLS = """key => [...document.querySelectorAll(`#cells-${key} tr`)].map(
    row => [...row.cells].map(cell => cell.textContent))"""
NAMED = """key => [...document.querySelectorAll(`#cells-${key} td`)].map(cell => [cell.className, cell.textContent])"""
PIXELS = """key => { const c = document.querySelector(`#screen-${key} canvas`);
    return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; }"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open a page from a file; at the end nothing may have been asked for or complained of."""
    contexts, said = [], []

    def opened(text: str, width: int = 1280, scheme: str = "light", *, script: bool = True):
        file = tmp_path / "lab.html"
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: None if "getImageData" in message.text else said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: said.append(request.url) if request.url[:5] not in {"file:", "data:"} else None
        )
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def test_the_arrow_keys_move_the_window_and_every_sum_follows(show):
    page = show(render_kernels(record(IMAGE, "laplacian-8")))
    expected = [[152, 200, -77], [-21, 35, 125], [-83, -28, 5]]
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#terms") == "−20 − 15 − 25 − 50 + 480 − 32 − 33 − 45 − 60 = 200"
    assert page.evaluate(CELLS, "patch") == [["20", "15", "25"], ["50", "60", "32"], ["33", "45", "60"]]
    page.keyboard.press("ArrowLeft")
    for row in range(3):
        for column in range(3):
            assert page.inner_text("#result").split()[-1] == figure(expected[row][column])
            assert f"row {row}, column {column}:" in page.text_content("#live").lower()
            page.keyboard.press("ArrowRight")
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
    frame = page.locator("#screen-input .frame")
    assert (frame.get_attribute("x"), frame.get_attribute("y")) == ("0", "80")  # further presses leave it there


SETTINGS = [
    *itertools.product(
        ["sobel-vertical"], ["valid", "same", "zero", "reflect", "replicate", "circular"], [1, 2], [1, 2], [None]
    ),
    ("gaussian", "same", 3, 1, None),
    ("gabor", "zero", 1, 1, None),
    ("emboss", "reflect", 1, 1, "max"),
    ("sharpen", "circular", 2, 1, "average"),
    (None, "valid", 1, 1, "max"),
    (None, "valid", 1, 1, "average"),
]


@pytest.mark.parametrize("colour", [False, True])
def test_the_script_computes_and_draws_what_python_does(show, colour):
    options = {"size": 24, "colour": colour}
    page = show(render_kernels(record("flower", "sobel-vertical", **options)))
    for kernel, padding, stride, dilation, pool in SETTINGS:
        page.select_option("#choose-kernel", label=kernel or "none, pooling only")
        page.select_option("#choose-padding", padding)
        page.fill("#choose-stride", str(stride))
        page.fill("#choose-dilation", str(dilation))
        page.locator("#choose-dilation").blur()
        page.select_option("#choose-pool", pool or "")
        made = lab("flower", kernel, padding=padding, stride=stride, dilation=dilation, pool=pool, at="2,3", **options)
        page.fill("#go-row", "2")
        page.fill("#go-column", "3")
        page.locator("#go-column").blur()
        assert page.is_hidden("#trouble")
        still = render_kernels(replace(page_record(made, None, ""), gallery=()))
        for name in ("where", "terms", "result", "says", "headline", "summary"):
            text = re.search(rf'id="{name}"[^>]*>(.*?)</(?:p|h1|div)>', still, re.S)
            expected = re.findall(r"[^<>]+(?=<|$)", text[1])  # type: ignore[index]
            found = page.inner_text(f"#{name}")
            assert found.removeprefix("Sum").removeprefix("Output\n").split() == " ".join(expected).split(), (
                kernel,
                padding,
            )
        for key in ("patch", "kernel", "products", "pool"):
            body = re.search(rf'id="cells-{key}">(.*?)</table>', still, re.S)
            listed = re.findall(r'<td class="([^"]*)">([^<]*)</td>', body[1]) if body else []
            assert page.evaluate(NAMED, key) == [list(pair) for pair in listed]
        assert page.evaluate(PIXELS, "output")[:2] == list(made.output.shape[:2])


def test_the_pixels_of_the_canvas_are_those_of_the_static_picture(show):
    text = render_kernels(record("flower", "emboss", size=32))
    drawn = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(found))))
        for found in re.findall(r'src="data:image/png;base64,([^"]+)"', text)[:2]
    ]
    page = show(text)
    for key, expected in zip(("input", "output"), drawn, strict=True):
        height, width, data = page.evaluate(PIXELS, key)
        assert np.array_equal(np.array(data).reshape(height, width, 4)[..., 0], expected)


def test_what_cannot_be_computed_is_said_and_what_stood_there_stays(show):
    page = show(render_kernels(record("1 2 3 / 4 5 6 / 7 8 9", "box")))
    page.fill("#choose-dilation", "2")
    page.locator("#choose-dilation").blur()
    assert "spans 5x5 px" in page.inner_text("#trouble")
    assert page.inner_text("#result").split()[-1] == "5"
    page.select_option("#choose-padding", "zero")
    assert page.is_hidden("#trouble")
    page.fill("#own", "1 2 / x")
    page.locator("#own").blur()
    assert "rows of numbers" in page.inner_text("#trouble")


def test_an_own_kernel_a_kernel_of_the_gallery_and_a_click_are_followed(show):
    page = show(render_kernels(record(IMAGE, "box", run=learnt())))
    page.fill("#own", "0 0 0 / 0 2 0 / 0 0 0")
    page.locator("#own").blur()
    assert page.inner_text("#headline") == "What your own kernel makes of the picture"
    assert page.inner_text("#terms").endswith("= 100")
    page.get_by_role("listitem").filter(has_text="scharr-vertical").get_by_role("button").click()
    assert page.evaluate(CELLS, "kernel") == [["−3", "0", "3"], ["−10", "0", "10"], ["−3", "0", "3"]]
    page.select_option("#choose-kernel", label="learnt filter 1")
    assert page.evaluate(CELLS, "kernel")[1] == ["2", "0", "−2"]
    for key, x, y, place in (("output", 0.9, 0.5, ("1", "2")), ("input", 0.5, 0.3, ("0", "1"))):
        area = page.locator(f"#screen-{key}").bounding_box()
        page.locator(f"#screen-{key}").click(position={"x": x * area["width"], "y": y * area["height"]})
        assert (page.input_value("#go-row"), page.input_value("#go-column")) == place


VIEWS = [
    (name, width, scheme)
    for name, width, scheme in itertools.product(("rows", "photo", "learnt", "pool"), (1200, 400), ("light", "dark"))
] + [("colour", 800, "light"), ("photo", 600, "dark")]


@pytest.mark.parametrize(("name", "width", "scheme"), VIEWS)
def test_the_page_fits_and_can_be_read_by_all(show, name, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    made = {
        "rows": lambda: record(IMAGE, "laplacian-8", padding="reflect"),
        "photo": lambda: record("flower", "gabor"),
        "colour": lambda: record("flower", "sharpen", colour=True, pool="max"),
        "learnt": lambda: record("digits:3", "gaussian", run=learnt()),
        "pool": lambda: record("3 7 / 4 9", None, pool="average"),
    }[name]()
    for script in (True, False):
        page = show(render_kernels(made), width, scheme, script=script)
        if script:
            texts = page.evaluate(OVERLAPS)
            assert texts["count"] > 60
            assert texts["found"] == []
            assert page.evaluate(OUTSIDE) == []
            violations = Axe().run(page).response["violations"]
            assert [
                (item["id"], item["nodes"][0]["html"])
                for item in violations
                if item["impact"] in {"serious", "critical"}
            ] == []
        assert page.locator("html").evaluate("e => e.scrollWidth") <= width


def test_picture_output_and_sum_are_on_the_first_screen(show):
    for name in ("flower", "digits:3"):
        page = show(render_kernels(record(name, "sobel-vertical")))
        assert page.locator("#result").bounding_box()["y"] < 800


def test_without_a_script_the_pictures_and_one_sum_stand_and_no_control_is_offered(show):
    page = show(render_kernels(record("flower", "sobel-vertical")), script=False)
    assert page.locator("#screen-input img").is_visible()
    assert page.locator("#screen-output img").is_visible()
    assert page.locator("#cells-products").is_visible()
    assert not page.locator("#controls").is_visible()
    assert not page.locator("#moving").is_visible()
    assert "--at ROW,COL" in page.inner_text("body")


def test_every_control_is_reached_by_the_tab_key(show):
    page = show(render_kernels(record("3 7 / 4 9", None, pool="max")))
    reached = {page.evaluate("document.activeElement.id || document.activeElement.dataset.move")}
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.move"))
    wanted = {"stage", "0,-1", "go-row", "go-column", "choose-kernel", "own", "choose-padding", "choose-stride",
              "choose-dilation", "choose-pool", "choose-size", "choose-step"}  # fmt: skip
    assert reached >= wanted
