"""Class folders: `root/<class>/...`, or `root/train/<class>/...` with `val` and `test` beside it.

The rules, in one place:

- Every picture below a class folder, however deep, belongs to that class. Classes are ordered by name, as text.
- Pictures are told by extension here; what is inside is judged when they are decoded.
- Hidden and junk files are passed over, and listed.
- No folder is entered twice. A link is followed only to what lies inside the root and was not met at its own place.
- `root/train` with `root/val` or `root/test` makes a split, and so does `root/<class>/train` with `val` or `test`
  beside it, where no class holds anything else. Given `val` and no `test`, `val` is the test set.
- Where all lies in one folder below the root, as archives unpack, that one counts as the root; ids keep its name.
- An id is the path below the root, with `/`; backslashes, control characters and bytes that are no UTF-8 are written
  `\\xNN`, byte by byte. So an id is plain Unicode, fits JSON, CSV and arrays, and `id_to_path` leads back to the file.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import Dataset, FilePixels
from convsmith.images.decode import shown
from convsmith.images.foreign import EXTENSIONS, commonest, refusal

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "tune": "val",
    "tuning": "val",
}
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_NAMED = 5


@dataclass(frozen=True)
class SourceNotes:
    """What opening a source passed over, for the audit.

    Args:
        skipped: (path below the root, reason) of each file or folder that was not taken.
        notes: other things worth saying, one sentence each.
    """

    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Tree:
    """What lies below a root, as relative paths with `/`."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)  # folders that could not be opened, and why

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append((path_to_id(path), reason))


def open_folder(root: Path, *, source: str, min_classes: int = 2) -> tuple[Dataset, SourceNotes]:
    """List the pictures of a folder of class folders; nothing is decoded yet.

    Args:
        root: the folder.
        source: what was asked for.
        min_classes: how many classes there must be; 1 suits evaluation of a trained network.

    Returns:
        The data set (roles `train`, `tune`, `test` where the folder states them, else empty) and what was passed over.

    Raises:
        DataError: no class folders, an empty class, too few classes, or class names that look the same.
    """
    tree = _walk(root)
    notes: list[str] = []
    images = [path for path in tree.files if _is_image(path, tree)]
    base = _wrapper(tree, images)
    if base:
        notes.append(f"The class folders lie in {path_to_id(base)}, the only folder there.")
    parts = _parts(tree, images, base, root, notes)
    inside = _parts_inside(images, base, notes) if set(parts.values()) == {""} else {}
    placed, folders = _place_inside(tree, images, base, inside) if inside else _place(tree, images, parts)
    if not placed and not any(folders.values()):
        raise _unlabelled(root, images, tree)
    placed = _check_classes(root, placed, folders, tree, notes, min_classes)
    placed.sort(key=lambda item: path_to_id(item[2]))
    dataset = _dataset(root, source, placed)
    return dataset, SourceNotes(tuple(sorted(tree.skipped)), tuple(notes))


def stated_roles(splits: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Turn the parts that a source states into roles.

    Args:
        splits: `train`, `val`, `test`, whichever there are, and what the source calls each.
        notes: grows by what is decided here.

    Returns:
        Each of `splits` and its role: `val` tunes where there is a test set, and is the test set where there is none;
        `train` alone is yet to be divided, so it has none.
    """
    if set(splits) == {"train"}:
        notes.append(f"Only {splits['train']} is there: it is split into train, tune and test.")
        return {"train": ""}
    if "test" not in splits:
        rest = "; tune is taken from train" if "train" in splits else ""
        notes.append(f"{splits['val']} is the test set, because there is no other{rest}.")
        return {name: "test" if name == "val" else name for name in splits}
    return {name: "tune" if name == "val" else name for name in splits}


def number(count: int, thing: str) -> str:
    """`1 class`, `1,200 classes`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "es" if thing.endswith("s") else "s")


def path_to_id(path: str) -> str:
    """Write a relative path as an id; see the head of this module."""
    if path.isascii() and path.isprintable() and "\\" not in path:
        return path  # nearly all, and there may be a million
    return "".join(
        "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
        if character == "\\" or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in path
    )


def id_to_path(identifier: str) -> str:
    """Find the relative path behind an id of `path_to_id`."""
    escaped = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), identifier.encode())
    return os.fsdecode(escaped)


