"""Which column of a CSV file is the path, label, split, group, time: as named, else guessed, and said so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from convsmith.errors import UsageError
from convsmith.images.decode import shown
from convsmith.images.folders import EXTENSIONS, SPLITS, path_to_id
from convsmith.images.sheet import Sheet

PATHS = (
    *("image_path", "img_path", "file_path", "filepath", "path", "paths", "relative_path", "file_name", "filename"),
    *("image_file", "file", "files", "image_name", "image", "images", "img", "image_id", "photo", "picture", "name"),
)
LABELS = (
    *("label", "labels", "class", "class_name", "classname", "label_name", "category", "category_name", "target"),
    *("species", "diagnosis", "dx", "breed", "variety", "kind", "type", "y"),
)
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold", "phase", "role", "usage", "dataset")
GROUPS = frozenset(
    (
        *("group", "groups", "patient", "subject", "donor", "person", "individual", "animal", "plant", "specimen"),
        *("sample", "slide", "well", "plate", "batch", "video", "film", "clip", "sequence", "session", "series"),
        *("site", "location", "camera", "part", "case", "study", "user", "author"),
    )
)


@dataclass(frozen=True)
class Columns:
    """Places of the columns that are used; -1 for none."""

    path: int
    label: int
    group: int
    split: int
    time: int

    @property
    def last(self) -> int:
        """The rightmost of them."""
        return max(self.path, self.label, self.group, self.split, self.time)


def settle_columns(
    sheet: Sheet, label: str | None, group: str | None, split: str | None, time: str | None, notes: list[str]
) -> Columns:
    """Settle which column is what: those named, else guesses, which are noted.

    Groups are suggested and never guessed; times are only ever named.

    Raises:
        UsageError: a name that is no column, or no path or label among them.
    """
    named = {
        option: sheet.find(name, f"--{option}")
        for option, name in (("label", label), ("group", group), ("split", split), ("time", time))
        if name is not None
    }
    free = [i for i in range(len(sheet.columns)) if i not in named.values()]
    path = _path_column(sheet, free)
    free.remove(path)
    notes.append(f"Column `{_shown(sheet, path)}` is the path of each image.")
    if "label" not in named:
        named["label"] = _label_column(sheet, free)
        free.remove(named["label"])
        notes.append(f"Column `{_shown(sheet, named['label'])}` is the label; say --label to choose another.")
    found = next((i for i in _by_name(sheet, free, SPLIT_COLUMNS) if _states_split(sheet, i)), None)
    if "split" not in named and found is not None:
        named["split"] = found
        free.remove(found)
        notes.append(f"Column `{_shown(sheet, found)}` states the split; say --split to choose another.")
    if "group" not in named:
        for i in free:
            if GROUPS & set(_words(sheet.columns[i])):
                name = _shown(sheet, i)
                notes.append(f"Column `{name}` may name groups: --group {name} keeps the images of each on one side.")
    return Columns(path, named["label"], *(named.get(option, -1) for option in ("group", "split", "time")))


def _path_column(sheet: Sheet, free: list[int]) -> int:
    """The column of paths: one whose name says so, before all if its values look like images, which any name may do."""
    by_name = _by_name(sheet, free, PATHS)
    look = [i for i in (*by_name, *free) if _looks_like_images(sheet.values(i))]
    if look or by_name:
        return (look or by_name)[0]
    raise UsageError(
        f"None of the columns of {shown(str(sheet.path))} holds paths of images: it has {sheet.listed()}.",
        mend="Name that column `path` in the first line.",
    )


def _label_column(sheet: Sheet, free: list[int]) -> int:
    found = _by_name(sheet, free, LABELS) or (free if len(sheet.columns) == 2 else [])
    if found:
        return found[0]
    raise UsageError(
        f"None of the columns of {shown(str(sheet.path))} is the label by its name: it has {sheet.listed()}.",
        mend="Name it: --label COLUMN.",
    )


def _by_name(sheet: Sheet, free: list[int], names: tuple[str, ...]) -> list[int]:
    """The free columns whose names are among `names`, in the order of these."""
    simple = {"_".join(_words(sheet.columns[i])): i for i in reversed(free)}
    return [simple[name] for name in names if name in simple]


def _words(column: str) -> list[str]:
    """`imagePath`, `Image path` and `image_path` are two words each."""
    return [word.casefold() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", column) if word]


def _looks_like_images(values: list[str]) -> bool:
    endings = [value.rpartition(".")[2].lower() in EXTENSIONS for value in values]
    return sum(endings) > len(endings) / 2


def _states_split(sheet: Sheet, column: int) -> bool:
    values = sheet.values(column)
    return bool(values) and all(value.casefold() in SPLITS for value in values)


def _shown(sheet: Sheet, column: int) -> str:
    return path_to_id(sheet.columns[column])
