"""The audit: every picture read once, everything odd said, nothing ever a crash."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from convsmith.errors import DataError
from convsmith.images import (
    FORMS_SEEN,
    Dataset,
    SourceNotes,
    assign_roles,
    audit,
    leaks,
    near_duplicates,
    open_source,
    pixel_hash,
)
from convsmith.images.examine import SIDE

audit_module = sys.modules[audit.__module__]
REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "imagenet-check-63"


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
        "label_conflicts": [],
        "forms": {},
        "remembered": 0,
        "notes": [],
    }
    assert json.loads(json.dumps(record)) == record
    for i, name in enumerate(clean.ids):
        assert clean.hashes[i].tobytes() == hashlib.sha256((flowers / name).read_bytes()).digest()
    assert clean.contents is clean.hashes


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
    assert record["label_conflicts"] == [["rose/01.png", "tulip/same.bmp"]]
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


def test_the_fingerprint_of_files_is_over_their_bytes_and_of_arrays_over_their_pixels(flowers):
    files, _ = audit(*open_source(flowers))
    images = np.stack([files.read(i) for i in range(len(files))])
    arrays, _ = audit(Dataset.from_arrays(images, files.targets, files.classes, ids=files.ids))
    by_bytes, by_pixels = (hashlib.sha256(b"rose\0tulip\0") for _ in range(2))
    for i, name in enumerate(files.ids):
        row = f"{name}\0{name[:-7]}\0".encode()
        by_bytes.update(row + hashlib.sha256((flowers / name).read_bytes()).digest())
        by_pixels.update(row + pixel_hash(images[i]))
    assert files.fingerprint == by_bytes.hexdigest()
    assert arrays.fingerprint == by_pixels.hexdigest()


DRAWING = np.where(np.add.outer(np.arange(90) // 30, np.arange(110) // 40) % 2, 255, 0).astype(np.uint8)
PLAIN = {
    "tiny": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    "grey": np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8),
    "wall": np.full((400, 300, 3), 77, np.uint8),
    "drawing": DRAWING,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_copies_in_other_formats_of_what_is_too_plain_or_small_to_be_recognised_are_found(flowers, kind):
    picture = Image.fromarray(PLAIN[kind])
    picture.save(flowers / "rose/copy.png")
    picture.save(flowers / "rose/copy.bmp")
    picture.save(flowers / "tulip/copy.tiff")
    picture.save(flowers / "tulip/other.png", compress_level=0)
    clean, record = audit(*open_source(flowers))
    names = ["rose/copy.bmp", "rose/copy.png", "tulip/copy.tiff", "tulip/other.png"]
    assert record["duplicates"] == record["label_conflicts"] == [names]
    rows = [clean.ids.index(name) for name in names]
    assert len({clean.hashes[i].tobytes() for i in rows}) == 4
    assert {clean.contents[i].tobytes() for i in rows} == {min(clean.hashes[i].tobytes() for i in rows)}
    rest = np.setdiff1d(np.arange(len(clean)), rows)
    assert np.array_equal(clean.contents[rest], clean.hashes[rest])
    assert len(near_duplicates(clean.scan.sketches, clean.contents).pairs) == 0
    for seed in range(5):
        divided = assign_roles(clean, split_seed=seed)
        assert len({divided.roles[i] for i in rows}) == 1
    torn = clean.with_roles(["test" if name == "tulip/other.png" else "train" for name in clean.ids])
    (leak,) = leaks(torn, near_duplicates(clean.scan.sketches))
    assert (leak["first"], leak["second"], leak["kind"]) == ("rose/copy.bmp", "tulip/other.png", "same")
    part = clean.select(rows[1:])
    assert np.array_equal(part.contents, clean.contents[rows[1:]])


def test_a_small_jpeg_and_what_it_shows_as_png_are_the_same(flowers, paint):
    paint("flowers/rose/a.jpg", seed=7, size=(120, 90))
    with Image.open(flowers / "rose/a.jpg") as picture:
        picture.save(flowers / "rose/b.png")
    assert audit(*open_source(flowers))[1]["duplicates"] == [["rose/a.jpg", "rose/b.png"]]


def test_a_large_jpeg_coded_in_two_ways_is_the_same_and_its_png_is_near(flowers):
    noise = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    photo = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    photo.save(flowers / "rose/a.jpg")
    photo.save(flowers / "rose/b.jpg", optimize=True, progressive=True)
    with Image.open(flowers / "rose/a.jpg") as picture:
        picture.save(flowers / "rose/c.png")
    clean, record = audit(*open_source(flowers))
    assert record["duplicates"] == [["rose/a.jpg", "rose/b.jpg"]]
    near = near_duplicates(clean.scan.sketches, clean.contents)
    found = {tuple(clean.ids[i] for i in pair) for pair in near.pairs.tolist()}
    assert found == {("rose/a.jpg", "rose/c.png"), ("rose/b.jpg", "rose/c.png")}
    assert near.likeness.min() > 0.99


def test_pictures_that_only_look_the_same_in_every_figure_are_not_taken_for_one(flowers):
    noise = np.random.default_rng(999).integers(0, 256, (10, 12, 3), np.uint8)
    for name, picture in {"a": noise, "b": noise[:, ::-1], "c": noise[::-1]}.items():
        Image.fromarray(np.ascontiguousarray(picture)).save(flowers / f"rose/{name}.png")
    clean, record = audit(*open_source(flowers))
    alike = [clean.ids.index(f"rose/{name}.png") for name in "abc"]
    assert len({(float(clean.scan.brightness[i]), float(clean.scan.sharpness[i])) for i in alike}) == 1
    assert record["duplicates"] == []
    assert not clean.twins


def test_a_lookalike_that_is_gone_before_its_pixels_are_compared_stands_alone(flowers, monkeypatch):
    Image.fromarray(DRAWING).save(flowers / "rose/a.png")
    Image.fromarray(DRAWING).save(flowers / "rose/b.bmp")
    read = audit_module.decode_file
    monkeypatch.setattr(audit_module, "decode_file", lambda path, pick: read(path + ".gone", pick))
    clean, record = audit(*open_source(flowers))
    assert len(clean) == 42
    assert record["duplicates"] == []


def test_the_scan_says_of_every_picture_what_an_independent_look_says(flowers, paint):
    paint("flowers/rose/large.jpg", seed=9, size=(500, 375), quality=90)
    paint("flowers/rose/grey.png", seed=8, size=(40, 35), mode="L")
    (flowers / "rose/02.png").write_bytes(b"")
    clean, _ = audit(*open_source(flowers), memory=False)
    scan = clean.scan
    assert [(array.dtype, len(array)) for array in vars(scan).values()] == [
        (np.dtype(kind), 41) for kind in ("int32", "float32", "float32", "uint8", "uint32", "int64")
    ]
    for i, name in enumerate(clean.ids):
        image = clean.read(i)
        luma = image.astype(float) @ ((0.299, 0.587, 0.114) if image.shape[2] == 3 else (1.0,))
        factor = max(1, min(luma.shape) // SIDE)
        rows, columns = (np.arange(0, side, factor) for side in luma.shape)
        sums = np.add.reduceat(np.add.reduceat(luma, rows, 0), columns, 1)
        counts = np.outer(np.diff([*rows, luma.shape[0]]), np.diff([*columns, luma.shape[1]]))
        laplacian = ndimage.laplace(sums / counts)[1:-1, 1:-1]
        assert tuple(scan.shapes[i]) == image.shape
        assert scan.brightness[i] == pytest.approx(luma.mean() / 255, abs=2 / 255)
        assert scan.sharpness[i] == pytest.approx(laplacian.var(), rel=0.02)
        assert scan.bytes[i] == (flowers / name).stat().st_size
    large = clean.ids.index("rose/large.jpg")
    assert scan.sketches[large].any()


def test_the_scan_stays_beside_its_pictures_when_some_are_chosen(flowers, paint):
    paint("flowers/rose/large.jpg", seed=9, size=(90, 75), quality=90)
    clean, _ = audit(*open_source(flowers))
    part = clean.select([40, 3, 20])
    for name, values in vars(clean.scan).items():
        assert np.array_equal(getattr(part.scan, name), values[[40, 3, 20]])


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared photos (../shared/data/imagenet-check-63) are not here")
def test_a_blurred_photo_is_less_sharp_and_its_size_matters_little(tmp_path):
    for path in sorted(REAL.iterdir())[:6]:
        with Image.open(path) as photo:
            square = photo.convert("RGB").resize((600, 600))
        for name, image in {
            "plain": square,
            "blurred": square.filter(ImageFilter.GaussianBlur(9)),
            "smaller": square.resize((450, 450)),
        }.items():
            (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "root" / name / f"{path.stem}.png", compress_level=1)
    clean, _ = audit(*open_source(tmp_path / "root"))
    sharpness = {name: clean.scan.sharpness[clean.targets == k] for k, name in enumerate(clean.classes)}
    assert (sharpness["blurred"] < 0.6 * sharpness["plain"]).all()
    assert np.median(sharpness["smaller"] / sharpness["plain"]) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("kind", ["digits", "colour"])
def test_pictures_in_memory_are_scanned_like_the_same_pictures_in_files(kind, tmp_path):
    if kind == "digits":
        dataset = open_source("digits", limit=30)[0]
    else:
        images = np.random.default_rng(0).integers(0, 256, (6, 210, 50, 3), np.uint8)
        dataset = Dataset.from_arrays(images, [0, 1] * 3, ("0", "1"))
    for i in range(len(dataset)):
        path = tmp_path / "root" / dataset.classes[dataset.targets[i]] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.read(i).squeeze()).save(path)
    arrays, _ = audit(dataset)
    files, _ = audit(*open_source(tmp_path / "root"))
    order = [int(name[-6:-4]) for name in files.ids]
    for name in ("shapes", "brightness", "sharpness", "sketches"):
        assert np.array_equal(getattr(arrays.scan, name)[order], getattr(files.scan, name))
    assert (arrays.scan.bytes == [dataset.read(i).size for i in range(len(dataset))]).all()
    assert not arrays.scan.forms.any()


def test_the_forms_are_counted_with_their_rule_and_paths(flowers, paint):
    paint("flowers/rose/grey.png", mode="L", seed=3)
    paint("flowers/rose/odd.jpg", seed=4, format="PNG")
    film = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (0, 255)]
    film[0].save(flowers / "tulip/film.webp", save_all=True, append_images=film[1:], lossless=True)
    clean, record = audit(*open_source(flowers))
    assert {name: (form["n"], form["paths"]) for name, form in record["forms"].items()} == {
        "animated": (1, ["tulip/film.webp"]),
        "grey": (1, ["rose/grey.png"]),
        "misnamed": (1, ["rose/odd.jpg"]),
    }
    assert all(form["rule"] == FORMS_SEEN[name] for name, form in record["forms"].items())
    bits = {name: 1 << k for k, name in enumerate(FORMS_SEEN)}
    assert clean.scan.forms[clean.ids.index("rose/odd.jpg")] == bits["misnamed"]
    assert "1 animation(s), such as tulip/film.webp: the first frame is taken." in record["notes"]
    assert json.loads(json.dumps(record)) == record


def test_more_paths_than_fifty_are_only_counted(paint, tmp_path):
    for i in range(60):
        paint(f"grey/{'ab'[i % 2]}/{i:02d}.png", mode="L", seed=i)
    form = audit(*open_source(tmp_path / "grey"))[1]["forms"]["grey"]
    assert (form["n"], len(form["paths"])) == (60, 50)


def test_what_waits_for_a_choice_is_left_out_and_the_choice_named(flowers):
    Image.fromarray(np.eye(5, dtype=np.float32)).save(flowers / "rose/deep.tiff")
    pages = [Image.new("L", (5, 5), value) for value in (1, 2)]
    pages[0].save(flowers / "rose/pages.tiff", save_all=True, append_images=pages[1:])
    dataset, notes = open_source(flowers)
    clean, record = audit(dataset, notes)
    assert len(clean) == 40
    assert "2 unreadable image(s) left out, such as rose/deep.tiff." in record["notes"]
    assert any("rose/deep.tiff" in note and "--set image.range=[LOW,HIGH]" in note for note in record["notes"])
    assert any("rose/pages.tiff" in note and "--set data.channels=[0]" in note for note in record["notes"])
    picked, record = audit(replace(dataset, pixels=replace(dataset.pixels, pick=(0,))), floats=True)
    assert len(picked) == 42
    assert set(record["forms"]) == {"float", "grey"}
    assert record["unreadable"] == []


def test_where_all_wait_for_a_choice_the_error_names_it(tmp_path):
    for name in "ab":
        (tmp_path / "root" / name).mkdir(parents=True)
        Image.fromarray(np.eye(5, dtype=np.float32)).save(tmp_path / "root" / name / "1.tiff")
    with pytest.raises(DataError, match="floating point") as caught:
        audit(*open_source(tmp_path / "root"))
    assert "--set image.range=[LOW,HIGH]" in caught.value.mend


def test_deep_pictures_are_scanned_by_their_own_range(tmp_path):
    values = np.random.default_rng(0).integers(300, 900, (50, 40), np.uint16)
    for name in "ab":
        (tmp_path / "root" / name).mkdir(parents=True)
        Image.fromarray(values + (name == "b")).save(tmp_path / "root" / name / "1.png")
    clean, record = audit(*open_source(tmp_path / "root"))
    assert record["forms"]["16-bit"]["n"] == 2
    assert clean.read(0).dtype == np.uint16
    assert clean.scan.brightness == pytest.approx([values.mean() / 65535, (values.mean() + 1) / 65535])
    assert clean.scan.sharpness[0] > 100
    assert len({row.tobytes() for row in clean.hashes}) == 2
