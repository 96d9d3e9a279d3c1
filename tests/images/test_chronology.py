"""Roles by time: what was trains, what came after is reported on."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convsmith.errors import DataError
from convsmith.images import Dataset, absent_classes, assign_by_time, time_sentence


def timed(times: list[object], *, targets: list[int] | None = None, groups: list[str] | None = None) -> Dataset:
    """An audited data set of different pictures, taken at these times; by default classes alternate."""
    labels = targets or [i % 2 for i in range(len(times))]
    dataset = Dataset.from_arrays(np.zeros((len(times), 1, 1), np.uint8), labels, "abc"[: max(labels) + 1])
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(len(times))]
    hashes = np.stack([np.frombuffer(digest, np.uint8) for digest in digests])
    named = tuple(groups) if groups else dataset.groups
    return replace(dataset, hashes=hashes, times=tuple(str(time) for time in times), groups=named)


def roles(dataset: Dataset, **options: object) -> str:
    """The first two letters of each image's role."""
    return " ".join(role[:2] for role in assign_by_time(dataset, **options).roles)  # type: ignore[arg-type]


def test_the_latest_fifteen_percent_are_test_and_those_before_them_tune():
    order = np.random.default_rng(0).permutation(40)
    found = assign_by_time(timed([f"2024-{1 + k // 28:02d}-{1 + k % 28:02d}" for k in order.tolist()]))
    by_day = [found.roles[place] for place in np.argsort(order)]
    assert by_day == ["train"] * 28 + ["tune"] * 6 + ["test"] * 6


def test_images_of_one_time_are_on_one_side_and_the_nearer_border_is_taken():
    """By hand: of 20 images 3 are wanted; the last time has 2, the one before 4, and 2 is nearer to 3 than 6 is."""
    assert roles(timed([1] * 10 + [2] * 4 + [3] * 4 + [4] * 2)) == " ".join(
        ["tr"] * 10 + ["tr"] * 4 + ["tu"] * 4 + ["te"] * 2
    )
    assert roles(timed([1] * 12 + [2] * 3 + [3] * 3 + [4] * 1 + [5] * 1)) == " ".join(
        ["tr"] * 12 + ["tr"] * 3 + ["tu"] * 3 + ["te"] * 2
    )


def test_a_group_stands_where_its_latest_image_stands():
    groups = [""] * 20
    groups[0] = groups[19] = "film"
    found = assign_by_time(timed(list(range(20)), groups=groups))
    assert [i for i, role in enumerate(found.roles) if role == "test"] == [0, 18, 19]


def test_near_duplicates_of_a_late_image_go_with_it():
    found = assign_by_time(timed(list(range(20))), near=np.array([[2, 18], [2, 3]]))
    assert {found.roles[i] for i in (2, 3, 18)} == {"test"}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=30, max_size=80),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_nothing_is_parted_nothing_later_is_learnt_from_and_the_order_is_irrelevant(images, pairs, random):
    times, numbers = zip(*images, strict=True)
    dataset = timed(list(times), groups=[f"g{n}" if n % 3 == 0 else "" for n in numbers])
    near = np.array(pairs, np.int64).reshape(-1, 2)
    try:
        found = assign_by_time(dataset, near=near).roles
    except DataError:
        assume(False)
        raise
    rank = {"train": 0, "tune": 1, "test": 2}
    latest: dict[int, int] = {}
    unit = list(range(len(images)))
    for i, j in [*near.tolist(), *_same_group(dataset)]:
        one, other = unit[i], unit[j]
        unit = [one if own == other else own for own in unit]
    for own, time in zip(unit, times, strict=True):
        latest[own] = max(latest.get(own, time), time)
    placed = sorted((latest[own], rank[role]) for own, role in zip(unit, found, strict=True))
    assert [role for _, role in placed] == sorted(role for _, role in placed), "a later unit stands before an earlier"
    assert all(len({role for time, role in placed if time == each}) == 1 for each in latest.values())
    order = list(range(len(images)))
    random.shuffle(order)
    place = {i: k for k, i in enumerate(order)}
    moved = np.array([[place[i], place[j]] for i, j in near.tolist()], np.int64).reshape(-1, 2)
    assert assign_by_time(dataset.select(order), near=moved).roles == tuple(found[i] for i in order)


