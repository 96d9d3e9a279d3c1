"""Folds: each image in exactly one, no unit torn, classes and sizes as even as they can be."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from convsmith.errors import DataError
from convsmith.images import (
    Dataset,
    assign_fold,
    assign_roles,
    fold_notes,
    fold_numbers,
    fold_sentence,
    folds_sentence,
    without_given_test,
)


def labelled(targets: Sequence[int], *, groups: Sequence[str] = (), roles: Sequence[str] | None = None) -> Dataset:
    """An audited data set of different pictures."""
    count = len(targets)
    dataset = Dataset.from_arrays(
        np.zeros((count, 1, 1), np.uint8), list(targets), "abcdefgh"[: max(targets) + 1], roles=roles
    )
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(count)]
    hashes = np.stack([np.frombuffer(digest, np.uint8) for digest in digests])
    return replace(dataset, hashes=hashes, groups=tuple(groups) or dataset.groups)


def table(dataset: Dataset, numbers: np.ndarray, folds: int) -> np.ndarray:
    """Images of each class, `[folds, classes]`."""
    return np.array([np.bincount(dataset.targets[numbers == k + 1], minlength=8) for k in range(folds)])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=10, max_size=120), st.integers(2, 7), st.integers(0, 3), st.integers(1, 3))
def test_single_pictures_are_divided_as_evenly_as_scikit_learn_does(targets, folds, seed, repeat):
    """Counts of each class, and of all images, differ by one at the most: more even cannot be."""
    dataset = labelled(targets)
    numbers = fold_numbers(dataset, folds, split_seed=seed, repeat=repeat)
    assert set(numbers.tolist()) == set(range(1, folds + 1))
    found = table(dataset, numbers, folds)
    assert np.ptp(found, axis=0).max() <= 1
    assert np.ptp(found.sum(axis=1)) <= 1
    if np.bincount(targets).max() >= folds:  # else theirs raises
        theirs = np.zeros_like(numbers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes smaller than the number of folds
            for k, (_, test) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=0).split(targets, targets)):
                theirs[test] = k + 1
        assert (np.sort(found, axis=0) == np.sort(table(dataset, theirs, folds), axis=0)).all()


def components(dataset: Dataset, near: np.ndarray) -> np.ndarray:
    """The unit of each image by another way than the code's."""
    assert dataset.hashes is not None
    links = [tuple(pair) for pair in near.tolist()] + [(i, i) for i in range(len(dataset))]
    for keys in ([row.tobytes() for row in dataset.hashes], dataset.groups):
        first: dict[object, int] = {}
        links += [(first.setdefault(key, i), i) for i, key in enumerate(keys) if key]
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(dataset), len(dataset)))
    return connected_components(graph, directed=False)[1]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 40)), min_size=40, max_size=90),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=8),
    st.integers(2, 5),
    st.randoms(use_true_random=False),
)
def test_no_unit_is_torn_each_image_is_in_one_fold_and_the_order_is_irrelevant(images, pairs, folds, random):
    targets, contents, groups = zip(*images, strict=True)
    dataset = labelled(targets, groups=[f"g{group}" if group % 3 else "" for group in groups])
    assert dataset.hashes is not None
    dataset = replace(dataset, hashes=dataset.hashes[np.array(contents) % len(images)])  # some are copies of others
    near = np.array(pairs, np.int64).reshape(-1, 2)
    units = components(dataset, near)
    if len(set(units.tolist())) < folds:
        with pytest.raises(DataError, match="cannot fill"):
            fold_numbers(dataset, folds, near=near)
        return
    numbers = fold_numbers(dataset, folds, near=near)
    assert set(numbers.tolist()) == set(range(1, folds + 1))
    assert all(len(set(numbers[units == unit].tolist())) == 1 for unit in units)
    order = list(range(len(images)))
    random.shuffle(order)
    place = {i: k for k, i in enumerate(order)}
    moved = np.array([[place[i], place[j]] for i, j in near.tolist()], np.int64).reshape(-1, 2)
    assert (fold_numbers(dataset.select(order), folds, near=moved) == numbers[order]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=5, max_size=20), min_size=1, max_size=4), st.integers(2, 5))
def test_with_groups_of_one_class_counts_differ_by_the_largest_group_at_the_most(sizes, folds):
    targets = [k for k, groups in enumerate(sizes) for size in groups for _ in range(size)]
    names = [f"{k} {j}" for k, groups in enumerate(sizes) for j, size in enumerate(groups) for _ in range(size)]
    dataset = labelled(targets, groups=names)
    found = table(dataset, fold_numbers(dataset, folds), folds)
    for k, groups in enumerate(sizes):
        assert np.ptp(found[:, k]) <= max(groups)


def unevenness(targets: np.ndarray, numbers: np.ndarray) -> tuple[float, float]:
    """Standard deviations between folds: of the shares of each class, in the mean, and of the shares of all images."""
    found = np.array([np.bincount(targets[numbers == k], minlength=8) for k in np.unique(numbers)], np.float64)
    found = found[:, found.sum(axis=0) > 0]
    return float(np.std(found / found.sum(axis=0), axis=0).mean()), float(np.std(found.sum(axis=1) / found.sum()))


