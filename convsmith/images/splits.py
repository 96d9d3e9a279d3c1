"""Who trains, who tunes, who is reported on: roles by a rule that can be repeated anywhere.

A picture's place is decided by SHA-256 of the split's seed and the picture's own content, so neither the order of the
files, nor their names, nor a random generator's version has a say; equal pictures are one unit and never part.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import Dataset

TUNE_CAP = 5000  # images; more of them would narrow the interval of a figure that is not reported anyway
COLUMNS = ("id", "role", "class", "group", "sha256")


def assign_roles(dataset: Dataset, *, split_seed: int = 0) -> Dataset:
    """Give every image its role.

    One folder is split 70/15/15 by class. Given train and test, tune is carved from train (15 %, at most 5,000). Given
    all three, they stay. Per class of n distinct pictures, round(0.15 n) are for test and as many for tune, but at
    least one for test where n >= 2 and one for tune where n >= 3; a lone picture trains. Copies of one picture share
    its role, also where their labels differ (the first of these classes then counts).

    Args:
        dataset: audited, so that contents are known.
        split_seed: another number, another split.

    Raises:
        DataError: so few images that no role can be filled, or roles that are stated for some images only.
    """
    if dataset.hashes is None:
        raise ValueError("assign_roles needs an audited data set: pass it through images.audit first")
    given = set(dataset.roles)
    if given <= {""}:
        roles = _split(dataset, np.arange(len(dataset)), split_seed, test=True)
    elif given == {"train", "test"}:
        roles = _split(dataset, dataset.indices("train"), split_seed, test=False)
    elif given == {"train", "tune", "test"}:
        return dataset
    else:
        stated = ", ".join(sorted(role or "none" for role in given))
        raise DataError(
            f"{dataset.source} states the roles {stated}.", mend="Give train and val, or train, val and test."
        )
    for role in ("train", "tune", "test"):
        if role not in roles:
            raise DataError(
                f"{dataset.source}: {len(dataset)} images of {len(dataset.classes)} classes cannot fill {role}.",
                mend="Add images: at least three different ones in a class, better thirty in each.",
            )
    return dataset.with_roles(roles)


def split_rows(dataset: Dataset) -> list[dict[str, str]]:
    """List the split as `split.csv` holds it: id, role, class, group, and the content's SHA-256 in hex."""
    hashes = [""] * len(dataset) if dataset.hashes is None else [row.tobytes().hex() for row in dataset.hashes]
    names = [dataset.classes[target] for target in dataset.targets]
    rows = zip(dataset.ids, dataset.roles, names, dataset.groups, hashes, strict=True)
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def choose(dataset: Dataset, count: int) -> np.ndarray:
    """Draw a subset, always the same one, in proportion to the sizes of (role, class), largest remainder first.

    Each class keeps enough to fill all three roles, where it has that many: three images, of which two from train where
    tune is still to be carved from it. So `count` should be at least three per class.

    Args:
        dataset: audited or not: the draw follows the ids.
        count: how many, at most `len(dataset)`.

    Returns:
        int64 `[count]`, ascending.
    """
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i in _shuffled([identifier.encode() for identifier in dataset.ids], 0):
        members[dataset.roles[i], int(dataset.targets[i])].append(i)
    sizes = {key: len(found) for key, found in sorted(members.items())}
    share = count / len(dataset)
    least = {"": 3, "train": 1 if "tune" in dataset.roles else 2}
    quota = {key: min(size, max(int(share * size), least.get(key[0], 1))) for key, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda key: quota[key] - share * sizes[key])
    while sum(quota.values()) < count:
        key = next(key for key in by_remainder if quota[key] < sizes[key])
        quota[key] += 1
        by_remainder.remove(key)
        by_remainder.append(key)
    while sum(quota.values()) > count:  # the least ones took more than their share: the largest gives it
        quota[max(quota, key=quota.__getitem__)] -= 1
    return np.sort(np.array([i for key, found in members.items() for i in found[: quota[key]]], np.int64))


def _split(dataset: Dataset, indices: np.ndarray, seed: int, *, test: bool) -> list[str]:
    """Spread `indices` over train, tune and, where asked, test; the others keep their roles."""
    assert dataset.hashes is not None
    copies: dict[bytes, list[int]] = defaultdict(list)
    for i in indices.tolist():
        copies[dataset.hashes[i].tobytes()].append(i)
    contents = list(copies)
    home = {content: min(int(dataset.targets[i]) for i in copies[content]) for content in contents}
    size = Counter(home.values())
    used: Counter[int] = Counter()
    roles = list(dataset.roles)
    for position in _shuffled(contents, seed):
        content = contents[position]
        target = home[content]
        place, used[target] = used[target], used[target] + 1
        for_test, for_tune = _shares(size[target], len(contents), test=test)
        role = "test" if place < for_test else "tune" if place < for_test + for_tune else "train"
        for i in copies[content]:
            roles[i] = role
    return roles


def _shares(count: int, total: int, *, test: bool) -> tuple[int, int]:
    """How many of `count` distinct pictures of a class, `total` in all, go to test and to tune."""
    share = (15 * count + 50) // 100
    if test:
        return (max(1, share) if count >= 2 else 0), (max(1, share) if count >= 3 else 0)
    return 0, (max(1, min(share, TUNE_CAP * count // total)) if count >= 2 else 0)


def _shuffled(names: list[bytes], seed: int) -> list[int]:
    """Order the names by SHA-256 of seed and name: a permutation that no library version changes."""
    start = f"{seed}:".encode()
    return sorted(range(len(names)), key=lambda i: (hashlib.sha256(start + names[i]).digest(), i))
