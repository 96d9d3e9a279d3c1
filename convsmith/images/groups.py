"""Which images belong to one patient, part or film: by folder or by name, as told; and whether it looks as if any did.

Two rules can be told besides a column of a CSV file:

- `parent`: the folders between the class folder and the image, so `cat/anna/3.jpg` and `dog/anna/7.jpg` are both of
  `anna`. In a set without class folders, all folders of the path.
- a regular expression with one capturing group, searched in the id: `(patient\\d+)_` finds `patient07` in
  `healthy/patient07_003.jpg`.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from convsmith.errors import DataError, UsageError
from convsmith.images.dataset import ArrayPixels, Dataset
from convsmith.images.folders import SPLITS, number
from convsmith.images.patterns import Asked, compiled, found_in

ASKED = Asked("--group", "parent", "group's name", r"(patient\d+)_")
LEAST_GROUPS = 3  # of a class on average, below which names that repeat mean nothing
LEAST_IMAGES = 3  # of a group on average
_LEAST_SHARE = 0.2  # of all images that must fit a suggestion
_NAMED = 3

_SERIALS = frozenset(  # what cameras, phones and programs put before a number
    (
        *("img", "image", "images", "dsc", "dscn", "dscf", "dcim", "pxl", "mvi", "mov", "gopr", "dji", "cimg", "imgp"),
        *("sam", "kic", "wp", "pict", "pic", "picture", "photo", "photos", "screenshot", "file", "copy", "whatsapp"),
        *("at", "wa", "thumb", "crop", "aug", "n"),
    )
)
_DATE = re.compile(r"(19|20)\d\d((0[1-9]|1[0-2])([0-2]\d|3[01])?)?(\d{2,6})?")
_PART = r"[^/_. -]+"
_NAME_RULES = tuple(
    re.compile(rule)
    for rule in (
        r"(?:^|/)([A-Za-z]+\d+)[_. -][^/]*$",
        rf"(?:^|/)({_PART})[_. -][^/]*$",
        rf"(?:^|/)({_PART}[_. -]{_PART})[_. -][^/]*\.[^/.]*$",
        rf"([^/]+)[_. -]+{_PART}[_. -]+{_PART}\.[^/.]*$",
        rf"([^/]+)[_. -]+{_PART}\.[^/.]*$",
    )
)


def with_groups(dataset: Dataset, rule: str) -> tuple[Dataset, list[str]]:
    """Give each image the name of its group.

    An image that the rule does not fit is a group of its own; its name stays empty.

    Args:
        dataset: audited or not.
        rule: `parent`, or a regular expression with exactly one capturing group, searched in each id.

    Returns:
        The data set, and what is worth saying, one sentence each.

    Raises:
        UsageError: no regular expression, not one capturing group, or one that takes forever.
        DataError: the rule fits no image.
    """
    if rule == "parent":
        names = _by_folder(dataset)
        missed = "lies in a folder below its class folder"
    else:
        names = found_in(dataset.ids, compiled(rule, ASKED), ASKED)
        missed = f"fits {rule!r}"
    alone = [i for i, name in enumerate(names) if not name]
    if len(alone) == len(names):
        example = f", such as {dataset.ids[0]}" if dataset.ids else ""
        raise DataError(
            f"--group: not one image of {dataset.source} {missed}{example}.",
            mend="Give a rule that fits the paths: parent, or a regular expression with one group; or a CSV's column.",
        )
    notes = []
    if alone:
        notes.append(
            f"{number(len(alone), 'image')} that the group rule does not fit, such as {dataset.ids[alone[0]]}: "
            "each is a group of its own."
        )
    if len(set(names) - {""}) + len(alone) == 1:
        notes.append("All images are of one group, so no split can be made of them.")
    return replace(dataset, groups=tuple(names)), notes


def suspected_groups(dataset: Dataset) -> list[dict[str, Any]]:
    """Look for groups in folders and names, for the user to confirm: several images of one patient, part or film.

    Silent on what cameras, downloads and class names make: a name that all images of a class share, one that differs
    from image to image, dates and serials. Where images have groups already there is nothing to suspect.

    Returns:
        The rules that fit, coarsest first and at most three, each with `rule` (what to give as `--group`), `groups`,
        `images` (how many are in one), `largest` (images), `example` (ids of one group) and `says` (one sentence).
    """
    if any(dataset.groups) or isinstance(dataset.pixels, ArrayPixels):
        return []
    found: list[_Suspicion] = []
    folders = _folders(dataset)
    if not _only_sharded(dataset, folders):
        found += _suspect(dataset, "parent", folders, least_groups=2)
    for pattern in _NAME_RULES:
        names = [pattern.search(name) for name in dataset.ids]
        if all(
            match is None or _telling(match[1]) for match in names
        ):  # else the rule would also join what it must not
            found += _suspect(dataset, pattern.pattern, [match[1] if match else "" for match in names])
    kept: dict[frozenset[tuple[int, ...]], _Suspicion] = {}
    for one in found:  # of rules that divide alike, the first, which is the simplest
        kept.setdefault(frozenset(map(tuple, one.members.values())), one)
    ranked = sorted(kept.values(), key=lambda one: (one.rule != "parent", not one.numbered, len(one.members)))
    return [one.record(dataset) for one in ranked[:_NAMED]]


@dataclass(frozen=True)
class _Suspicion:
    """A rule and the images of each group by it."""

    rule: str
    members: dict[str, list[int]]

    @property
    def numbered(self) -> bool:
        """Whether most names hold a digit, as those of patients and films do."""
        return sum(any(map(str.isdigit, name)) for name in self.members) > len(self.members) / 2

    @property
    def alike(self) -> bool:
        """Whether the names are of one make, `donorA` and `donorB` or `p1` and `p2`, and not words such as breeds."""
        return self.numbered or len(_shared_start(list(self.members))) > 1

    def record(self, dataset: Dataset) -> dict[str, Any]:
        name, largest = max(self.members.items(), key=lambda item: (len(item[1]), item[0]))
        count = sum(map(len, self.members.values()))
        where = "sub-folders" if self.rule == "parent" else "names"
        return {
            "rule": self.rule,
            "groups": len(self.members),
            "images": count,
            "largest": len(largest),
            "example": [dataset.ids[i] for i in largest[:_NAMED]],
            "says": f"The {where} of {count:,} images look like {len(self.members):,} groups, such as {name} with "
            f"{number(len(largest), 'image')}: if these belong together, say --group {shlex.quote(self.rule)}.",
        }


def _suspect(dataset: Dataset, rule: str, names: list[str], *, least_groups: int = LEAST_GROUPS) -> list[_Suspicion]:
    """Keep a rule whose groups are many within a class, and hold several images each."""
    members: dict[str, list[int]] = defaultdict(list)
    by_class: dict[int, set[str]] = defaultdict(set)
    for i, name in enumerate(names):
        if name:
            members[name].append(i)
            by_class[int(dataset.targets[i])].add(name)
    count = sum(map(len, members.values()))
    fits = (
        len(members) >= LEAST_GROUPS
        and count >= _LEAST_SHARE * len(dataset)
        and count >= LEAST_IMAGES * len(members)
        and sum(map(len, by_class.values())) >= least_groups * len(by_class)
    )
    suspicion = _Suspicion(rule, dict(members))
    return [suspicion] if fits and (rule == "parent" or suspicion.alike) else []


def _telling(name: str) -> bool:
    """Whether a part of a name tells more than a camera's word, a date or both."""
    parts = [part for part in re.split(r"[_. -]+", name.casefold()) if part]
    rest = [part for part in parts if part not in _SERIALS and not _dated(part)]
    return any(not part.isdigit() for part in rest) or (bool(rest) and len(rest) == len(parts))


