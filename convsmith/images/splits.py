"""Who trains, who tunes, who is reported on: roles by a rule that can be repeated anywhere.

What must not part is one unit: equal pictures, near duplicates, and images of one group (a patient, a part, a film),
and whatever these chain together. A unit's place is decided by SHA-256 of the split's seed and the unit's own content,
or its group's name where it has one, so neither the order of the files, nor their names, nor a random generator's
version has a say, and a group that grows keeps its rank.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import ROLES, Dataset

TUNE_CAP = 5000  # images; more of them would narrow the interval of a figure that is not reported anyway
COLUMNS = ("id", "role", "class", "group", "sha256")
WANTED = {"train": 70, "tune": 15, "test": 15}  # percent
_STRAY = 3  # points by which the shares may miss what was wanted before the sentence says so


@dataclass(frozen=True)
class Unit:
    """Images that must not part.

    Args:
        images: their indices.
        classes: how many of its distinct pictures are of each class; a picture under several labels is of the first.
        name: what its rank is drawn from.
    """

    images: tuple[int, ...]
    classes: Counter[int]
    name: bytes

    @property
    def weight(self) -> int:
        return self.classes.total()

    @property
    def home(self) -> int:
        return min(self.classes, key=lambda target: (-self.classes[target], target))


def assign_roles(dataset: Dataset, *, split_seed: int = 0, near: np.ndarray | None = None) -> Dataset:
    """Give every image its role, and never part what belongs together.

    One folder is split 70/15/15 by class. Given train and test, tune is carved from train (15 %, at most 5,000). Given
    all three, they stay. Per class of n distinct pictures, round(0.15 n) are for test and as many for tune, but at
    least one for test where there are two units and one for tune where there are three; a lone unit trains. Copies of
    one picture share its role, also where their labels differ (the first of these classes then counts).

    Units go by rank to test, to tune, to train: one that would overfill a part by more than half of itself goes on to
    the next. A unit of several classes counts, whole, for its commonest. Where a class is then missing from a part it
    has units for, the smallest unit that another part can spare moves there.

    Args:
        dataset: audited, so that contents are known; images of equal, non-empty `groups` stay together.
        split_seed: another number, another split.
        near: int64 `[M, 2]`, pairs of indices of near duplicates; by default none.

    Raises:
        DataError: so few images or units that no role can be filled, or roles that are stated for some images only.
    """
    if dataset.hashes is None:
        raise ValueError("assign_roles needs an audited data set: pass it through images.audit first")
    chosen, parts = divisible(dataset)
    if not parts:
        return dataset
    units = find_units(dataset, chosen, near)
    roles = list(dataset.roles)
    for unit, role in zip(units, spread(units, split_seed, parts), strict=True):
        for i in unit.images:
            roles[i] = role
    for role in ROLES:
        if role not in roles:
            raise unfilled(dataset, units, role)
    return dataset.with_roles(roles)


def divisible(dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which images are yet to be divided, and the parts to be taken from them, what is left being train.

    Returns:
        int64 `[n]`, and `test` and `tune`, or `tune` where a test set is given, or nothing where all three are.

    Raises:
        DataError: roles that are stated for some images only, or make no sense together.
    """
    given = set(dataset.roles)
    if given == set(ROLES):
        return np.arange(0), ()
    if given <= {""}:
        return np.arange(len(dataset)), ("test", "tune")
    if given == {"train", "test"}:
        return dataset.indices("train"), ("tune",)
    stated = ", ".join(sorted(role or "none" for role in given))
    raise DataError(f"{dataset.source} states the roles {stated}.", mend="Give train and val, or train, val and test.")


