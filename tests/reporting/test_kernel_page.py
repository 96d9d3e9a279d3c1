"""The kernel lab's page: what it shows without its script, what its policy lets in, and how numbers are drawn."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from kernel_records import learnt, record
from page_parser import Page
from PIL import Image

from convsmith.networks.kernels.bank import KERNELS
from convsmith.networks.kernels.filtering import convolve
from convsmith.reporting.kernel_drawings import Scale, around_zero, brief, figure, scale, shade, tint
from convsmith.reporting.kernel_page import render_kernels

IMAGE = "10 20 15 25 30 / 40 50 60 32 18 / 25 33 45 60 80 / 15 20 30 40 50 / 40 30 25 15 10"


@pytest.fixture(scope="module")
def figure_page() -> str:
    return render_kernels(record(IMAGE, "laplacian-8", at="0,1"))


def cells(page: str, key: str) -> list[list[str]]:
    body = re.search(rf'id="cells-{key}">(.*?)</table>', page, re.S)
    assert body
    return [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.S)]


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_figure_is_there_without_any_script(figure_page):
    assert cells(figure_page, "patch") == [["20", "15", "25"], ["50", "60", "32"], ["33", "45", "60"]]
    assert cells(figure_page, "kernel")[1] == ["−1", "8", "−1"]
    assert cells(figure_page, "products")[1] == ["−50", "480", "−32"]
    assert "−20 − 15 − 25 − 50 + 480 − 32 − 33 − 45 − 60 = 200" in figure_page
    assert "Output row 0, column 1, from rows 0 to 2, columns 1 to 3 of the picture." in figure_page
    drawn, made = pictures(figure_page)[:2]
    assert drawn.shape == (5, 5)
    assert made.shape == (3, 3)
    output = convolve(
        np.array([[float(w) for w in row.split()] for row in IMAGE.split("/")]), KERNELS.build("laplacian-8")
    )
    assert np.array_equal(made, np.floor((output + 200) / 400 * 255 + 0.5))
    assert ">152</text>" in figure_page  # the numbers stand in the pixels
    hidden = re.findall(r'id="(controls|moving|change-title|trouble)"[^>]* hidden', figure_page)
    assert sorted(hidden) == ["change-title", "controls", "moving", "trouble"]


def test_one_script_may_run_and_nothing_may_be_loaded(figure_page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', figure_page)
    style = re.search(r"<style>(.*?)</style>", figure_page, re.S)
    script = re.search(r"<script>(.*?)</script>", figure_page, re.S)
    assert policy
    assert style
    assert script
    digests = [base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode() for text in (style, script)]
    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|@import|fetch\(|eval\(|innerHTML", figure_page)
    assert len(script[1]) < 50_000
    assert " style=" not in figure_page


def test_names_from_files_can_neither_end_the_data_nor_become_markup():
    page = render_kernels(record(IMAGE, "laplacian-8", name="</script><img src=x onerror=alert(1)>"))
    assert "<img src=x" not in page
    parsed = Page(page)
    assert parsed.open == []
    assert sum(tag == "script" for tag, _ in parsed.elements) == 2


def test_headings_ids_and_links_fit_together():
    page = Page(render_kernels(record("digits:3", "gaussian", run=learnt())))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in page.elements].count("h1") == 1
    links = {attributes["href"].removeprefix("#") for tag, attributes in page.elements if tag == "a"}
    assert links <= set(ids)
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert {"classical", "learnt", "words"} <= set(ids)


def test_learnt_filters_are_shown_nearest_first_with_counts_and_notes():
    page = render_kernels(record("digits:3", "gaussian", run=learnt()))
    text = Page(page).text
    assert "start: 0 of 2" in text
    assert "step 9: 1 of 2 (50 %)" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "at least 0.91" in text
    assert "Of this one there is nothing else." in text
    rows = Page(page).table("Filter")
    assert [row[0] for row in rows] == ["1", "0"]
    assert "0.97 sobel-vertical, negated" in rows[0][2]
    assert "0.60 no near one" in rows[1][2]
    assert rows[0][-1] == "−0.25"
    data = json.loads(re.search(r'id="lab-data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert [item["name"] for item in data["kernels"]][-2:] == ["learnt filter 0", "learnt filter 1"]


def test_pooling_alone_and_after_a_kernel_shows_what_it_looks_at():
    alone = render_kernels(record("3 7 / 4 9", None, pool="average"))
    assert cells(alone, "pool") == [["3", "7"], ["4", "9"]]
    assert "<span>5.75</span>" in alone
    assert "What average pooling keeps" in alone
    after = render_kernels(record(IMAGE, "laplacian-8", pool="max", at="0,0"))
    assert cells(after, "pool") == [["152", "200"], ["−21", "35"]]
    assert re.search(r'<td class="g\d+ won">200</td>', after)
    assert cells(after, "patch")[0] == ["20", "15", "25"]
    assert "the largest of them comes from rows 0 to 2, columns 1 to 3" in after


def test_padding_is_framed_in_the_picture_and_marked_in_the_patch():
    page = render_kernels(record(IMAGE, "laplacian-8", padding="reflect", at="0,0"))
    assert 'class="edge-of" x="40" y="40" width="200" height="200"' in page
    assert len(re.findall(r'<td class="g\d+ beyond">', page)) == 5
    assert "rows −1 to 1, columns −1 to 1" in page
    assert pictures(page)[0].shape == (7, 7)


def test_an_output_is_drawn_around_zero_only_where_its_kernel_cancels():
    output = np.array([[-50.0, 100.0]])
    assert scale(output, KERNELS.build("sobel-vertical"), 0, 255) == Scale(-100, 100, signed=True)
    assert scale(output, KERNELS.build("gaussian"), 0, 255) == Scale(0, 255, signed=False)
    assert scale(output, -2 * KERNELS.build("box"), 0, 255).low == pytest.approx(-510)
    assert scale(output, None, 3, 9) == Scale(3, 9, signed=False)
    glint = np.concatenate([np.linspace(-10, 10, 5000), [9999]])
    assert around_zero(glint[None]).high < 11
    assert around_zero(np.zeros((2, 2))) == Scale(-1, 1, signed=True)


def test_what_is_cut_in_a_drawing_is_said():
    drawn = Scale(0, 255, signed=False)
    assert drawn.grey(np.array([-5.0, 0, 127.4, 255, 300])).tolist() == [0, 0, 127, 255, 255]
    told = drawn.says(np.array([-5.0, 0, 127.4, 255])).replace("\N{NO-BREAK SPACE}", " ")
    assert told == "Black is 0, white is 255. 25.0 % of the values lie beyond; only the drawing cuts them."
    assert Scale(-3.5, 3.5, signed=True).says(np.zeros(3)) == "Black is −3.5, mid grey is 0, white is 3.5."


@pytest.mark.parametrize(
    ("value", "written"),
    [(152, "152"), (-77.0, "−77"), (0.0625, "0.0625"), (1 / 3, "0.333"), (5.75, "5.75"), (1e-5, "0.00001"),
     (1.23e-7, "1.23e−7"), (-0.0, "0"), (1e-15, "0"), (10.5625, "10.563"), (-2.0625, "−2.063"), (0, "0"),
     (123456789, "123456789"), (-0.5, "−0.5"), (2.9996, "3")],
)  # fmt: skip
def test_numbers_are_written_in_full_where_whole_and_else_to_three_places(value, written):
    assert figure(value) == written
    assert brief(64.8125) == "64.8"
    assert brief(4.125) == "4.125"


def test_shades_and_tints_follow_the_value():
    assert [shade(value, 0, 255) for value in (-9, 0, 128, 255, 999)] == ["g0", "g0", "g8", "g16", "g16"]
    assert [tint(value, 8) for value in (-8, -0.1, 0, 4, 8)] == ["n8", "p0", "p0", "p4", "p8"]