def _shared_start(names: list[str]) -> str:
    low, high = min(names), max(names)
    return low[: next((i for i, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))]


def _dated(part: str) -> bool:
    """Whether it is a date, as in `20230104` and `img20230104`."""
    word = part.rstrip("0123456789")
    return (not word or word in _SERIALS) and _DATE.fullmatch(part[len(word) :]) is not None


def _by_folder(dataset: Dataset) -> list[str]:
    if isinstance(dataset.pixels, ArrayPixels):
        raise UsageError(
            f"--group parent: the images of {dataset.source} lie in no folders.", mend="Leave --group out."
        )
    return _folders(dataset)


def _folders(dataset: Dataset) -> list[str]:
    """For each image the folders between its class folder and itself; empty where there are none."""
    paths = [identifier.split("/")[:-1] for identifier in dataset.ids]
    start = 0
    if len(set(dataset.targets.tolist())) > 1:  # what all share, such as `photos/`, can be no class folder
        while all(len(path) > start for path in paths) and len({path[start] for path in paths}) == 1:
            start += 1
    stated = any(dataset.roles)
    found = []
    for path, target in zip(paths, dataset.targets.tolist(), strict=True):
        below = path[start:]
        if stated and below and below[0].lower() in SPLITS:
            below = below[1:]
        if dataset.classes[target] in below:
            below = below[below.index(dataset.classes[target]) + 1 :]
            if stated and below and below[0].lower() in SPLITS:
                below = below[1:]
        found.append("/".join(below))
    return found


def _only_sharded(dataset: Dataset, folders: list[str]) -> bool:
    """Whether the sub-folders only spread the files by the first letters of their names, as caches of downloads do."""
    names = (identifier.rpartition("/")[2].casefold() for identifier in dataset.ids)
    return all(
        len(folder.replace("/", "")) <= 4 and name.startswith(folder.replace("/", "").casefold())
        for folder, name in zip(folders, names, strict=True)
    )
