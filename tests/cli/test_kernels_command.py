"""`convsmith kernels`: pictures of every kind, the sums it shows, what a run has learnt, and its errors."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from typed import typed

from convsmith.cli.kernels import PADDINGS
from convsmith.networks.kernels import filtering as arithmetic
from convsmith.networks.kernels.bank import KERNELS

ROWS = "10 20 15 25 30 / 40 50 60 32 18 / 25 33 45 60 80 / 15 20 30 40 50 / 40 30 25 15 10"
AROUND = "-1 -1 -1 / -1 8 -1 / -1 -1 -1"


def grid(text: str) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in text.splitlines()]


def test_the_figure_stands_beside_its_picture_and_kernel():
    done = typed("kernels", ROWS, "--kernel", AROUND)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    top = lines.index(next(line for line in lines if line.split() == ["picture", "kernel", "output"]))
    block = [line.split() for line in lines[top + 1 :]]
    assert [row[-3:] for row in block[:3]] == [["152", "200", "-77"], ["-21", "35", "125"], ["-83", "-28", "5"]]
    assert block[0][:8] == ["10", "20", "15", "25", "30", "-1", "-1", "-1"]
    assert "--at 0,0" in done.err


def test_one_place_is_shown_as_patch_kernel_products_and_sum():
    done = typed("kernels", ROWS, "--kernel", "laplacian-8", "--at", "0,1")
    rows = [
        re.findall(r"-?\d+", line)
        for line in done.out.splitlines()
        if " x " in line or re.match(r"\s*\d+\s+\d+\s+\d+ ", line)
    ]
    assert ["50", "60", "32", "-1", "8", "-1", "-50", "480", "-32"] in rows
    assert ["20", "15", "25", "-1", "-1", "-1", "-20", "-15", "-25"] in rows
    assert "sum of the products: 200" in done.out
    assert "rows 0 to 2 and columns 1 to 3" in done.out
    assert "padding" not in done.out.split("Output row")[1]


def test_padding_is_marked_in_the_patch():
    done = typed("kernels", "1 2 3 / 4 5 6 / 7 8 9", "--kernel", "box", "--padding", "reflect", "--at", "0,0")
    assert "(5)" in done.out
    assert "Numbers in brackets are padding." in done.out
    at = typed(
        "kernels", "1 2 3 / 4 5 6 / 7 8 9", "--kernel", "box", "--padding", "reflect", "--at", "0,0", "--json"
    ).json
    assert at["at"]["patch"] == [[5, 4, 5], [2, 1, 2], [5, 4, 5]]
    assert (at["at"]["rows"], at["at"]["columns"]) == ([-1, 0, 1], [-1, 0, 1])


def test_pooling_gives_its_figures_alone_and_after_a_kernel():
    assert typed("kernels", "3 7 / 4 9", "--pool", "max", "--json").json["output"]["values"] == [[9]]
    average = typed("kernels", "3 7 / 4 9", "--pool", "average")
    assert "5.75" in average.out
    after = typed("kernels", ROWS, "--kernel", AROUND, "--pool", "max:2:1", "--at", "0,1", "--json").json
    assert after["output"]["values"] == [[200, 200], [35, 125]]
    assert after["at"]["pooled"] == [[200, -77], [35, 125]]
    assert (after["at"]["value"], after["at"]["sum"], after["at"]["rows"]) == (200, 200, [0, 1, 2])
    told = typed("kernels", ROWS, "--kernel", AROUND, "--pool", "max:2:1", "--at", "0,1").out
    assert "the largest: 200" in told
    assert "row 0, column 1 before pooling" in told


@pytest.mark.parametrize("padding", ["same", "circular"])
def test_the_json_holds_what_the_library_computes(padding):
    values = np.array(
        typed("kernels", "digits:12", "--kernel", "gabor:angle=30", "--padding", "zero", "--json").json["output"][
            "values"
        ]
    )
    assert values.shape == (8, 8)
    record = typed("kernels", ROWS, "--kernel", "emboss", "--padding", padding, "--stride", 2, "--json").json
    expected = arithmetic.convolve(arithmetic.numbers(ROWS), KERNELS.build("emboss"), padding=padding, stride=2)
    assert record["output"]["values"] == expected.tolist()
    assert (record["output"]["lowest"], record["output"]["highest"]) == (expected.min(), expected.max())
    assert (record["padding"], record["stride"], record["at"]) == (padding, 2, None)


def test_a_file_is_read_as_its_pixels_in_grey_or_colour_and_reduced_only_where_it_is_large(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    grey = typed("kernels", tmp_path / "photo.png", "--kernel", "identity", "--padding", "zero", "--json").json
    assert grey["output"]["values"] == np.asarray(Image.fromarray(pixels).convert("L")).astype(float).tolist()
    colour = typed(
        "kernels", tmp_path / "photo.png", "--kernel", "identity", "--padding", "zero", "--colour", "--json"
    ).json
    assert colour["output"]["values"] == pixels.astype(float).tolist()
    small = typed("kernels", tmp_path / "photo.png", "--kernel", "identity", "--size", 8, "--json").json["image"]
    assert (small["height"], small["width"]) == (8, 7)
    assert "reduced from 12 x 10" in small["note"]
    flower = typed(
        "kernels", "flower", "--kernel", "identity", "--size", 96, "--colour", "--padding", "zero", "--json"
    ).json
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    photo.thumbnail((96, 96), Image.Resampling.LANCZOS)
    assert np.array_equal(flower["output"]["values"], np.asarray(photo))


def test_the_channels_of_a_colour_picture_have_a_table_each_and_one_sum_together(tmp_path: Path):
    pixels = np.zeros((3, 3, 3), np.uint8)
    pixels[1, 1] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "dot.png")
    done = typed("kernels", tmp_path / "dot.png", "--kernel", AROUND, "--colour", "--at", "0,0")
    assert [f"sum of the products: {8 * value}" in done.out for value in (10, 20, 30)] == [True] * 3
    assert "patch, green" in done.out
    assert "adds them: 480" in done.out


def test_numbers_come_from_a_table_and_digits_from_their_set(tmp_path: Path):
    (tmp_path / "numbers.csv").write_text("3,7\n4,9\n")
    (tmp_path / "tabs.tsv").write_text("3\t7\n4\t9\n")
    for name in ("numbers.csv", "tabs.tsv"):
        assert typed("kernels", tmp_path / name, "--pool", "average", "--json").json["output"]["values"] == [[5.75]]
    record = typed("kernels", "digits:7", "--kernel", "identity", "--padding", "zero", "--json").json
    assert np.array_equal(record["output"]["values"], np.rint(load_digits().images[7] * (255 / 16)))
    assert record["image"]["name"] == "digits:7 (class 7)"


def test_without_a_kernel_every_classical_one_is_listed_and_those_too_large_are_named():
    done = typed("kernels", "digits:3")
    for name in KERNELS:
        assert name in done.out
    assert "Too large for this picture: gabor." in done.out
    assert "--kernel sobel-vertical" in done.err
    record = typed("kernels", "digits:3", "--json").json
    assert [item["name"] for item in record["kernels"]] == [name for name in KERNELS if name != "gabor"]
    assert record["too_large"] == ["gabor"]


def test_a_run_shows_its_filters_from_the_start_to_its_last_checkpoint(run: Path):
    done = typed("kernels", "digits:3", "--run", "last", "--runs", run.parent)
    assert done.code == 0, done.err
    assert "First layer of" in done.out
    assert "start (drawn again from seed 0)" in done.out
    assert "A run keeps its last 2 checkpoints" in done.out
    learnt = typed("kernels", "digits:3", "--run", "first", "--runs", run.parent, "--json").json["learnt"]
    assert learnt["moments"][0]["label"] == "start"
    assert len(learnt["moments"]) >= 2
    first, last = (np.array([each["weights"] for each in learnt["moments"][place]["filters"]]) for place in (0, -1))
    assert first.shape == last.shape
    assert np.abs(first - last).max() > 1e-4
    for moment in learnt["moments"]:
        for each in moment["filters"]:
            assert each["near"] == (each["cosine"] >= learnt["threshold"])
    lines = [line for line in done.out.splitlines() if re.match(r"\d+ +0\.\d\d|\d+ +1\.00", line)]
    assert len(lines) == len(first)
    near = [sum(each["near"] for each in moment["filters"]) for moment in learnt["moments"]]
    assert all(f"{count} of {len(first)}" in done.out for count in near)


def test_the_page_is_written_and_named(run: Path, tmp_path: Path):
    page = tmp_path / "deep" / "lab.html"
    done = typed("kernels", "digits:3", "--kernel", "emboss", "--run", "last", "--runs", run.parent, "--html", page)
    assert f"Page: {page}" in done.out
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "What a network has learnt" in text
    assert json.loads(re.search(r'id="lab-data">(.*?)</script>', text, re.S)[1])["chosen"]["name"] == "emboss"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "code", "said", "mend"),
    [
        (["nowhere.png", "--kernel", "box"], 2, "no picture 'nowhere.png'", "digits:0"),
        (["{}"], 2, "is a folder", "Name a file in it"),
        (["digits:99999", "--kernel", "box"], 2, "digits has no image '99999'", "digits:1796"),
        (["digit:1", "--kernel", "box"], 2, "no data set named 'digit'", "digits"),
        (["1 2 / 3 4", "--kernel", "sobel"], 2, "no kernel named 'sobel'", "sobel-vertical"),
        (["1 2 / 3 4", "--kernel", "box"], 2, "spans 3 px, but the picture is 2x2", "zero"),
        (["1 2 / 3 4", "--pool", "median"], 2, "--pool median is no pooling", "max:3:2"),
        (["1 2 / 3 4", "--pool", "max:0"], 2, "--pool max:0 is no pooling", "max:3:2"),
        (["1 2 / 3 4", "--pool", "max:3"], 2, "3x3 is larger than what it pools", "2 px"),
        (["1 2 / 3 4", "--pool", "max", "--stride", "2"], 2, "belong to a kernel", "max:SIZE:STRIDE"),
        (["1 2 / 3 4", "--at", "0,0"], 2, "no kernel is named", "sobel-vertical"),
        (["1 2 / 3 4", "--pool", "max", "--at", "0,1"], 2, "output is 1 x 1", "columns from 0 to 0"),
        (["1 2 / 3 4", "--pool", "max", "--at", "middle"], 2, "--at middle", "ROW,COL"),
        (["1 2 / 3", "--pool", "max"], 2, "rows of 2, 1", "slash"),
        (["digits:1", "--code", "mine.py"], 2, "none is named", "--run RUN"),
        (["{}/note.txt", "--pool", "max"], 2, "no number", "slash"),
        (["{}/torn.png", "--pool", "max"], 3, "torn.png", ""),
        (["1 2 / 3 4", "--pool", "max", "--html", "{}/note.txt/lab.html"], 4, "refused", "--html FILE"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_the_mend(arguments, code, said, mend, tmp_path):
    (tmp_path / "note.txt").write_text("a note\n")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = typed("kernels", *(argument.format(tmp_path) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert mend in done.err


@pytest.mark.parametrize(
    "arguments",
    [["digits:3"], ["digits:3", "--kernel", "emboss"], [ROWS, "--kernel", AROUND, "--at", "1,1", "--quiet", "--json"]],
)
def test_what_is_said_to_type_next_can_be_typed(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(4):  # from all kernels to one, to one sum, to the page, to pooling
        done = typed("kernels", *arguments)
        assert done.code == 0, done.err
        if "--quiet" in arguments:
            assert done.err == ""
            return
        arguments = shlex.split(done.err.removeprefix("Next: "), comments=True)[2:]
    assert (tmp_path / "lab.html").exists() or arguments[0] == "digits:3"


def test_the_paddings_of_the_command_are_those_of_the_library():
    assert PADDINGS == arithmetic.PADDINGS