def drop_torn_groups(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """Leave out what a stated split lets stand on two sides: what is reported on stays, what trains gives way.

    An image of train is left out where its group also stands in tune or test, one of tune where it stands in test.

    Returns:
        The rest, and the names of the groups that were torn, sorted.

    Raises:
        DataError: no image of train, or none of some class, would be left to train on.
    """
    order = {role: place for place, role in enumerate(ROLES)}
    last: dict[str, int] = {}
    for group, role in zip(dataset.groups, dataset.roles, strict=True):
        if group and role:
            last[group] = max(last.get(group, 0), order[role])
    kept = [
        i
        for i, (group, role) in enumerate(zip(dataset.groups, dataset.roles, strict=True))
        if not (group and role) or order[role] == last[group]
    ]
    if len(kept) == len(dataset):
        return dataset, []
    left = set(kept)
    torn = sorted({dataset.groups[i] for i in range(len(dataset)) if i not in left})
    rest = dataset.select(kept)
    before, after = (set(one.targets[one.indices("train")].tolist()) for one in (dataset, rest))
    if before - after:
        lost = ", ".join(dataset.classes[target] for target in sorted(before - after))
        raise DataError(
            f"{_count(len(torn), 'group')} of {dataset.source} in train are also in tune or test ({_some(torn)}); "
            f"without them nothing of {lost} is left to train on.",
            mend="Divide the images anew by group: give one folder, or a CSV without a split column.",
        )
    return rest, torn


def split_sentence(before: Dataset, after: Dataset, near: np.ndarray | None = None) -> str:
    """Say in one sentence how the images were divided.

    Args:
        before: as it went into `assign_roles`.
        after: as it came out.
        near: what `assign_roles` was given.
    """
    given = set(before.roles)
    counts = Counter(after.roles)
    if given == set(ROLES):
        parts, chosen = ["train, tune and test as given"], np.arange(0)
    elif "test" in given:
        total = counts["train"] + counts["tune"]
        parts = [f"test as given, {100 * counts['tune'] / total:.0f} % of train for tune, by class"]
        chosen = before.indices("train")
    else:
        shares = {role: 100 * counts[role] / len(after) for role in ROLES}
        wanted = "/".join(str(WANTED[role]) for role in ROLES)
        came = "/".join(f"{shares[role]:.0f}" for role in ROLES)
        far = any(abs(shares[role] - WANTED[role]) > _STRAY for role in ROLES)
        parts = [f"{came} by class (wanted: {wanted})" if far else f"{wanted} by class"]
        chosen = np.arange(len(after))
    return ", ".join([*parts, *kept_together(after, chosen, near)])


def kept_together(after: Dataset, chosen: np.ndarray, near: np.ndarray | None) -> list[str]:
    """What of a division kept groups and near duplicates on one side, and what a given split tore, in words.

    Args:
        after: with roles.
        chosen: int64 `[n]`, the images that were divided here.
        near: pairs of near duplicates.
    """
    parts = []
    groups = {after.groups[i] for i in chosen.tolist()} - {""}
    if groups:
        parts.append(f"{_count(len(groups), 'group')} kept whole")
    inside = np.zeros(len(after), bool)
    inside[chosen] = True
    pairs = near_pairs(near)
    together = int(inside[pairs].all(axis=1).sum())
    if together:
        parts.append(f"{_count(together, 'pair')} of near duplicates kept together")
    roles = np.array(after.roles, dtype=object)
    apart = int((roles[pairs[:, 0]] != roles[pairs[:, 1]]).sum())
    if apart:
        parts.append(f"{_count(apart, 'pair')} of near duplicates torn by the split as given")
    return parts


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
    for i in shuffled([identifier.encode() for identifier in dataset.ids], 0):
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


def find_units(dataset: Dataset, chosen: np.ndarray, near: np.ndarray | None) -> list[Unit]:
    """Join the chosen images to units: equal contents, pairs that are near, equal groups, and chains of these."""
    assert dataset.contents is not None
    copies: dict[bytes, list[int]] = defaultdict(list)
    for i in chosen.tolist():
        copies[dataset.contents[i].tobytes()].append(i)
    contents = list(copies)
    place = {i: number for number, content in enumerate(contents) for i in copies[content]}  # image -> its content
    links = [(place[i], place[j]) for i, j in near_pairs(near).tolist() if i in place and j in place]
    first: dict[str, int] = {}
    for i, number in place.items():
        if dataset.groups[i]:
            links.append((first.setdefault(dataset.groups[i], number), number))
    units = []
    for members in _components(len(contents), links):
        images = tuple(i for number in members for i in copies[contents[number]])
        groups = {dataset.groups[i] for i in images} - {""}
        classes = Counter(min(int(dataset.targets[i]) for i in copies[contents[number]]) for number in members)
        name = b"group:" + min(groups).encode() if groups else min(contents[number] for number in members)
        units.append(Unit(images, classes, name))
    return units


def _components(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Divide the numbers below `count` into connected components."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]  # halves the path, so that long chains stay cheap
            node = parent[node]
        return node

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for node in range(count):
        members[root(node)].append(node)
    return list(members.values())


def spread(units: Sequence[Unit], seed: int | str, parts: tuple[str, ...]) -> list[str]:
    """Give each unit a role by class: `parts` are filled in their order, and the rest trains."""
    weight: Counter[int] = Counter()
    number: Counter[int] = Counter()
    for unit in units:
        weight[unit.home] += unit.weight
        number[unit.home] += 1
    total = weight.total()
    quota = {home: _shares(weight[home], number[home], total, parts) for home in weight}
    used: Counter[tuple[int, str]] = Counter()
    roles = ["train"] * len(units)
    order = shuffled([unit.name for unit in units], seed)
    for i in order:
        home, size = units[i].home, units[i].weight
        for part in parts:
            if 2 * (used[home, part] + size - quota[home][part]) <= size:
                used[home, part] += size
                roles[i] = part
                break
    _fill_gaps(units, roles, order, parts)
    return roles


def _shares(weight: int, units: int, total: int, parts: tuple[str, ...]) -> dict[str, int]:
    """How many of a class's distinct pictures go to each part.

    Args:
        weight: distinct pictures of the class, out of `total` of all classes.
        units: how many units they form.
        parts: in the order in which they are filled.
    """
    share = (15 * weight + 50) // 100
    if parts == ("tune",):
        share = min(share, TUNE_CAP * weight // total)
    return {part: max(1, share) if units >= place + 2 else 0 for place, part in enumerate(parts)}


def _fill_gaps(units: Sequence[Unit], roles: list[str], order: list[int], parts: tuple[str, ...]) -> None:
    """Move units so that a class has each part it has units enough for, where no other class loses one by that.

    Without groups and near duplicates nothing moves: a unit is then one picture, and the quotas see to it.
    """
    holders: dict[int, list[int]] = defaultdict(list)  # class -> its units, by rank
    present: Counter[tuple[str, int]] = Counter()
    for i in order:
        for target in units[i].classes:
            holders[target].append(i)
            present[roles[i], target] += 1
    for place, part in enumerate(parts):
        for target in sorted(holders):
            if present[part, target] or len(holders[target]) < place + 2:
                continue
            spare = [
                i for i in holders[target] if all(present[roles[i], other] > 1 for other in units[i].classes)
            ]  # in rank order, and `min` takes the first of equals
            if not spare:
                continue
            moved = min(spare, key=lambda i: (units[i].weight, roles[i] != "train"))
            for other in units[moved].classes:
                present[roles[moved], other] -= 1
                present[part, other] += 1
            roles[moved] = part


def unfilled(dataset: Dataset, units: Sequence[Unit], role: str) -> DataError:
    """The error where there are too few images or units for a role."""
    images = f"{dataset.source}: {len(dataset)} images of {len(dataset.classes)} classes"
    if len(units) >= len({i for unit in units for i in unit.images}):
        return DataError(
            f"{images} cannot fill {role}.",
            mend="Add images: at least three different ones in a class, better thirty in each.",
        )
    return DataError(
        f"{images} cannot fill {role}: copies, near duplicates and groups are not parted, which leaves "
        f"{_count(len(units), 'unit')}, the largest of {max(len(unit.images) for unit in units):,} images.",
        mend="Add images of other groups: at least three groups in a class, better ten; or group by a finer rule.",
    )


def near_pairs(near: np.ndarray | None) -> np.ndarray:
    """The pairs as int64 `[M, 2]`, also where there are none."""
    return np.zeros((0, 2), np.int64) if near is None else np.asarray(near, np.int64).reshape(-1, 2)


def shuffled(names: list[bytes], seed: int | str) -> list[int]:
    """Order the names by SHA-256 of seed and name: a permutation that no library version changes."""
    start = f"{seed}:".encode()
    return sorted(range(len(names)), key=lambda i: (hashlib.sha256(start + names[i]).digest(), i))


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