def test_with_groups_of_several_classes_folds_are_at_least_as_even_as_those_of_scikit_learn():
    """Over 40 made-up sets the folds' classes and sizes vary less than those of its StratifiedGroupKFold."""
    ours, theirs = [], []
    for case in range(40):
        rng = np.random.default_rng(case)
        folds, classes = int(rng.integers(2, 8)), int(rng.integers(2, 6))
        sizes = np.maximum(1, rng.geometric(rng.uniform(0.05, 0.5), int(rng.integers(20, 60))))
        mixed, usual = rng.uniform(), rng.dirichlet(np.full(classes, 2.0))
        shares = [usual if rng.uniform() < mixed else np.eye(classes)[rng.choice(classes, p=usual)] for _ in sizes]
        targets = np.concatenate(
            [rng.choice(classes, size=size, p=share) for size, share in zip(sizes, shares, strict=True)]
        )
        groups = np.repeat(np.arange(len(sizes)), sizes)
        ours.append(unevenness(targets, fold_numbers(labelled(targets, groups=[f"g{k}" for k in groups]), folds)))
        other = np.zeros(len(targets), int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            split = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(targets, targets, groups)
            for k, (_, test) in enumerate(split):
                other[test] = k
        theirs.append(unevenness(targets, other))
    assert (np.mean(ours, axis=0) <= np.mean(theirs, axis=0)).all()


def test_repeats_and_seeds_draw_other_folds_also_where_all_groups_differ_in_size():
    sizes = range(3, 33)
    dataset = labelled([k % 2 for k, size in enumerate(sizes) for _ in range(size)],
                       groups=[f"g{k}" for k, size in enumerate(sizes) for _ in range(size)])  # fmt: skip
    drawn = [fold_numbers(dataset, 5, repeat=repeat, split_seed=seed) for repeat, seed in ((1, 0), (2, 0), (1, 1))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        together = [(k == k[:, None]) for k in (drawn[one], drawn[other])]
        assert (together[0] != together[1]).mean() > 0.1  # other pairs of images share a fold
    assert (fold_numbers(dataset, 5) == drawn[0]).all()


def test_the_run_of_each_fold_tests_it_and_splits_the_rest_by_class_as_usual():
    dataset = labelled([0] * 100 + [1] * 50)
    numbers = fold_numbers(dataset, 5)
    tested = []
    for fold in range(1, 6):
        found = assign_fold(dataset, numbers, fold)
        assert found.counts() == {
            "train": {"a": 68, "b": 34}, "tune": {"a": 12, "b": 6}, "test": {"a": 20, "b": 10},
        }  # fmt: skip
        tested += found.indices("test").tolist()
        rest = dataset.with_roles(["test" if own == fold else "train" for own in numbers])
        assert found.roles == assign_roles(rest).roles
    assert sorted(tested) == list(range(150))


def test_a_given_test_set_stays_aside_and_given_tune_images_tune_in_every_run():
    dataset = labelled([0, 1] * 40, roles=(["train"] * 28 + ["tune"] * 4 + ["test"] * 8) * 2)
    rest, aside = without_given_test(dataset)
    assert (aside, len(rest)) == (16, 64)
    assert without_given_test(rest) == (rest, 0)
    numbers = fold_numbers(rest, 4)
    assert [set(numbers[rest.indices(role)].tolist()) for role in ("tune", "train")] == [{0}, {1, 2, 3, 4}]
    found = assign_fold(rest, numbers, 2)
    assert (found.indices("tune") == rest.indices("tune")).all()
    assert [len(found.indices(role)) for role in ("train", "tune", "test")] == [42, 8, 14]
    assert fold_sentence(rest, found, 4, 2, 1) == "fold 2 of 4 is test (22 %, by class), tune as given"
    assert "tune as given" in folds_sentence(rest, 4, 1)


def test_too_few_units_for_the_folds_or_for_the_rest_are_refused():
    dataset = labelled([0, 1] * 10, groups=[f"p{i // 5}" for i in range(20)])
    with pytest.raises(DataError, match=r"20 images in 4 units .* cannot fill 5 folds") as caught:
        fold_numbers(dataset, 5)
    assert "at most 4 folds" in caught.value.mend
    pair = labelled([0, 0])
    with pytest.raises(DataError, match="cannot fill"):
        assign_fold(pair, fold_numbers(pair, 2), 1)


def test_folds_need_an_audit():
    with pytest.raises(ValueError, match="audited"):
        fold_numbers(replace(labelled([0, 1] * 4), hashes=None), 2)


def test_classes_that_one_fold_holds_alone_and_those_that_some_folds_lack_are_said():
    dataset = labelled([0] * 20 + [1] + [2] * 3)
    numbers = fold_numbers(dataset, 5)
    lone, rare = fold_notes(dataset, numbers, 5)
    assert lone.startswith("All images of b lie in one fold")
    assert rare == "Not every fold tests c: there are fewer than 5 units of it to give out."
    assert fold_notes(dataset.select(np.arange(20)), numbers[:20], 5) == []


def test_the_sentences_name_the_fold_the_shares_and_what_is_kept_together():
    dataset = labelled([0] * 50 + [1] * 50, groups=["g", "g"] + [""] * 98)
    near = np.array([[5, 6]])
    numbers = fold_numbers(dataset, 5, near=near)
    found = assign_fold(dataset, numbers, 3, near=near)
    assert fold_sentence(dataset, found, 5, 3, 2, near) == (
        "fold 3 of 5, drawing 2 is test (20 %, by class), 15 % of the rest for tune, 1 group kept whole, "
        "1 pair of near duplicates kept together"
    )
    assert folds_sentence(dataset, 5, 3, near) == (
        "5 folds by class, drawn 3 times, each tested once by a run of its own, 15 % of the rest for tune, "
        "1 group kept whole, 1 pair of near duplicates kept together"
    )
