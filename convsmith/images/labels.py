"""Reviewed labels as a file of their own, laid over a data set: the images and their folders are never touched."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from convsmith.errors import DataError, UsageError
from convsmith.images.dataset import Dataset
from convsmith.images.decode import shown
from convsmith.images.folders import number, path_to_id
from convsmith.images.sheet import Lines, Sheet, open_sheet
from convsmith.registry import suggestion

LEFT_OUT = ("-", "exclude")
_COMPARED = 20_000  # ids that an unknown one is held against, which takes seconds for a million


def with_labels(dataset: Dataset, path: str | os.PathLike[str]) -> tuple[Dataset, list[str]]:
    """Give images the labels that a person wrote down, and leave out those that the person ruled out.

    Args:
        dataset: as its source gives it.
        path: a CSV file with the columns `id` (as reports and `split.csv` list them) and `label`: one of the classes,
            or `-` or `exclude` to leave the image out. Images that are not named keep their labels.

    Returns:
        The data set with the same classes, and what was done, one sentence each.

    Raises:
        UsageError: no such file, or without these columns.
        DataError: an unknown id or class, an id with two labels, or a class that would lose its last image.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"The file of labels, {shown(str(file))}, is not there.", mend="Check the path.")
    sheet = open_sheet(file)
    wanted = _wanted(sheet)
    places = {identifier: i for i, identifier in enumerate(dataset.ids)}
    classes = {name: i for i, name in enumerate(dataset.classes)}
    targets = dataset.targets.copy()
    out = np.zeros(len(dataset), bool)
    for identifier, (label, line) in wanted.items():
        place = places.get(identifier, places.get(path_to_id(identifier), -1))
        if place < 0:
            raise _unknown_id(sheet, identifier, line, dataset)
        if label in classes:
            targets[place] = classes[label]
        elif label.casefold() in LEFT_OUT:
            out[place] = True
        else:
            raise DataError(
                f"{shown(str(file))}, line {line:,}: {path_to_id(label)} is not a class of {dataset.source}.",
                mend=f"{suggestion(label, dataset.classes)} A dash leaves the image out.",
            )
    changed = int((targets != dataset.targets)[~out].sum())
    rest = replace(dataset, targets=targets).select(np.flatnonzero(~out))
    lost = sorted(set(dataset.targets.tolist()) - set(rest.targets.tolist()))
    if lost:
        raise DataError(
            f"{shown(str(file))} leaves no image of {', '.join(dataset.classes[target] for target in lost)}.",
            mend="Keep some, or take the class out of the data.",
        )
    return rest, [
        f"{number(len(wanted), 'label')} from {shown(str(file))}: {changed:,} differ from the source's, "
        f"{number(int(out.sum()), 'image')} left out."
    ]


def _wanted(sheet: Sheet) -> dict[str, tuple[str, int]]:
    """The label of each id, and the line that gives it."""
    places = [sheet.find(name, "--labels") for name in ("id", "label")]
    wanted: dict[str, tuple[str, int]] = {}
    hollow = Lines()
    for line, row in sheet.rows():
        identifier, label = (row[place].strip() if place < len(row) else "" for place in places)
        if not identifier or not label:
            hollow.add(line)
            continue
        before, at = wanted.setdefault(identifier, (label, line))
        if before != label:
            raise DataError(
                f"{shown(str(sheet.path))}: {path_to_id(identifier)} is {path_to_id(before)} on line {at:,} and "
                f"{path_to_id(label)} on line {line:,}.",
                mend="Keep the row that is right.",
            )
    if hollow.count:
        raise DataError(
            f"{shown(str(sheet.path))} has {number(hollow.count, 'row')} without an id or a label: {hollow}.",
            mend="Fill them, or remove the rows; a dash as the label leaves the image out.",
        )
    return wanted


def _unknown_id(sheet: Sheet, identifier: str, line: int, dataset: Dataset) -> DataError:
    name = identifier.replace("\\", "/").rpartition("/")[2]
    close = [other for other in dataset.ids if other.rpartition("/")[2] == name][:3]
    close = close or difflib.get_close_matches(identifier, dataset.ids[:_COMPARED], n=3, cutoff=0.6)
    example = f"Did you mean {' or '.join(close)}?" if close else f"Ids look like {dataset.ids[0]}."
    return DataError(
        f"{shown(str(sheet.path))}, line {line:,}: {dataset.source} has no image {path_to_id(identifier)}.",
        mend=f"{example} An image that is gone, or could not be read, needs no row.",
    )
