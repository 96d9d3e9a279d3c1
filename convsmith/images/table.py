"""A CSV file of paths and labels as a data set.

The rules, in one place:

- Columns that are not named are guessed from their names, and the guess is said. Groups are only ever suggested.
- A path is relative to the folder of images, and must stay inside it; a backslash divides folders where no file of
  that very name exists. Links are followed as in class folders: not out of the folder.
- Labels, groups, splits and times lose the spaces around them. Classes are ordered by name, as text, even if they are
  numbers.
- Rows without a file or a label are left out and listed; where that is a tenth of all rows because of their files, the
  folder is wrong, and it is an error.
- One file in two rows counts once where the rows agree, and is an error where they do not.
"""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convsmith.errors import DataError, UsageError
from convsmith.images.columns import Columns, settle_columns
from convsmith.images.dataset import Dataset, FilePixels
from convsmith.images.decode import shown
from convsmith.images.folders import (
    SPLITS,
    SourceNotes,
    check_names,
    note_gaps,
    number,
    path_to_id,
    stated_roles,
)
from convsmith.images.foreign import refusal
from convsmith.images.sheet import NAMED, Lines, Sheet, open_sheet
from convsmith.images.times import moments

MOST_CLASSES = 1000
MISSING_AT_MOST = 0.1
NOT_THERE = "the file is not there"
_LEADS_OUT = "a link that leads out of the folder; copy what it leads to"
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass
class _Rows:
    """What was taken from the file, one entry per image, and what was not."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    at: array[int] = field(default_factory=lambda: array("q"))  # the line of each
    skipped: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    short: Lines = field(default_factory=Lines)
    unlabelled: Lines = field(default_factory=Lines)
    padded: Lines = field(default_factory=Lines)
    twice: Lines = field(default_factory=Lines)
    backslashes: Lines = field(default_factory=Lines)
    unfound: Lines = field(default_factory=Lines)
    unlike: Lines = field(default_factory=Lines)
    example: str = ""  # of `unlike`, in words

    def skip(self, path: str, line: int, reason: str) -> None:
        self.skipped.append((path_to_id(path), f"line {line:,}: {reason}"))


def open_table(
    path: Path,
    *,
    source: str,
    images: Path | None = None,
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    time: str | None = None,
    min_classes: int = 2,
) -> tuple[Dataset, SourceNotes]:
    """Read a CSV file of paths and labels; no picture is decoded yet.

    Args:
        path: the file: UTF-8; comma, semicolon or tab.
        source: what was asked for.
        images: the folder that the paths are relative to; by default the one the file lies in.
        label, split: names of columns; by default guessed, and the guess is among the notes.
        group, time: names of columns; by default none.
        min_classes: how many classes there must be; 1 suits evaluation of a trained network.

    Returns:
        The data set in the order of its ids (roles where a column states them), and what was passed over.

    Raises:
        UsageError: a column that is not there, or none that can be guessed; no folder of images.
        DataError: the file cannot be read, too many images are missing, rows contradict each other, or a time cannot
            be read.
    """
    root = path.parent if images is None else images
    if not root.is_dir():
        raise UsageError(f"The folder of images, {shown(str(root))}, is not there.", mend="Check --images.")
    sheet = open_sheet(path)
    notes: list[str] = []
    columns = settle_columns(sheet, label, group, split, time, notes)
    rows = _read(sheet, columns, _Folder(root))
    _refuse(sheet, rows, root)
    notes += _observations(rows)
    roles = _roles(sheet, rows, notes)
    kept = _known_classes(sheet, rows, roles, notes, min_classes)
    if time is not None:
        moments([rows.times[i] for i in kept], lambda k: f"line {rows.at[kept[k]]:,}")
    kept.sort(key=lambda i: path_to_id(rows.names[i]))
    classes = sorted({rows.labels[i] for i in kept})
    index = {name: place for place, name in enumerate(classes)}
    names = tuple(rows.names[i] for i in kept)
    dataset = Dataset(
        ids=tuple(map(path_to_id, names)),
        targets=np.array([index[rows.labels[i]] for i in kept], np.int64),
        classes=tuple(classes),
        roles=tuple(roles[rows.splits[i]] for i in kept),
        groups=tuple(rows.groups[i] for i in kept),
        source=source,
        pixels=FilePixels(root, names),
        rows=np.arange(len(kept)),
        times=() if time is None else tuple(rows.times[i] for i in kept),
    )
    return dataset, SourceNotes(tuple(sorted(rows.skipped)), tuple(notes))


def _read(sheet: Sheet, columns: Columns, folder: _Folder) -> _Rows:
    """Take every row that names a file that is there and a label; count and list the others by line."""
    rows = _Rows()
    known: dict[str, int] = {}  # path -> its place among the rows taken
    texts: dict[str, str] = {}  # one object for each label and group, of which there may be millions of copies
    for line, row in sheet.rows():
        rows.count += 1
        if len(row) <= columns.last:
            rows.short.add(line)
            rows.skip(row[columns.path] if columns.path < len(row) else "", line, "too few fields")
            continue
        path, label = row[columns.path].strip(), row[columns.label].strip()
        if label != row[columns.label]:
            rows.padded.add(line)
        if not label:
            rows.unlabelled.add(line)
            rows.skip(path, line, "no label")
            continue
        name, reason = folder.find(path) if path else ("", "names no file")
        if reason == NOT_THERE and "\\" in path:
            name, reason = folder.find(path.replace("\\", "/"))
            if not reason:
                rows.backslashes.add(line)
        if reason:
            rows.unfound.add(line)
            rows.skip(path, line, reason)
            continue
        label = texts.setdefault(label, path_to_id(label))
        group, split, time = (
            row[column].strip() if column >= 0 else "" for column in (columns.group, columns.split, columns.time)
        )
        _take(rows, known, line, (name, label, texts.setdefault(group, path_to_id(group)), split.casefold(), time))
    return rows


def _take(rows: _Rows, known: dict[str, int], line: int, found: tuple[str, str, str, str, str]) -> None:
    """Add one image, or hold it against the row that named the same file before."""
    name, *values = found
    place = known.setdefault(name, len(rows.names))
    if place < len(rows.names):
        before = rows.labels[place], rows.groups[place], rows.splits[place], rows.times[place]
        differing = next((pair for pair in zip(before, values, strict=True) if pair[0] != pair[1]), None)
        if differing is None:
            rows.twice.add(line)
            return
        rows.unlike.add(line)
        rows.example = rows.example or (
            f"{path_to_id(name)} is {differing[0] or 'empty'} on line {rows.at[place]:,} and "
            f"{differing[1] or 'empty'} on line {line:,}"
        )
        return
    label, group, split, time = values
    rows.names.append(name)
    rows.labels.append(label)
    rows.groups.append(group)
    rows.splits.append(split)
    rows.times.append(time)
    rows.at.append(line)


def _refuse(sheet: Sheet, rows: _Rows, root: Path) -> None:
    """Raise where the rows contradict each other or the folder cannot be the right one."""
    name = shown(str(sheet.path))
    if rows.unlike.count:
        raise DataError(
            f"{name} names one file twice with different values: {rows.example} "
            f"({rows.unlike.count:,} such, {rows.unlike}).",
            mend="Keep the row that is right.",
        )
    if rows.unfound.count and rows.unfound.count >= MISSING_AT_MOST * rows.count:
        path, reason = next(item for item in rows.skipped if item[1].startswith(f"line {rows.unfound.first[0]:,}:"))
        raise DataError(
            f"{rows.unfound.count:,} of the {rows.count:,} files that {name} lists cannot be taken from "
            f"{shown(str(root))}, such as {path or 'an empty path'} ({reason}).",
            mend="Say --images DIR, the folder that the paths in the file start from.",
        )
    if not rows.names:
        if not rows.count:
            raise DataError(f"{name} has no rows below its first line.", mend="Add rows of a path and a label.")
        raise DataError(
            f"{name} has {number(rows.count, 'row')}, not one with a label.",
            mend=f"Fill the column, or choose another: --label COLUMN, out of {sheet.listed()}.",
        )


def _observations(rows: _Rows) -> list[str]:
    said = (
        (rows.unfound, "{} left out because the file cannot be taken: {}."),
        (rows.unlabelled, "{} without a label left out: {}."),
        (rows.short, "{} with too few fields left out: {}."),
        (rows.padded, "{} with spaces around the label, which are taken off: {}."),
        (rows.twice, "{} left out because an earlier one names the same file: {}."),
        (rows.backslashes, "{} with backslashes, read as /: {}."),
    )
    return [text.format(number(kind.count, "row"), kind) for kind, text in said if kind.count]


def _roles(sheet: Sheet, rows: _Rows, notes: list[str]) -> dict[str, str]:
    """The role of each value of the split column, as it stands in `rows.splits`."""
    values = set(rows.splits)
    if values <= {""}:
        return {"": ""}
    unknown = sorted(values - SPLITS.keys())
    if unknown:
        at = Lines()
        for value, line in zip(rows.splits, rows.at, strict=True):
            if value not in SPLITS:
                at.add(line)
        listed = ", ".join(path_to_id(value) or "nothing" for value in unknown[:NAMED])
        raise DataError(
            f"The split column of {shown(str(sheet.path))} holds {listed} ({at}).",
            mend=f"Use {', '.join(SPLITS)}; or rename or empty the column, and the split is made here.",
        )
    roles = stated_roles({SPLITS[value]: value for value in sorted(values)}, notes)
    return {value: roles[SPLITS[value]] for value in values}


def _known_classes(sheet: Sheet, rows: _Rows, roles: dict[str, str], notes: list[str], min_classes: int) -> list[int]:
    """Refuse labels that are no classes; return the rows whose class trains, and list the others."""
    name = shown(str(sheet.path))
    counts: dict[str, Counter[str]] = {role: Counter() for role in roles.values()}
    for label, split in zip(rows.labels, rows.splits, strict=True):
        counts[roles[split]][label] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    lone = len(total) == total.total() and len(total) > min_classes > 1
    if len(total) > MOST_CLASSES or lone:
        example = ", ".join(sorted(total)[:3])
        raise DataError(
            f"{name} has {len(total):,} different labels in {number(total.total(), 'row')} ({example}, …): that looks "
            "like a number to be predicted or a name of each image, and not like classes.",
            mend=f"Choose the column of classes: --label COLUMN, out of {sheet.listed()}.",
        )
    first = next((role for role in ("train", "") if role in counts), "")
    classes = set(counts[first]) if first in counts else set(total)
    if len(classes) < min_classes:
        raise DataError(
            f"{name} holds {number(len(classes), 'class')} ({', '.join(sorted(classes))}); "
            f"at least {min_classes} are needed.",
            mend="Add images of other classes, or choose the column of classes: --label COLUMN.",
        )
    check_names(set(total), notes, "labels", "Write them alike.")
    note_gaps(classes, counts, notes)
    if set(total) <= classes:
        return list(range(len(rows.names)))
    for i, label in enumerate(rows.labels):
        if label not in classes:
            rows.skip(rows.names[i], rows.at[i], f"class {label} is in {roles[rows.splits[i]]} but not in train")
    return [i for i, label in enumerate(rows.labels) if label in classes]


class _Folder:
    """Finds files below a folder; every folder is listed once, so that millions of rows ask the disk little."""

    def __init__(self, root: Path) -> None:
        self.top = os.path.abspath(root)  # noqa: PTH100 - links in it are to stay
        self.real = os.path.realpath(root)
        self.listings: dict[str, dict[str, str] | str] = {}

    def find(self, text: str) -> tuple[str, str]:
        """Return (path below the folder, empty where outside; why it is not taken, empty where it is)."""
        if "\0" in text:
            return "", NOT_THERE
        if _WINDOWS.match(text):
            return "", "an absolute Windows path"
        full = os.path.normpath(os.path.join(self.top, text))  # noqa: PTH118
        for top in (self.top, self.real):
            if full.startswith(os.path.join(top, "")):  # noqa: PTH118
                return self._find_below(full[len(os.path.join(top, "")) :])  # noqa: PTH118
        return "", "leads out of the folder of images"

    def _find_below(self, relative: str) -> tuple[str, str]:
        folder, _, name = relative.rpartition("/")
        if folder not in self.listings:
            self.listings[folder] = self._list(folder)
        listing = self.listings[folder]
        if isinstance(listing, str):
            return relative, listing
        if name not in listing:  # letters may be composed differently in the file and on the disk
            twins = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
            name = next((twin for twin in twins if twin in listing), name)
        return (f"{folder}/{name}" if folder else name), listing.get(name, NOT_THERE)

    def _list(self, folder: str) -> dict[str, str] | str:
        """Name what lies in a folder, each with why it is not taken (empty where it is); or why nothing in it is."""
        path = os.path.join(self.top, folder)  # noqa: PTH118
        if not self._inside(path):
            return _LEADS_OUT
        try:
            with os.scandir(path) as entries:
                return {entry.name: self._refusal(entry) for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            return f"its folder cannot be opened ({error.strerror})"

    def _refusal(self, entry: os.DirEntry[str]) -> str:
        try:
            if not entry.is_file():
                return "not a file"
        except OSError:
            return "a link that leads nowhere"
        if entry.is_symlink() and not self._inside(entry.path):
            return _LEADS_OUT
        return refusal(entry.name)

    def _inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self.real or real.startswith(os.path.join(self.real, ""))  # noqa: PTH118
