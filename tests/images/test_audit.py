"""The audit: every picture read once, everything odd said, nothing ever a crash."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from convsmith.errors import DataError
from convsmith.images import Dataset, SourceNotes, audit, open_source, pixel_hash


def test_a_clean_folder_is_described_and_fingerprinted(flowers):
    opened, notes = open_source(flowers)
    clean, record = audit(opened, notes)
    assert opened.fingerprint == ""
    assert len(clean.fingerprint) == 64
    assert record == {
        "images": 40,
        "classes": {"rose": 20, "tulip": 20},
        "roles": {},
        "sizes": {"width": {"min": 12, "median": 12, "max": 12}, "height": {"min": 10, "median": 10, "max": 10}},
        "channels": {"1": 0, "3": 40},
        "unreadable": [],
        "skipped": [],
        "duplicates": [],
        "notes": [],
    }
    assert json.loads(json.dumps(record)) == record
    assert all(clean.hashes[i].tobytes() == pixel_hash(clean.read(i)) for i in range(40))


def test_unreadable_files_are_named_and_left_out(flowers):
    whole = (flowers / "rose/03.png").read_bytes()
    (flowers / "rose/03.png").write_bytes(whole[: len(whole) // 2])
    (flowers / "tulip/00.png").write_bytes(b"")
    (flowers / "tulip/01.png").write_bytes(b"<html>")
    clean, record = audit(*open_source(flowers))
    assert [item["path"] for item in record["unreadable"]] == ["rose/03.png", "tulip/00.png", "tulip/01.png"]
    assert "cut short" in record["unreadable"][0]["reason"]
    assert record["images"] == len(clean) == 37
    assert "rose/03.png" not in clean.ids
    assert record["notes"] == ["3 unreadable image(s) left out, such as rose/03.png."]
    assert clean.read(3).shape == (10, 12, 3)


def test_a_file_that_vanishes_before_the_audit_is_listed(flowers):
    opened = open_source(flowers)
    (flowers / "rose/05.png").unlink()
    _, record = audit(*opened)
    assert record["unreadable"] == [{"path": "rose/05.png", "reason": "the file is not there"}]


def test_a_class_of_which_nothing_can_be_read_is_an_error_that_names_it(flowers):
    for path in (flowers / "tulip").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"Not one image of class tulip .* \(tulip/00.png: the file is empty\)"):
        audit(*open_source(flowers))


def test_copies_are_found_across_formats_and_wrong_labels_said(flowers, paint):
    shutil.copy(flowers / "rose/00.png", flowers / "rose/copy.png")
    paint("flowers/tulip/same.bmp", seed=1)
    _, record = audit(*open_source(flowers))
    assert record["duplicates"] == [["rose/00.png", "rose/copy.png"], ["rose/01.png", "tulip/same.bmp"]]
    assert any("different labels" in note and "rose/01.png = tulip/same.bmp" in note for note in record["notes"])


def test_a_test_image_that_is_also_in_train_is_a_leak(tmp_path, paint):
    for i in range(4):
        paint(f"root/train/{'ab'[i % 2]}/{i}.png", seed=i)
        paint(f"root/val/{'ab'[i % 2]}/{i}.png", seed=i if i == 2 else 10 + i)
    _, record = audit(*open_source(tmp_path / "root"))
    assert any("1 image(s) of test are also in train, pixel for pixel: val/a/2.png" in note for note in record["notes"])
    assert record["roles"] == {"train": {"a": 2, "b": 2}, "test": {"a": 2, "b": 2}}


def test_grey_among_colour_and_lone_images_are_noted(flowers, paint):
    paint("flowers/rose/grey.png", mode="L", seed=3, size=(30, 5))
    paint("flowers/orchid/only.png", seed=4)
    _, record = audit(*open_source(flowers))
    assert record["channels"] == {"1": 1, "3": 41}
    assert record["sizes"]["width"] == {"min": 12, "median": 12, "max": 30}
    assert any("1 grey image(s) among 41" in note for note in record["notes"])
    assert any("Class orchid has one image" in note for note in record["notes"])


def test_what_the_source_passed_over_is_kept():
    dataset, _ = open_source("digits")
    _, record = audit(dataset, SourceNotes((("x.txt", "not an image"),), ("A note.",)))
    assert record["skipped"] == [{"path": "x.txt", "reason": "not an image"}]
    assert record["notes"][0] == "A note."


@pytest.mark.parametrize("in_memory", [True, False])
def test_progress_reaches_the_total(flowers, in_memory):
    seen = []
    audit(open_source("digits" if in_memory else flowers)[0], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == ((1797, 1797) if in_memory else (40, 40))


def test_a_progress_that_raises_ends_the_audit(flowers):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(open_source(flowers)[0], progress=interrupt)


def test_the_fingerprint_follows_content_labels_and_names_but_not_order_or_roles():
    images = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2)

    def fingerprint(
        pictures=images, targets=(0, 0, 1, 1), classes=("a", "b"), ids=("1", "2", "3", "4"), order=(0, 1, 2, 3)
    ):
        return audit(Dataset.from_arrays(pictures, targets, classes, ids=ids))[0].select(order).fingerprint

    first = fingerprint()
    assert fingerprint(order=(3, 1, 0, 2)) == first
    other = {
        fingerprint(pictures=images + 1),
        fingerprint(targets=(0, 1, 1, 1)),
        fingerprint(classes=("a", "c")),
        fingerprint(ids=("1", "2", "3", "5")),
        fingerprint(order=(0, 1, 2)),
    }
    assert len(other | {first}) == 6
    dataset, _ = audit(Dataset.from_arrays(images, (0, 0, 1, 1), ("a", "b"), ids=("1", "2", "3", "4")))
    assert dataset.with_roles(["train"] * 4).fingerprint == first


def test_the_same_pictures_as_files_and_as_arrays_have_the_same_fingerprint(flowers):
    files, _ = audit(*open_source(flowers))
    images = np.stack([files.read(i) for i in range(len(files))])
    arrays, _ = audit(Dataset.from_arrays(images, files.targets, files.classes, ids=files.ids))
    assert arrays.fingerprint == files.fingerprint