def _walk(root: Path) -> _Tree:
    """List everything below the root, each folder once, without recursion: trees may be deep, and links may loop."""
    tree = _Tree()
    top = os.path.realpath(root)
    visited: set[tuple[int, int]] = set()
    links: deque[str] = deque()
    waiting = [""]
    while waiting or links:
        real = bool(waiting)  # real folders first, so that a link never takes the place of what it leads to
        relative = waiting.pop() if real else links.popleft()
        folder = os.path.join(root, relative)  # noqa: PTH118 - names of undecodable bytes, by the hundred thousand
        try:
            status = os.stat(folder)  # noqa: PTH116
        except OSError as error:  # another program has removed it meanwhile
            tree.skip(relative, f"the folder cannot be opened ({error.strerror})")
            continue
        if (status.st_dev, status.st_ino) in visited:
            tree.skip(relative, "a link to a folder that is counted at its own place")
            continue
        visited.add((status.st_dev, status.st_ino))
        if relative:
            tree.folders.append(relative)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            tree.skip(relative, f"the folder cannot be opened ({error.strerror})")
            tree.closed[relative] = str(error.strerror)
            continue
        for entry in found:
            path = f"{relative}/{entry.name}" if relative else entry.name
            _sort_in(entry, path, top, tree, waiting, links)
    tree.files.sort()
    tree.folders.sort()
    return tree


def _sort_in(entry: os.DirEntry[str], path: str, top: str, tree: _Tree, waiting: list[str], links: deque[str]) -> None:
    if entry.name.startswith(".") or entry.name.lower() in _JUNK:
        tree.skip(path, "hidden or left by another program")
    elif not entry.is_symlink() and entry.is_dir():
        waiting.append(path)
    elif not entry.is_symlink() and entry.is_file():
        tree.files.append(path)
    elif not entry.is_symlink():
        tree.skip(path, "neither a file nor a folder")
    else:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link that leads to itself
            is_folder = is_file = False
        if not (is_folder or is_file):
            tree.skip(path, "a link that leads nowhere")
        elif not os.path.realpath(entry.path).startswith(os.path.join(top, "")):  # noqa: PTH118
            tree.skip(path, "a link that leads out of the folder; copy what it leads to")
        else:
            (links if is_folder else tree.files).append(path)


def _is_image(path: str, tree: _Tree) -> bool:
    if path.rpartition("/")[2].rpartition(".")[2].lower() in EXTENSIONS:
        return True
    tree.skip(path, refusal(path) or "not an image, by its extension")
    return False


def _children(folders: Iterable[str], prefix: str) -> list[str]:
    """Name the folders directly below a prefix (`""` or `train/`)."""
    below = (path[len(prefix) :] for path in folders if path.startswith(prefix))
    return sorted(name for name in below if "/" not in name)


def _wrapper(tree: _Tree, images: list[str]) -> str:
    """Find the one folder that holds everything, such as `photos/`; empty where the root holds class folders."""
    base = ""
    while True:
        below = _children(tree.folders, base)
        if any(path.startswith(base) and "/" not in path[len(base) :] for path in images):
            return ""  # a class folder that holds folders beside its images
        if len(below) != 1 or SPLITS.get(below[0].lower()) == "train":
            break
        base = f"{base}{below[0]}/"
    holding = [name for name in below if _children(tree.folders, f"{base}{name}/")]
    if not below or (not holding and all(name.lower() in SPLITS for name in below)):
        return ""  # one class and nothing else
    return base


def _parts(tree: _Tree, images: list[str], base: str, root: Path, notes: list[str]) -> dict[str, str]:
    """Tell whether the root states a split: the folder of each part (`base` for the root itself) and its role."""
    top = _children(tree.folders, base)
    splits: dict[str, str] = {}
    for name in top:
        split = SPLITS.get(name.lower())
        if split is None or not _children(tree.folders, f"{base}{name}/"):
            continue  # a class that happens to be called `test` has no folders in it
        if split in splits:
            raise DataError(
                f"{shown(str(root))} holds both {splits[split]}/ and {name}/.", mend="Keep one of them under one name."
            )
        splits[split] = name
    if "train" not in splits or (len(splits) == 1 and len(top) > 1):
        return {base: ""}
    for name in top:
        if name not in splits.values():
            tree.skip(f"{base}{name}", "a folder beside train, val and test, so neither")
    for name in splits.values():
        if not any(path.startswith(f"{base}{name}/") for path in images):
            raise DataError(f"{shown(str(root))}/{base}{name} holds no images.", mend="Fill it, or remove it.")
    roles = stated_roles({split: f"{name}/" for split, name in splits.items()}, notes)
    return {f"{base}{name}/": roles[split] for split, name in splits.items()}


