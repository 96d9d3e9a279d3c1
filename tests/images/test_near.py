"""Near duplicates: what is found, what is not named, and who has leaked into whose role."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from convsmith.images import near as near_module
from convsmith.images.dataset import Dataset
from convsmith.images.decode import decode
from convsmith.images.near import SKETCH, Near, leaks, near_duplicates, near_records, sketch

SIZE = (180, 140)
DIGITS = load_digits(return_X_y=True)[0]  # float64 [1797, 64], 0 to 16


def scene(seed: int) -> np.ndarray:
    """Paint a picture that has, like a photo, structure of every size: uint8 `[140, 180, 3]`."""
    generator, width, height = np.random.default_rng(seed), *SIZE
    total = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24, 48):
        coarse = generator.normal(size=(cells, cells, 3)) + generator.normal(size=(cells, cells, 1))
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel].astype(np.float32))
            total[..., channel] += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.6
    return np.clip(total * 55 + 120, 0, 255).astype(np.uint8)


def encoded(picture: Image.Image, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return decode(stream.getvalue())


def scaled(image: np.ndarray, factor: float, quality: int) -> np.ndarray:
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return encoded(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), quality)


def cropped(image: np.ndarray, side: float, across: float, down: float) -> np.ndarray:
    height, width = image.shape[:2]
    h, w = round(height * side), round(width * side)
    top, left = round((height - h) * down), round((width - w) * across)
    return encoded(Image.fromarray(image[top : top + h, left : left + w]), 90)


def rotated_by_exif(image: np.ndarray, orientation: int) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    stream = io.BytesIO()
    Image.fromarray(image).transpose(turn).save(stream, "JPEG", quality=90, exif=exif)
    return decode(stream.getvalue())


KINDS = {
    "jpeg of quality 30": lambda image: encoded(Image.fromarray(image), 30),
    "jpeg of quality 95": lambda image: encoded(Image.fromarray(image), 95),
    "half size": lambda image: scaled(image, 0.5, 75),
    "half size at quality 30": lambda image: scaled(image, 0.5, 30),
    "double size": lambda image: scaled(image, 2.0, 75),
    "nine tenths in the middle": lambda image: cropped(image, 0.9, 0.5, 0.5),
    "nine tenths at top left": lambda image: cropped(image, 0.9, 0, 0),
    "nine tenths at top right": lambda image: cropped(image, 0.9, 1, 0),
    "nine tenths at bottom left": lambda image: cropped(image, 0.9, 0, 1),
    "nine tenths at bottom right": lambda image: cropped(image, 0.9, 1, 1),
    "nine tenths of the area": lambda image: cropped(image, 0.949, 0.5, 0.5),
    "nine tenths of the area at a corner": lambda image: cropped(image, 0.949, 1, 0),
    "mirrored": lambda image: encoded(Image.fromarray(image[:, ::-1]), 85),
    "mirrored and cropped": lambda image: cropped(image[:, ::-1], 0.9, 0, 0),
    "brighter": lambda image: np.clip(image.astype(int) + 15, 0, 255).astype(np.uint8),
    "of less contrast": lambda image: (image * 0.8 + 20).astype(np.uint8),
    "grey": lambda image: np.asarray(Image.fromarray(image).convert("L"))[..., None],
    "turned by its EXIF tag": lambda image: rotated_by_exif(image, 6),
}


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [scene(seed) for seed in range(40)]


def sketches_of(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([sketch(image) for image in images])


@pytest.mark.parametrize("kind", KINDS)
def test_a_derived_picture_is_found_and_no_stranger_is_named(kind, scenes):
    found = near_duplicates(sketches_of([*scenes, *(KINDS[kind](image) for image in scenes)]))
    assert found.pairs.tolist() == [[i, i + 40] for i in range(40)]
    assert found.mirrored.tolist() == [kind.startswith("mirrored")] * 40
    assert found.likeness.min() >= near_module.NEAR
    assert found.likeness.max() <= 1
    assert found.compared == 80
    assert not found.limited


def test_the_likeness_falls_with_what_was_done_to_the_picture(scenes):
    versions = [encoded(Image.fromarray(scenes[0]), 95), scaled(scenes[0], 0.5, 30), cropped(scenes[0], 0.93, 0.3, 0.8)]
    found = near_duplicates(sketches_of([scenes[0], *versions]))
    likeness = {tuple(pair): value for pair, value in zip(found.pairs.tolist(), found.likeness.tolist(), strict=True)}
    assert 1 >= likeness[0, 1] > likeness[0, 2] > likeness[0, 3]


def test_a_picture_cut_in_half_is_another_picture(scenes):
    halves = [image[:, :90] for image in scenes]
    assert len(near_duplicates(sketches_of([*scenes, *halves])).pairs) == 0


def test_pictures_that_share_light_and_framing_are_strangers(scenes):
    """What flowers of one class share: the coarse half of the picture is the same in all, the rest is their own."""
    light = np.asarray(Image.fromarray(scenes[0]).resize((4, 4), Image.Resampling.BOX).resize(SIZE)).astype(int)
    alike = [np.clip(light + (image.astype(int) - 128) // 2, 0, 255).astype(np.uint8) for image in scenes]
    assert len(near_duplicates(sketches_of(alike)).pairs) == 0
    assert near_duplicates(sketches_of(alike)).compared == 40


def noise_on_a_wall(generator: np.random.Generator) -> np.ndarray:
    return np.clip(generator.normal(200, 6, (*SIZE[::-1], 3)), 0, 255).astype(np.uint8)


def disc_on_a_wall(generator: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    centre = generator.integers(60, 80, 2)
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < generator.integers(30, 50) ** 2
    values = np.where(inside, 90, 220) + generator.normal(0, 3, inside.shape)
    return np.clip(values, 0, 255).astype(np.uint8)[..., None]


def page_of_text(generator: np.random.Generator) -> np.ndarray:
    page = Image.new("L", (600, 800), 255)
    for line in range(60, 740, 18):
        text = "".join(generator.choice(list("abcdefgh ijkl mnop rstu "), generator.integers(20, 75)))
        ImageDraw.Draw(page).text((60, line), text, fill=0)
    return np.asarray(page)[..., None]


def line_drawing(generator: np.random.Generator) -> np.ndarray:
    paper = Image.new("L", (200, 200), 255)
    for _ in range(3):
        ImageDraw.Draw(paper).line([tuple(p) for p in generator.integers(20, 180, (3, 2)).tolist()], fill=0, width=2)
    return np.asarray(paper)[..., None]


def large_digit(generator: np.random.Generator) -> np.ndarray:
    small = (DIGITS[int(generator.integers(len(DIGITS)))].reshape(8, 8) * 15.9).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC))[..., None]


def one_tone(generator: np.random.Generator) -> np.ndarray:
    return np.full((100, 100, 3), generator.integers(0, 256), np.uint8)


@pytest.mark.parametrize("draw", [noise_on_a_wall, disc_on_a_wall, line_drawing, large_digit, one_tone])
def test_what_has_too_little_to_be_recognised_by_is_not_compared(draw):
    generator = np.random.default_rng(0)
    images = [draw(generator) for _ in range(20)]
    again = [encoded(Image.fromarray(image[..., 0]), 90) for image in images]
    found = near_duplicates(sketches_of([*images, *again]))
    assert found.pairs.shape == (0, 2)
    assert found.compared == 0
    assert found.says() == ""


def test_pages_of_text_are_not_taken_for_each_other():
    """Most have too much paper to be compared; of those that are, a page is near its own copy alone."""
    generator = np.random.default_rng(0)
    pages = [page_of_text(generator) for _ in range(60)]
    again = [encoded(Image.fromarray(image[..., 0]), 90) for image in pages]
    found = near_duplicates(sketches_of([*pages, *again]))
    assert all(second == first + 60 for first, second in found.pairs.tolist())
    assert found.compared < 40


def test_pictures_below_32_pixels_have_no_sketch_and_cost_nothing():
    generator = np.random.default_rng(0)
    for shape in ((8, 8, 1), (28, 28, 1), (31, 400, 3)):
        assert not sketch(generator.integers(0, 256, shape).astype(np.uint8)).any()
    assert sketch(generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)).any()
    same = np.zeros((50, SKETCH), np.uint8)
    assert len(near_duplicates(same).pairs) == 0


def test_a_sketch_is_the_mean_of_its_cells_brought_to_one_contrast():
    """By hand: a picture of 32 x 32 is its own cells."""
    cells = np.random.default_rng(3).integers(0, 256, (32, 32)).astype(np.uint8)
    made = sketch(cells[..., None])
    assert made.dtype == np.uint8
    assert made.shape == (SKETCH,)
    assert made[0] == round(float(cells.std()))
    expected = 128 + 40 * (cells - cells.mean()) / cells.std()
    np.testing.assert_allclose(made[1:].reshape(32, 32), np.clip(expected, 0, 255), atol=0.51)


def test_deep_pictures_have_the_sketch_of_their_eight_bit_twin():
    grey = np.asarray(Image.fromarray(scene(5)).convert("L"))[..., None]
    plain = sketch(grey)[1:].astype(int)
    for deep in (grey.astype(np.uint16) * 257, grey.astype(np.float32) / 255, grey.astype(np.float32) * 1e4 - 7):
        assert np.abs(sketch(deep)[1:].astype(int) - plain).max() <= 2
    broken = grey.astype(np.float32)
    broken[0, 0] = np.nan
    assert np.abs(sketch(broken)[1:].astype(int) - plain).mean() < 1


def test_a_large_picture_has_nearly_the_sketch_of_its_small_version():
    image = scene(6)
    large = np.repeat(np.repeat(image, 8, 0), 8, 1)
    assert np.abs(sketch(large).astype(int) - sketch(image)).max() <= 3


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(24)))
def test_the_order_of_the_pictures_makes_no_difference(order):
    images = [scene(seed) for seed in range(8)]
    kinds = ("mirrored", "nine tenths at top left")
    sketches = sketches_of([*images, *(KINDS[kind](image) for kind in kinds for image in images)])
    straight, shuffled = near_duplicates(sketches), near_duplicates(sketches[list(order)])
    named = {tuple(sorted(order[i] for i in pair)) for pair in shuffled.pairs.tolist()}
    assert named == {tuple(pair) for pair in straight.pairs.tolist()}
    assert len(named) == len(shuffled.pairs) >= 16


def test_blocks_of_the_search_miss_nothing_at_their_borders(scenes, monkeypatch):
    sketches = sketches_of([*scenes, *(KINDS["nine tenths at bottom left"](image) for image in scenes)])
    sketches = sketches[np.random.default_rng(0).permutation(80)]  # so that pairs lie as far apart as can be
    whole = near_duplicates(sketches)
    assert len(whole.pairs) == 40
    assert np.diff(whole.pairs, axis=1).max() > 60
    done = []
    monkeypatch.setattr(near_module, "_ROWS", 7)
    monkeypatch.setattr(near_module, "_COLUMNS", 11)
    monkeypatch.setattr(near_module, "_AT_A_TIME", 2)
    monkeypatch.setattr(near_module, "_AT_ONCE", 3)
    parts = near_duplicates(sketches, progress=lambda now, total: done.append((now, total)))
    assert parts.pairs.tolist() == whole.pairs.tolist()
    np.testing.assert_allclose(parts.likeness, whole.likeness, atol=1e-5)
    assert done[-1] == (80, 80)
    assert [now for now, _ in done] == sorted(now for now, _ in done)


def test_equal_pictures_are_no_pairs_but_all_their_near_duplicates_are(scenes):
    copies = [scenes[0], KINDS["mirrored"](scenes[0]), scenes[0], scenes[0], scenes[1]]
    found = near_duplicates(sketches_of(copies), hashes_of(copies))
    assert found.pairs.tolist() == [[0, 1], [1, 2], [1, 3]]
    assert found.compared == 5


def test_large_sets_of_equal_pictures_are_linked_without_their_product(scenes):
    turned = KINDS["mirrored"](scenes[0])
    copies = [scenes[0]] * 100 + [turned] * 100
    found = near_duplicates(sketches_of(copies), hashes_of(copies))
    assert len(found.pairs) == 199
    assert set(found.pairs.reshape(-1).tolist()) == set(range(200))


def test_of_many_frames_of_one_film_each_is_linked_with_some(scenes):
    generator = np.random.default_rng(0)
    frames = [np.clip(scenes[0] + generator.normal(0, 4, scenes[0].shape), 0, 255).astype(np.uint8) for _ in range(150)]
    found = near_duplicates(sketches_of(frames))
    assert set(found.pairs.reshape(-1).tolist()) == set(range(150))
    assert len(found.pairs) <= 150 * near_module._CANDIDATES


def test_beyond_the_limit_the_result_says_so_and_still_finds_most(scenes, monkeypatch):
    monkeypatch.setattr(near_module, "COMPARED", 60)
    monkeypatch.setattr(near_module, "_ROWS", 1)
    found = near_duplicates(sketches_of([*scenes, *(KINDS["jpeg of quality 30"](image) for image in scenes)]))
    assert found.limited
    assert len(found.pairs) >= 38
    assert all(second == first + 40 for first, second in found.pairs.tolist())
    assert found.says() == (
        "80 pictures were compared for near duplicates; being more than 60, each only with those nearest to it in how"
        " its light falls from top to bottom, so some pairs may be missing."
    )


def test_sketches_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"uint8 \[3, 7\]; expected uint8 \[N, 1025\]"):
        near_duplicates(np.zeros((3, 7), np.uint8))


def hashes_of(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint8) for image in images])


def roles_given(roles: str, *, hashes: list[int] | None = None, targets: list[int] | None = None) -> Dataset:
    """A data set of which only ids, labels, roles and hashes matter; a letter of `roles` is an image."""
    names = {"r": "train", "u": "tune", "e": "test", ".": ""}
    count = len(roles)
    dataset = Dataset.from_arrays(
        np.zeros((count, 4, 4, 1), np.uint8),
        targets or [0] * count,
        ("a", "b"),
        ids=[f"p{i}" for i in range(count)],
        roles=[names[role] for role in roles],
    )
    content = np.zeros((count, 32), np.uint8)
    content[:, 0] = hashes or range(count)
    return replace(dataset, hashes=content)


def pairs_of(*pairs: tuple[int, int, float], mirrored: tuple[int, ...] = ()) -> Near:
    return Near(
        np.array([pair[:2] for pair in pairs], np.int64).reshape(-1, 2),
        np.array([pair[2] for pair in pairs], np.float32),
        np.array([k in mirrored for k in range(len(pairs))], bool),
    )


def test_a_leak_names_both_roles_and_the_kind_the_same_first():
    dataset = roles_given("rrrrrue", hashes=[0, 1, 2, 3, 4, 4, 6])
    found = leaks(dataset, pairs_of((0, 1, 0.99), (0, 6, 0.8), (2, 5, 0.95), (3, 6, 0.9), (5, 6, 0.85), mirrored=(3,)))
    told = [(leak["first"], leak["first_role"], leak["second"], leak["second_role"], leak["kind"]) for leak in found]
    assert told == [
        ("p4", "train", "p5", "tune", "same"),
        ("p3", "train", "p6", "test", "mirrored"),
        ("p5", "tune", "p6", "test", "near"),
    ]
    assert [leak["likeness"] for leak in found] == pytest.approx([1, 0.9, 0.85], abs=1e-6)


def test_each_picture_of_the_smaller_role_is_listed_once_however_many_copies_there_are():
    dataset = roles_given("r" * 50 + "e" * 3, hashes=[7] * 50 + [7, 7, 9])
    crowd = [(i, 52, 0.8 + i / 1000) for i in range(50)]
    found = leaks(dataset, pairs_of(*crowd))
    assert [(leak["second"], leak["kind"], leak["first"]) for leak in found] == [
        ("p50", "same", "p0"),
        ("p51", "same", "p0"),
        ("p52", "near", "p49"),
    ]


def test_pictures_within_a_role_or_without_one_are_no_leak():
    assert leaks(roles_given("rre."), pairs_of((0, 1, 0.9), (0, 3, 0.9), (2, 3, 0.9))) == []
    assert leaks(roles_given("...", hashes=[1, 1, 1]), pairs_of((0, 1, 0.9))) == []


def test_records_say_which_labels_differ_the_likest_first():
    dataset = roles_given("rrr", targets=[0, 1, 1])
    assert near_records(dataset, pairs_of((0, 1, 0.8), (1, 2, 0.9), mirrored=(1,))) == [
        {"first": "p1", "second": "p2", "likeness": 0.9, "mirrored": True, "labels_differ": False},
        {"first": "p0", "second": "p1", "likeness": 0.8, "mirrored": False, "labels_differ": True},
    ]
    assert near_records(dataset, pairs_of()) == []


def test_a_crowd_of_near_duplicates_is_not_written_out_but_its_conflicts_are():
    count = 60
    dataset = roles_given("r" * count, targets=[0] * (count - 1) + [1])
    crowd = pairs_of(*((i, j, 0.9 - j / 1000) for i in range(count) for j in range(i + 1, count)))
    records = near_records(dataset, crowd)
    assert len(records) <= 2 * 8 * count < len(crowd.pairs)
    assert {name for record in records for name in (record["first"], record["second"])} == set(dataset.ids)
    assert len([record for record in records if record["labels_differ"]]) >= 8


REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "flowers5-mini"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared photos (../shared/data/flowers5-mini) are not here")
def test_of_real_photos_95_percent_are_found_and_at_most_1_percent_of_the_pairs_are_strangers():
    photos = [decode(path) for path in sorted(REAL.glob("*/*/*"))]
    kinds = [kind for kind in KINDS if kind != "turned by its EXIF tag"]
    planted = [(i, kinds[i % len(kinds)]) for i in range(len(photos))]
    sketches = sketches_of([*photos, *(KINDS[kind](photos[i]) for i, kind in planted)])
    count = len(photos)
    natural = {tuple(pair) for pair in near_duplicates(sketches[:count]).pairs.tolist()}
    assert len(natural) <= 2
    found = near_duplicates(sketches)
    own = {i for i, j in found.pairs.tolist() if j == i + count}
    strangers = [
        pair for pair in found.pairs.tolist() if pair[1] % count != pair[0] and _sources(pair, count) not in natural
    ]
    assert len(own) >= 0.95 * count
    assert len(strangers) <= 0.01 * len(found.pairs)
    for kind in ("mirrored", "nine tenths in the middle", "half size at quality 30"):
        those = [i for i, name in planted if name == kind]
        assert sum(i in own for i in those) >= 0.93 * len(those)


def _sources(pair: list[int], count: int) -> tuple[int, ...]:
    return tuple(sorted(i % count for i in pair))
