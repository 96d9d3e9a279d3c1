"""Groups: by folder, by name, and by suspicion."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convsmith.errors import DataError, UsageError
from convsmith.images import Dataset, FilePixels, open_source, suspected_groups, with_groups


def listed(*ids: str, roles: tuple[str, ...] | None = None) -> Dataset:
    """A folder's data set by its names alone: the class is the first folder that is no part of a split."""
    labels = [next(part for part in name.split("/") if part not in ("train", "val", "photos")) for name in ids]
    classes = tuple(sorted(set(labels)))
    return Dataset(
        ids=ids,
        targets=np.array([classes.index(label) for label in labels]),
        classes=classes,
        roles=roles or ("",) * len(ids),
        groups=("",) * len(ids),
        source="made up",
        pixels=FilePixels(Path("nowhere"), ids),
        rows=np.arange(len(ids)),
    )


def test_parent_is_what_lies_between_the_class_folder_and_the_image():
    dataset = listed("cat/anna/1.jpg", "cat/anna/2.jpg", "cat/left/anna/3.jpg", "dog/anna/1.jpg", "dog/ben/2.jpg")
    groups, notes = with_groups(dataset, "parent")
    assert groups.groups == ("anna", "anna", "left/anna", "anna", "ben")
    assert notes == []
    assert dataset.groups == ("",) * 5


def test_parent_sees_through_a_wrapping_folder_and_the_parts_of_a_split():
    wrapped = listed("photos/cat/anna/1.jpg", "photos/dog/ben/2.jpg")
    assert with_groups(wrapped, "parent")[0].groups == ("anna", "ben")
    parts = listed("train/cat/anna/1.jpg", "val/cat/anna/2.jpg", "val/dog/ben/2.jpg", roles=("train", "test", "test"))
    assert with_groups(parts, "parent")[0].groups == ("anna", "anna", "ben")
    inside = listed("cat/train/anna/1.jpg", "cat/val/ben/2.jpg", "dog/val/3.jpg", roles=("train", "test", "test"))
    assert with_groups(inside, "parent")[0].groups == ("anna", "ben", "")


def test_images_that_the_rule_does_not_fit_are_groups_of_their_own_and_said():
    dataset, notes = with_groups(listed("cat/anna/1.jpg", "cat/2.jpg", "dog/3.jpg"), "parent")
    assert dataset.groups == ("anna", "", "")
    assert notes == ["2 images that the group rule does not fit, such as cat/2.jpg: each is a group of its own."]


def test_a_rule_that_fits_nothing_is_an_error_with_an_example():
    for rule in ("parent", r"patient(\d+)"):
        with pytest.raises(DataError, match=r"not one image of made up .* such as cat/1.jpg") as caught:
            with_groups(listed("cat/1.jpg", "dog/2.jpg"), rule)
        assert "parent, or a regular expression" in caught.value.mend


def test_pictures_in_memory_have_no_folders():
    with pytest.raises(UsageError, match="digits lie in no folders"):
        open_source("digits", group="parent")


def test_a_regular_expression_is_searched_in_the_whole_id():
    dataset = listed("cat/p07_1.jpg", "cat/p07_2.jpg", "dog/p08_1.jpg", "dog/x.jpg")
    assert with_groups(dataset, r"(p\d+)_")[0].groups == ("p07", "p07", "p08", "")
    assert with_groups(dataset, r"^(\w+)/")[0].groups == ("cat", "cat", "dog", "dog")
    assert with_groups(dataset, r"_(1)?")[0].groups == (
        "1",
        "",
        "1",
        "",
    )  # brackets that may stay empty name nothing then


def test_all_images_of_one_group_are_said():
    assert with_groups(listed("cat/a_1.jpg", "dog/a_2.jpg"), r"(a)_")[1] == [
        "All images are of one group, so no split can be made of them."
    ]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("(p", "neither `parent` nor a regular expression"),
        ("[z-a](x)", "neither `parent` nor a regular expression"),
        (r"p\d+", "0 capturing groups"),
        (r"(p)(\d+)", "2 capturing groups"),
        ("(" + "a" * 200 + ")", "202 characters; at most 200"),
        (r"(a+)+$", "can take forever"),
        (r"((?:a|a)*)$", "can take forever"),
        (r"((?:a?){30}a{30})", "can take forever"),
        (r"(?:\w*\d)+(x)", "can take forever"),
        (r"(?:[^/]+/)*(x)", "can take forever"),
        (r"(a*a*a*a*a*a*a*)b", "can take forever"),
    ],
)
def test_a_rule_that_cannot_work_or_never_ends_is_refused_at_once(rule, says):
    start = time.monotonic()
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        with_groups(listed(*(f"cat/{'a' * 60}{i}.jpg" for i in range(3))), rule)
    assert time.monotonic() - start < 1
    assert caught.value.mend


@pytest.mark.parametrize(
    "rule",
    [
        r"(patient\d+)_",
        r"(?:^|/)([A-Z][a-z]+(?:-\d{2})?)[^/]*$",
        r"([^/]+)/[^/]+$",
        r"(?P<who>\w+?)_\d{3}",
        r"(?i:donor)([A-Z]|\d+)",
        r"[()*+]?(x\(+)",
        r"(\d{2}){1}",
        r"(?:\d\d)(?:-\d\d){2}_(\w+)",
    ],
)
def test_ordinary_rules_are_not_refused(rule):
    with pytest.raises(DataError, match="not one image"):
        with_groups(listed("//.-"), rule)


def names(*patterns: str, numbers: range = range(1, 13)) -> Dataset:
    return listed(*(pattern.replace("#", f"{i:04d}") for pattern in patterns for i in numbers))