def _place(
    tree: _Tree, images: list[str], parts: Mapping[str, str]
) -> tuple[list[tuple[str, str, str]], dict[str, list[str]]]:
    """Give each image its role and class; and for each role the class folders there are."""
    placed: list[tuple[str, str, str]] = []
    folders = {role: _children(tree.folders, part) for part, role in parts.items()}
    for path in images:
        part = next((part for part in parts if path.startswith(part)), None)
        if part is None:
            if "/" not in path:  # those in a folder are said by the folder
                tree.skip(path, "lies beside train, val and test, so in neither")
            continue
        name, slash, _ = path[len(part) :].partition("/")
        if slash:
            placed.append((parts[part], name, path))
        else:
            tree.skip(path, "lies beside the class folders, so it has no label")
    return placed, folders


def _parts_inside(images: list[str], base: str, notes: list[str]) -> dict[str, str]:
    """Tell whether the classes themselves are divided (`<class>/train`, `<class>/val`): each part and its role."""
    below: dict[str, set[str]] = defaultdict(set)  # class folder -> what holds its images, "" for itself
    for path in images:
        name, slash, rest = path[len(base) :].partition("/")
        if slash:
            below[name].add(rest.partition("/")[0] if "/" in rest else "")
    parts = set().union(*below.values())
    splits = {SPLITS[name.lower()]: f"{name}/" for name in sorted(parts) if name.lower() in SPLITS}
    if "train" not in splits or len(splits) < 2:
        return {}
    if any(name.lower() not in SPLITS for name in parts):
        listed = ", ".join(sorted(splits.values()))
        notes.append(f"Folders {listed} lie in some classes beside other images, so they are not taken for a split.")
        return {}
    roles = stated_roles(splits, notes)
    return {name: roles[SPLITS[name.lower()]] for name in parts}


def _place_inside(
    tree: _Tree, images: list[str], base: str, parts: Mapping[str, str]
) -> tuple[list[tuple[str, str, str]], dict[str, list[str]]]:
    """As `_place`, for classes that are themselves divided."""
    placed: list[tuple[str, str, str]] = []
    for path in images:
        name, slash, rest = path[len(base) :].partition("/")
        if slash:
            placed.append((parts[rest.partition("/")[0]], name, path))
        else:
            tree.skip(path, "lies beside the class folders, so it has no label")
    filled: dict[str, set[str]] = defaultdict(set)
    for role, name, _ in placed:
        filled[role].add(name)
    hollow = set(_children(tree.folders, base)).difference(*filled.values())
    filled["train"] |= hollow  # an empty class is an error, and is looked for there
    return placed, {role: sorted(names) for role, names in filled.items()}


def _check_classes(
    root: Path,
    placed: list[tuple[str, str, str]],
    folders: dict[str, list[str]],
    tree: _Tree,
    notes: list[str],
    min_classes: int,
) -> list[tuple[str, str, str]]:
    """Refuse empty, lone and confusable classes; drop those that no training image belongs to, and say so."""
    filled: dict[str, set[str]] = {role: set() for role in folders}
    for role, name, _ in placed:
        filled[role].add(name)
    first = next((role for role in ("train", "") if role in folders), "")
    empty = [path_to_id(name) for name in folders[first] if name not in filled[first]]
    if locked := [path for path in tree.closed if any(part in empty for part in path.split("/"))]:
        raise DataError(
            f"{shown(str(root))}/{locked[0]} cannot be opened: {tree.closed[locked[0]]}.",
            mend="Allow it to be read (chmod u+rx), or leave that class out by moving its folder away.",
        )
    if empty:
        hollow = set(empty)
        others = commonest(path for path in tree.files if any(part in hollow for part in path.split("/")[:-1]))
        said = f"; there are {path_to_id(others[0])}" if others else ""
        raise DataError(
            f"{shown(str(root))} has {number(len(empty), 'class folder')} without a single image: "
            f"{_some(empty)}{said}.",
            mend=others[1] if others else f"Add images ({', '.join(sorted(EXTENSIONS))}), or remove the folder.",
        )
    classes = filled[first]
    if len(classes) < min_classes:
        raise DataError(
            f"{shown(str(root))} holds {number(len(classes), 'class')} ({_some(sorted(map(path_to_id, classes)))}); "
            f"at least {min_classes} are needed.",
            mend="Put the images of each class into a folder of its own.",
        )
    check_names({name for names in filled.values() for name in names}, notes)
    counts: dict[str, Counter[str]] = {role: Counter() for role in folders}
    for role, name, _ in placed:
        counts[role][name] += 1
    note_gaps(classes, counts, notes)
    for role, name, path in placed:
        if name not in classes:
            tree.skip(path, f"class {path_to_id(name)} is in {role} but not in train")
    return [item for item in placed if item[1] in classes]


