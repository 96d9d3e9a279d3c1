"""Folds: every image is tested once, by a network that learnt from the others.

A unit (equal pictures, near duplicates, a group, and what these chain together) lies in one fold, whole. Units are
given out one after another, the larger ones first, each to the fold that has least of its classes so far. So the folds'
counts of a class differ by one at the most where all units are single pictures, and by the largest unit of that class
where each unit is of one class; units of several classes are balanced as well as this order allows.

The order among units of like size (up to twice as large) is by SHA-256 of seed, repeat and content, as in `splits`. So
every repeat has other folds, and neither the order of the files nor a library's version has a say.

Source: Kohavi 1995, "A study of cross-validation and bootstrap for accuracy estimation and model selection", for
folds stratified by class; the sum of squares that is kept small is that of the shares of each class in each fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import Dataset
from convsmith.images.folders import number
from convsmith.images.splits import Unit, find_units, kept_together, shuffled, spread, unfilled

_SCALE = 2**40  # so that shares of a class are compared as whole numbers, which are alike on every machine
_NAMED = 3


def without_given_test(dataset: Dataset) -> tuple[Dataset, int]:
    """Set a given test set aside, out of all folds, and count it; what is left may be divided into folds."""
    roles = np.array(dataset.roles, dtype=object)
    kept = np.flatnonzero(roles != "test")
    return (dataset, 0) if len(kept) == len(dataset) else (dataset.select(kept), len(dataset) - len(kept))


def fold_numbers(
    dataset: Dataset, folds: int, *, repeat: int = 1, split_seed: int = 0, near: np.ndarray | None = None
) -> np.ndarray:
    """The fold in which each image is tested.

    Args:
        dataset: audited, without a test set; images of equal, non-empty `groups` stay together.
        folds: how many, at least 2.
        repeat: another number, other folds; from 1.
        split_seed: likewise; also that of an ordinary split.
        near: int64 `[M, 2]`, pairs of indices of near duplicates; by default none.

    Returns:
        int64 `[N]`, 1 to `folds`; 0 for images that a source states as tune: they tune in every run.

    Raises:
        DataError: fewer units than folds.
    """
    if dataset.hashes is None:
        raise ValueError("folds need an audited data set: pass it through images.audit first")
    chosen = np.flatnonzero(np.array([role != "tune" for role in dataset.roles]))
    units = find_units(dataset, chosen, near)
    if len(units) < folds:
        raise DataError(
            f"{dataset.source}: {number(len(chosen), 'image')} in {number(len(units), 'unit')} of copies, near "
            f"duplicates and groups, which are never parted, cannot fill {folds} folds.",
            mend=f"Ask for at most {len(units)} folds, or group by a finer rule.",
        )
    numbers = np.zeros(len(dataset), np.int64)
    for unit, fold in zip(units, _balanced(units, folds, f"folds {split_seed} {repeat}"), strict=True):
        numbers[list(unit.images)] = fold + 1
    return numbers


def assign_fold(
    dataset: Dataset, numbers: np.ndarray, fold: int, *, split_seed: int | str = 0, near: np.ndarray | None = None
) -> Dataset:
    """Give every image its role in the run that tests one fold; the rest is split as `assign_roles` splits it.

    Args:
        dataset: audited.
        numbers: of `fold_numbers`.
        fold: the one that is tested, from 1.
        split_seed: of the tune images, 15 % of each class of the rest, at most 5,000; given ones stay.
        near: as in `fold_numbers`.

    Raises:
        DataError: the rest is too small to train and to tune.
    """
    roles = ["test" if own == fold else "tune" if own == 0 else "train" for own in numbers.tolist()]
    if "tune" not in roles:
        units = find_units(dataset, np.flatnonzero(numbers != fold), near)
        for unit, role in zip(units, spread(units, split_seed, ("tune",)), strict=True):
            for i in unit.images:
                roles[i] = role
        for role in ("train", "tune"):
            if role not in roles:
                raise unfilled(dataset, units, role)
    return dataset.with_roles(roles)


def fold_sentence(
    before: Dataset, after: Dataset, folds: int, fold: int, repeat: int, near: np.ndarray | None = None
) -> str:
    """Say in one sentence which fold is tested and what became of the rest.

    Args:
        before: as it went into `assign_fold`.
        after: as it came out.
        folds, fold, repeat: how many folds there are, which one is tested, and which drawing of them it is of.
        near: what `assign_fold` was given.
    """
    counts = Counter(after.roles)
    drawn = f", drawing {repeat}" if repeat > 1 else ""
    said = [f"fold {fold} of {folds}{drawn} is test ({100 * counts['test'] / len(after):.0f} %, by class)"]
    if "tune" in before.roles:
        said.append("tune as given")
    else:
        said.append(f"{100 * counts['tune'] / (len(after) - counts['test']):.0f} % of the rest for tune")
    return ", ".join([*said, *kept_together(after, np.arange(len(after)), near)])


def folds_sentence(dataset: Dataset, folds: int, repeats: int, near: np.ndarray | None = None) -> str:
    """Say in one sentence how the images of a whole cross-validation are divided."""
    drawn = f", drawn {repeats} times" if repeats > 1 else ""
    tune = "tune as given" if "tune" in dataset.roles else "15 % of the rest for tune"
    said = [f"{folds} folds by class{drawn}, each tested once by a run of its own, {tune}"]
    divided = np.flatnonzero(np.array([role != "tune" for role in dataset.roles]))
    return ", ".join([*said, *kept_together(dataset, divided, near)])


def fold_notes(dataset: Dataset, numbers: np.ndarray, folds: int) -> list[str]:
    """What is worth saying about the folds of a data set: classes that not every fold, or not every run, can have."""
    notes = []
    held: dict[str, int] = {}
    for target, name in enumerate(dataset.classes):
        own = numbers[(dataset.targets == target) & (numbers > 0)]
        if len(own):
            held[name] = len(set(own.tolist()))
    lone = [name for name, count in held.items() if count == 1]
    if lone:
        notes.append(
            f"All images of {_some(lone)} lie in one fold, because they must not part or there is one only: the run "
            "that tests them has not learnt their class, so it can hardly name them rightly."
        )
    rare = [name for name, count in held.items() if 1 < count < folds]
    if rare:
        notes.append(f"Not every fold tests {_some(rare)}: there are fewer than {folds} units of it to give out.")
    return notes


def _balanced(units: Sequence[Unit], folds: int, seed: str) -> list[int]:
    """The fold, from 0, of each unit."""
    total: Counter[int] = Counter()
    for unit in units:
        total.update(unit.classes)
    worth = {target: _SCALE // count for target, count in total.items()}
    rank = {i: place for place, i in enumerate(shuffled([unit.name for unit in units], seed))}
    order = sorted(range(len(units)), key=lambda i: (-units[i].weight.bit_length(), units[i].home, rank[i]))
    held = {target: [0] * folds for target in total}
    filled = [0] * folds
    placed = [0] * len(units)
    for i in order:
        classes = units[i].classes.items()
        # Adding to the fold with the least sum of products adds least to the sum of squares of all shares.
        sums = [[held[target][f] * count * worth[target] for f in range(folds)] for target, count in classes]
        best = min(zip(map(sum, zip(*sums, strict=True)), filled, range(folds), strict=True))[2]
        placed[i] = best
        for target, count in classes:
            held[target][best] += count
        filled[best] += units[i].weight
    return placed


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