@pytest.mark.parametrize(
    ("patterns", "groups"),
    [
        ([f"{c}/patient{p}_#.jpg" for c in ("ill", "well") for p in (1, 2, 3)], {"patient1", "patient2", "patient3"}),
        ([f"{c}/vid{v}_frame#.jpg" for c in "ab" for v in range(5)], {f"vid{v}" for v in range(5)}),
        ([f"{c}/donor{d}-#.png" for c in "ab" for d in "ABC"], {"donorA", "donorB", "donorC"}),
        ([f"{c}/{p:04d}_#.png" for c in "ab" for p in (3, 17, 21)], {"0003", "0017", "0021"}),
        ([f"{c}/subject{p:02d}.#.png" for c in "ab" for p in range(3)], {"subject00", "subject01", "subject02"}),
        (
            [f"{c}/SOB_{c}-14-{p}AB-40-#.png" for c in "BM" for p in (22549, 22704, 23060)],
            {f"SOB_{c}-14-{p}AB" for c in "BM" for p in (22549, 22704, 23060)},
        ),
        ([f"{c}/patient{p:02d}_{side}_#.jpg" for c in "ab" for p in range(4) for side in ("l", "r")],
         {f"patient{p:02d}" for p in range(4)}),
        ([f"{c}/film {k}/#.jpg" for c in "ab" for k in range(3)], {"film 0", "film 1", "film 2"}),
        ([f"train/{c}/slide{k}/x#.jpg" for c in "ab" for k in range(3)], {"slide0", "slide1", "slide2"}),
    ],
)  # fmt: skip
def test_names_of_patients_films_and_donors_are_suspected_and_the_rule_does_what_it_says(patterns, groups):
    dataset = names(*patterns)
    first = suspected_groups(dataset)[0]
    applied, _ = with_groups(dataset, first["rule"])
    sizes = {name: applied.groups.count(name) for name in set(applied.groups) - {""}}
    assert set(sizes) == groups
    assert first["groups"] == len(sizes)
    assert first["images"] == sum(sizes.values())
    assert first["largest"] == max(sizes.values())
    assert len({applied.groups[dataset.ids.index(identifier)] for identifier in first["example"]}) == 1
    assert first["says"].endswith(f"{first['rule']}.") or first["says"].endswith(f"'{first['rule']}'.")


@pytest.mark.parametrize(
    "patterns",
    [
        ["a/IMG_#.jpg", "b/IMG_#.jpg"],
        ["a/IMG_#.jpg", "a/DSC_#.jpg", "a/P#.jpg", "b/PXL_#.jpg", "b/DSCN_#.jpg", "b/IMG_#.jpg"],
        ["a/DSC0#.jpg", "b/DSC1#.jpg"],
        ["a/#.png", "b/0#.png"],
        ["a/image_#.jpg", "b/image_#.jpg"],
        [f"n0144{k}764/n0144{k}764_#.JPEG" for k in range(5)],
        [f"{c}/{c}.#.jpg" for c in ("cat", "dog", "yak")],
        ["dog/dog (#).jpg", "cat/cat (#).jpg"],
        [f"a/IMG_202301{d:02d}_#.jpg" for d in range(10, 20)],
        [f"a/IMG202301{d:02d}_12#.jpg" for d in range(10, 20)],
        [f"a/202301{d:02d}_#.jpg" for d in range(10, 20)],
        [f"a/IMG-202301{d:02d}-WA#.jpg" for d in range(10, 20)],
        [f"a/Screenshot 2023-01-{d:02d} at 10.11.#.png" for d in range(10, 20)],
        ["dog/golden_retriever_#.jpg", "dog/poodle_#.jpg", "dog/husky_#.jpg", "cat/siamese_#.jpg", "cat/persian_#.jpg"],
        [f"dog/{breed}_#.jpg" for breed in ("poodle", "husky", "boxer", "akita")],
        ["cat/images/#.jpg", "dog/images/#.jpg"],
        ["a/x#y.png", "b/x#y.png"],
    ],
)
def test_cameras_classes_dates_and_words_are_no_groups(patterns):
    assert suspected_groups(names(*patterns)) == []


def test_names_that_are_hashes_or_their_first_letters_as_folders_are_no_groups():
    import hashlib

    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    assert suspected_groups(listed(*(f"{'ab'[i % 2]}/{name}.jpg" for i, name in enumerate(digests)))) == []
    assert suspected_groups(listed(*(f"{'ab'[i % 2]}/{name[0]}/{name}.jpg" for i, name in enumerate(digests)))) == []


def test_a_few_camera_names_among_patients_do_not_become_a_group():
    dataset = names(*(f"{c}/patient{p:02d}_#.jpg" for c in "ab" for p in range(4)), "a/IMG_#.jpg")
    first = suspected_groups(dataset)[0]
    assert first["groups"] == 4
    applied, _ = with_groups(dataset, first["rule"])
    assert set(applied.groups) == {"", *(f"patient{p:02d}" for p in range(4))}


def test_nothing_is_suspected_where_groups_are_known_or_pictures_have_no_names():
    dataset = names(*(f"{c}/patient{p:02d}_#.jpg" for c in "ab" for p in range(4)))
    assert suspected_groups(dataset)
    assert suspected_groups(replace(dataset, groups=("p",) * len(dataset))) == []
    assert suspected_groups(open_source("digits")[0]) == []


def test_pairs_are_too_small_to_be_groups():
    assert suspected_groups(names(*(f"a/patient{p:02d}_#.jpg" for p in range(40)), numbers=range(2))) == []


REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "flowers5-mini"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared photos (../shared/data/flowers5-mini) are not here")
def test_real_photos_from_many_people_are_not_suspected():
    assert suspected_groups(open_source(REAL)[0]) == []
