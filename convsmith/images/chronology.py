"""Roles by time: a network is trained on what was, and reported on what came after.

That is how it will be used where pictures keep coming: the light, the camera and the things themselves drift, and a
split that mixes all times cannot show it. Nothing is stratified here; what came later has the classes that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import ROLES, Dataset
from convsmith.images.folders import number
from convsmith.images.splits import TUNE_CAP, WANTED, divisible, find_units, kept_together, unfilled
from convsmith.images.times import moments

SHARE = 0.15
_NAMED = 3


def assign_by_time(dataset: Dataset, *, near: np.ndarray | None = None) -> Dataset:
    """Give every image its role by when it was taken, and never part what belongs together.

    Of one folder the latest 15 % of the images are for test, the 15 % before them for tune, and the earliest train.
    Given train and test, the latest 15 % of train are for tune, at most 5,000. Given all three, they stay.

    What must not part (equal pictures, near duplicates, groups, and chains of these) stands where its latest image
    stands. Images of one time are on one side, too: each border is the one whose share comes nearest to 15 %.

    Args:
        dataset: audited, with times.
        near: int64 `[M, 2]`, pairs of indices of near duplicates; by default none.

    Raises:
        DataError: an image without a time, too few times to fill a role, or only one class to train on.
    """
    chosen, parts = divisible(dataset)
    if not parts:
        return dataset
    when = _moments(dataset, chosen)
    units = find_units(dataset, chosen, near)
    last = np.array([max(when[i] for i in unit.images) for unit in units])
    times, place = np.unique(last, return_inverse=True)
    sizes = np.bincount(place, weights=[len(unit.images) for unit in units]).astype(np.int64)
    if len(times) <= len(parts):
        raise _too_few_times(dataset, units, len(times), parts)
    role_at = _cut(sizes.tolist(), parts)
    roles = list(dataset.roles)
    for unit, k in zip(units, place.tolist(), strict=True):
        for i in unit.images:
            roles[i] = role_at[k]
    divided = dataset.with_roles(roles)
    learnt = {dataset.classes[target] for target in dataset.targets[divided.indices("train")].tolist()}
    if len(learnt) < 2:
        raise DataError(
            f"{dataset.source}: all images up to {_span(divided, 'train')[1]}, which would train, are of class "
            f"{', '.join(learnt)}.",
            mend="Add earlier images of other classes, or split by class: leave --time out.",
        )
    return divided


def time_sentence(before: Dataset, after: Dataset, near: np.ndarray | None = None) -> str:
    """Say in one sentence how the images were divided by time, where the borders are, and what the sides lack.

    Args:
        before: as it went into `assign_by_time`.
        after: as it came out.
        near: what `assign_by_time` was given.
    """
    chosen, parts = divisible(before)
    if not parts:
        return ", ".join(["train, tune and test as given, whatever their times", *kept_together(after, chosen, near)])
    counts = Counter(after.roles[i] for i in chosen.tolist())
    shares = {role: 100 * counts[role] / len(chosen) for role in ROLES}
    if parts == ("tune",):
        said = [f"test as given, the latest {shares['tune']:.0f} % of train for tune by time, not by class"]
    else:
        came = "/".join(f"{shares[role]:.0f}" for role in ROLES)
        said = [f"{came} by time, not by class (wanted: {'/'.join(str(WANTED[role]) for role in ROLES)})"]
    said.append(f"train up to {_span(after, 'train')[1]}")
    said += [f"{role} from {_span(after, role)[0]} on" for role in ("tune", "test") if role in parts]
    return ", ".join([*said, *kept_together(after, chosen, near)])


def absent_classes(dataset: Dataset) -> str:
    """A sentence on the classes that a role has no image of; empty where every role has every class."""
    told = []
    for role, counts in dataset.counts().items():
        lacking = [name for name, count in counts.items() if not count]
        if lacking and role:
            more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
            told.append(f"{role} has none of {', '.join(lacking[:_NAMED])}{more}")
    return f"Not every side has every class: {'; '.join(told)}." if told else ""


def _moments(dataset: Dataset, chosen: np.ndarray) -> dict[int, float]:
    """The moment of each image that is to be divided."""
    without = [i for i in chosen.tolist() if not dataset.times[i]]
    if without:
        named = ", ".join(dataset.ids[i] for i in without[:_NAMED])
        more = ", …" if len(without) > _NAMED else ""
        raise DataError(
            f"--time finds no time for {number(len(without), 'image')} of {len(chosen):,} in {dataset.source}: "
            f"{named}{more}.",
            mend="Give another rule (a CSV's column, exif, a regular expression on paths), or remove these images.",
        )
    values = moments([dataset.times[i] for i in chosen.tolist()], lambda k: dataset.ids[chosen[k]])
    return dict(zip(chosen.tolist(), values.tolist(), strict=True))


def _cut(sizes: Sequence[int], parts: tuple[str, ...]) -> list[str]:
    """The role of each time.

    Args:
        sizes: images of each time, the earliest first; more times than parts.
        parts: `test` and `tune`, or `tune`: taken from the end in this order.
    """
    wanted = SHARE * sum(sizes)
    if parts == ("tune",):
        wanted = min(wanted, TUNE_CAP)
    roles = ["train"] * len(sizes)
    end = len(sizes)
    for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
        taken, start = sizes[end - 1], end - 1
        # `left` times at the least stay for the parts that follow and for train
        while start > left and abs(taken + sizes[start - 1] - wanted) < abs(taken - wanted):
            start -= 1
            taken += sizes[start]
        roles[start:end] = [part] * (end - start)
        end = start
    return roles


def _too_few_times(dataset: Dataset, units: Sequence[object], times: int, parts: tuple[str, ...]) -> DataError:
    if len(units) <= len(parts):
        return unfilled(dataset, units, parts[-1])  # type: ignore[arg-type]
    return DataError(
        f"{dataset.source}: what must stay together was taken at {number(times, 'time')}, which cannot fill train, "
        "tune and test.",
        mend="Give a finer time, such as the hour or the number of the picture; or split by class: leave --time out.",
    )


def _span(dataset: Dataset, role: str) -> tuple[str, str]:
    """The texts of the earliest and of the latest time of a role."""
    rows = dataset.indices(role).tolist()
    texts = [dataset.times[i] for i in rows]
    values = moments(texts, lambda k: dataset.ids[rows[k]])
    return texts[int(values.argmin())], texts[int(values.argmax())]
