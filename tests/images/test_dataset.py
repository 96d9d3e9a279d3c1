"""The data set as a value."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from convsmith.errors import DataError
from convsmith.images import Dataset, FilePixels, audit, open_source

IMAGES = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)


@pytest.fixture
def dataset() -> Dataset:
    roles = ("train", "test", "train", "tune", "train")
    return Dataset.from_arrays(IMAGES, [0, 1, 1, 2, 0], ("a", "b", "c"), roles=roles, source="toy")


def test_a_data_set_cannot_be_changed_in_place(dataset):
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.source = "other"


def test_indices_and_counts_follow_the_roles(dataset):
    assert dataset.indices("train").tolist() == [0, 2, 4]
    assert dataset.indices("").tolist() == []
    assert dataset.counts() == {
        "train": {"a": 2, "b": 1, "c": 0},
        "tune": {"a": 0, "b": 0, "c": 1},
        "test": {"a": 0, "b": 1, "c": 0},
    }
    assert list(dataset.counts()) == ["train", "tune", "test"]


def test_a_selection_of_a_selection_reads_the_right_pictures(dataset):
    part = dataset.select([4, 2, 1]).select(np.array([1, 0]))
    assert part.ids == ("toy/2", "toy/4")
    assert part.targets.tolist() == [1, 0]
    assert part.roles == ("train", "train")
    assert np.array_equal(part.read(0)[..., 0], IMAGES[2])
    assert part.classes == dataset.classes
    assert len(dataset) == 5


def test_only_the_three_roles_can_be_given(dataset):
    assert dataset.with_roles(["test"] * 5).roles == ("test",) * 5
    for roles in (["val"] * 5, ["train"]):
        with pytest.raises(ValueError, match="expected 5 roles out of train, tune, test"):
            dataset.with_roles(roles)


def test_targets_are_renumbered_by_class_name(dataset):
    renumbered = dataset.with_classes(("c", "x", "b", "a"))
    assert [renumbered.classes[t] for t in renumbered.targets] == ["a", "b", "b", "c", "a"]
    with pytest.raises(DataError, match="labelled b, c, which is not among the classes a"):
        dataset.with_classes(("a",))
    assert dataset.select([0, 4]).with_classes(("z", "a")).targets.tolist() == [1, 1]


def test_a_data_set_survives_pickling(dataset):
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own bytes
    assert copy.ids == dataset.ids
    assert np.array_equal(copy.read(3), dataset.read(3))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": IMAGES.astype(float)}, r"float64 \[5, 2, 3, 1\]; expected uint8"),
        ({"images": np.zeros((5, 2, 2, 4), np.uint8)}, "expected uint8"),
        ({"targets": [0, 1]}, "5 images, 2 labels"),
        ({"targets": [0, 1, 2, 3, 0]}, "from 0 to 3, but there are 3"),
        ({"targets": [0, 1, -1, 2, 0]}, "from -1 to 2"),
        ({"ids": ["x"] * 5}, "same id"),
        ({"roles": ["train"]}, "1 roles"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes, says):
    arguments = {"images": IMAGES, "targets": [0, 1, 1, 2, 0], "classes": ("a", "b", "c"), **changes}
    with pytest.raises(DataError, match=says):
        Dataset.from_arrays(**arguments)


def test_a_file_whose_bytes_have_changed_is_refused_even_with_the_same_pixels(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True)
        Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(tmp_path / "root" / name)
    clean, _ = audit(*open_source(tmp_path / "root"))
    before = clean.read(0)
    Image.fromarray(before[..., 0]).save(tmp_path / "root/a/1.png", compress_level=0)
    with pytest.raises(DataError, match=r"a/1\.png is not the picture it was when the data was audited"):
        clean.read(0)
    assert np.array_equal(clean.read(1), before)


def test_files_are_read_by_the_planes_that_were_picked(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    first, *others = map(Image.fromarray, values)
    first.save(tmp_path / "a.tiff", save_all=True, append_images=others)
    pixels = FilePixels(tmp_path, ("a.tiff",), (2,))
    assert np.array_equal(pixels.read(0)[..., 0], values[2])
    with pytest.raises(DataError, match="3 pages"):
        FilePixels(tmp_path, ("a.tiff",)).read(0)