def check_names(
    names: Iterable[str],
    notes: list[str],
    what: str = "class folders",
    mend: str = "Move the images of one into the other.",
) -> None:
    """Refuse class names that look the same, and note those that differ only in case."""
    composed: dict[str, str] = {}
    folded: dict[str, str] = {}
    for name in sorted(names):
        twin = composed.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            raise DataError(
                f"Two {what} are both shown as {path_to_id(name)}: their letters are composed differently "
                f"({os.fsencode(twin)!r} and {os.fsencode(name)!r}).",
                mend=mend,
            )
        similar = folded.setdefault(name.casefold(), name)
        if similar != name:
            notes.append(f"Classes {path_to_id(similar)} and {path_to_id(name)} differ only in case: are they one?")


def note_gaps(classes: set[str], counts: Mapping[str, Mapping[str, int]], notes: list[str]) -> None:
    """Note the classes that a role lacks, and those that it has beyond the ones that train.

    Args:
        classes: those that train.
        counts: role -> class -> images.
        notes: grows by what is found; by one sentence for each class where they are few.
    """
    for role, found in counts.items():
        lacking = sorted(path_to_id(name) for name in classes if not found.get(name))
        if len(lacking) > _NAMED:
            notes.append(
                f"{len(lacking):,} classes have no images in {role} ({_some(lacking)}): nothing is measured there."
            )
        else:
            notes.extend(f"Class {name} has no images in {role}: nothing is measured for it there." for name in lacking)
        extra = sorted(name for name in found if name not in classes and found[name])
        if len(extra) > _NAMED:
            lost = number(sum(found[name] for name in extra), "image")
            listed = _some([path_to_id(name) for name in extra])
            notes.append(f"{len(extra):,} classes are in {role} but not in train ({listed}): {lost} left out.")
        else:
            notes.extend(
                f"Class {path_to_id(name)} is in {role} but not in train: {number(found[name], 'image')} left out."
                for name in extra
            )


def _dataset(root: Path, source: str, placed: list[tuple[str, str, str]]) -> Dataset:
    classes = sorted({path_to_id(name) for _, name, _ in placed})
    index = {name: i for i, name in enumerate(classes)}
    names = tuple(path for _, _, path in placed)
    return Dataset(
        ids=tuple(path_to_id(name) for name in names),
        targets=np.array([index[path_to_id(name)] for _, name, _ in placed], np.int64),
        classes=tuple(classes),
        roles=tuple(role for role, _, _ in placed),
        groups=("",) * len(placed),
        source=source,
        pixels=FilePixels(root, names),
        rows=np.arange(len(placed)),
    )


def _unlabelled(root: Path, images: list[str], tree: _Tree) -> DataError:
    name = shown(str(root))
    mend = f"Make one folder per class in it: {name}/cat/1.jpg, {name}/dog/2.jpg."
    if images:
        table = next((path for path in tree.files if path.lower().endswith((".csv", ".tsv"))), None)
        if table is not None:
            mend = f"If {path_to_id(table)} holds their labels, give that: {name}/{path_to_id(table)} --images {name}."
        else:
            mend += " Or give a CSV file with the columns path and label, and the folder with --images."
        return DataError(f"{name} holds {number(len(images), 'image')} without labels.", mend=mend)
    others = commonest(tree.files)
    if others:
        return DataError(f"{name} holds no images, but {path_to_id(others[0])}.", mend=others[1])
    return DataError(f"{name} holds no images.", mend=mend)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