def _same_group(dataset: Dataset) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [(first.setdefault(name, i), i) for i, name in enumerate(dataset.groups) if name]


def test_the_shares_are_those_wanted_where_times_differ():
    for count in (60, 101, 997):
        counts = Counter(assign_by_time(timed(list(range(count)))).roles)
        assert abs(counts["test"] - 0.15 * count) <= 0.5
        assert abs(counts["tune"] - 0.15 * count) <= 0.5


def test_given_a_test_set_the_latest_of_train_tune_at_most_five_thousand():
    dataset = timed(list(range(40))).with_roles(["test"] * 20 + ["train"] * 20)
    found = assign_by_time(dataset)
    assert found.roles[:20] == ("test",) * 20
    assert found.roles[20:] == ("train",) * 17 + ("tune",) * 3
    few = timed(list(range(41)))
    assert few.hashes is not None
    copies = np.repeat(np.arange(41), 1_000)  # of each picture a thousand, which count as so many images
    many = replace(few.select(copies), ids=tuple(map(str, range(41_000)))).with_roles(
        ["test"] * 1_000 + ["train"] * 40_000
    )
    assert Counter(assign_by_time(many).roles)["tune"] == 5_000


def test_a_given_split_stays_and_its_times_need_not_even_be_there():
    dataset = timed([""] * 6).with_roles(["train", "tune", "test"] * 2)
    assert assign_by_time(dataset) is dataset
    assert time_sentence(dataset, dataset) == "train, tune and test as given, whatever their times"


def test_an_image_without_a_time_is_named():
    with pytest.raises(DataError, match="finds no time for 1 image of 20 in arrays: arrays/07") as caught:
        assign_by_time(timed([k if k != 7 else "" for k in range(20)]))
    assert "exif" in caught.value.mend


def test_too_few_times_and_too_few_units_are_refused():
    with pytest.raises(DataError, match="taken at 2 times, which cannot fill train"):
        assign_by_time(timed([1] * 10 + [2] * 10))
    with pytest.raises(DataError, match="leaves 2 units"):
        assign_by_time(timed(list(range(20)), groups=["p", "q"] * 10))


def test_one_class_to_train_on_is_refused_with_the_time_up_to_which():
    with pytest.raises(DataError, match="all images up to 13, which would train, are of class a"):
        assign_by_time(timed(list(range(20)), targets=[0] * 15 + [1] * 5))


def test_the_sentence_names_the_borders_the_shares_and_that_nothing_is_stratified():
    before = timed([f"2024-03-{k + 1:02d}" for k in range(20)], groups=["g"] * 2 + [""] * 18)
    after = assign_by_time(before, near=np.array([[4, 5]]))
    assert time_sentence(before, after, np.array([[4, 5]])) == (
        "70/15/15 by time, not by class (wanted: 70/15/15), train up to 2024-03-14, tune from 2024-03-15 on, test from "
        "2024-03-18 on, 1 group kept whole, 1 pair of near duplicates kept together"
    )
    given_test = before.with_roles(["test"] * 6 + ["train"] * 14)
    assert time_sentence(given_test, assign_by_time(given_test)).startswith(
        "test as given, the latest 14 % of train for tune by time, not by class, train up to 2024-03-18"
    )


def test_classes_that_a_side_lacks_are_said():
    dataset = timed(list(range(20)), targets=[0, 1] * 8 + [0, 2, 0, 2])
    assert absent_classes(assign_by_time(dataset)) == (
        "Not every side has every class: train has none of c; tune has none of c; test has none of b."
    )
    assert absent_classes(assign_by_time(timed(list(range(20))))) == ""
