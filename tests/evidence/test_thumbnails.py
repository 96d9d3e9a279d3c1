"""Small copies of the pictures a report shows."""

import io

import numpy as np
import pytest
from PIL import Image

from convsmith.evidence import leave_thumbnails
from convsmith.evidence.thumbnails import LONGEST_SIDE, png
from convsmith.images import open_source
from convsmith.run_folder import RunFolder


@pytest.mark.parametrize(
    ("shape", "size"),
    [((400, 200, 3), (80, 160)), ((8, 6, 1), (6, 8)), ((1, 1000, 1), (160, 1)), ((160, 160, 3), (160, 160))],
)
def test_a_thumbnail_keeps_the_proportions_and_fits_its_side(shape, size):
    picture = Image.open(io.BytesIO(png(np.full(shape, 77, np.uint8))))
    assert picture.size == size
    assert max(picture.size) <= LONGEST_SIDE
    assert picture.mode == ("L" if shape[2] == 1 else "RGB")
    assert picture.getextrema() == ((77, 77) if shape[2] == 1 else ((77, 77),) * 3)


def make_folder(path):
    for label in ("a", "b"):
        (path / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (10, 10), (i * 50, 0, 0)).save(path / label / f"{i}.png")
    return open_source(path)[0]


def test_each_picture_is_left_once_and_one_that_vanished_is_left_out(tmp_path):
    dataset = make_folder(tmp_path / "photos")
    run = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    shown = [dataset.ids[4], dataset.ids[1], dataset.ids[4], "unknown/7.png", dataset.ids[2]]
    (tmp_path / "photos" / dataset.ids[1]).unlink()
    leave_thumbnails(run, dataset, shown)
    names = run.read_json("evidence/thumbnails.json")
    assert list(names) == [dataset.ids[4], dataset.ids[2]]
    pictures = [Image.open(run.evidence / name) for name in names.values()]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(50, 0, 0), (100, 0, 0)]
    assert len(list((run.evidence / "thumbnails").iterdir())) == 2
