"""Class folders: `root/<class>/...`, or `root/train/<class>/...` with `val` and `test` beside it.

The rules, in one place:

- Every picture below a class folder, however deep, belongs to that class. Classes are ordered by name, as text.
- Pictures are told by extension here; what is inside is judged when they are decoded.
- Hidden and junk files are passed over, and listed.
- No folder is entered twice. A link is followed only to what lies inside the root and was not met at its own place.
- `root/train` with `root/val` or `root/test` makes a split. Given `val` and no `test`, `val` is the test set.
- An id is the path below the root, with `/`; backslashes, control characters and bytes that are no UTF-8 are written
  `\\xNN`, byte by byte. So an id is plain Unicode, fits JSON, CSV and arrays, and `id_to_path` leads back to the file.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import Dataset, FilePixels
from convsmith.images.decode import shown

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "ppm", "pgm"})
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_CONVERTIBLE = frozenset({"heic", "heif", "avif", "jp2", "svg", "psd", "eps", "pdf", "dcm", "czi", "nd2", "cr2", "dng"})
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_ARCHIVES = frozenset({"zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "rar", "7z"})


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
    parts = _parts(tree, images, root, notes)
    placed: list[tuple[str, str, str]] = []  # role, class, path
    folders: dict[str, list[str]] = {}  # role -> its class folders
    for part, role in parts.items():
        prefix = f"{part}/" if part else ""
        folders[role] = [path for path in _children(tree.folders, prefix) if part or path not in parts]
        for path in images:
            if path.startswith(prefix):
                head, slash, _ = path[len(prefix) :].partition("/")
                if slash:
                    placed.append((role, head, path))
                else:
                    tree.skip(path, "lies beside the class folders, so it has no label")
    if not placed and not any(folders.values()):
        raise _unlabelled(root, images)
    placed = _check_classes(root, placed, folders, tree, notes, min_classes)
    placed.sort(key=lambda item: path_to_id(item[2]))
    dataset = _dataset(root, source, placed)
    return dataset, SourceNotes(tuple(sorted(tree.skipped)), tuple(notes))


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
    links: list[str] = []
    waiting = [""]
    while waiting or links:
        real = bool(waiting)  # real folders first, so that a link never takes the place of what it leads to
        relative = waiting.pop() if real else links.pop(0)
        folder = os.path.join(root, relative)  # noqa: PTH118 - names of undecodable bytes, by the hundred thousand
        status = os.stat(folder)  # noqa: PTH116
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
            continue
        for entry in found:
            path = f"{relative}/{entry.name}" if relative else entry.name
            _sort_in(entry, path, top, tree, waiting, links)
    tree.files.sort()
    tree.folders.sort()
    return tree


def _sort_in(entry: os.DirEntry[str], path: str, top: str, tree: _Tree, waiting: list[str], links: list[str]) -> None:
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
    extension = path.rpartition("/")[2].rpartition(".")[2].lower()
    if extension in EXTENSIONS:
        return True
    if extension in _CONVERTIBLE:
        tree.skip(path, f".{extension} is not read; convert it to JPEG or PNG")
    elif extension in _ARCHIVES:
        tree.skip(path, "an archive; unpack it")
    else:
        tree.skip(path, "not an image, by its extension")
    return False


def _children(folders: Iterable[str], prefix: str) -> list[str]:
    """Name the folders directly below a prefix (`""` or `train/`)."""
    below = (path[len(prefix) :] for path in folders if path.startswith(prefix))
    return sorted(name for name in below if "/" not in name)


def _parts(tree: _Tree, images: list[str], root: Path, notes: list[str]) -> dict[str, str]:
    """Tell whether the root states a split: the folder of each part (`""` for the root itself) and its role."""
    top = _children(tree.folders, "")
    splits: dict[str, str] = {}
    for name in top:
        split = SPLITS.get(name.lower())
        if split is None or not _children(tree.folders, f"{name}/"):
            continue  # a class that happens to be called `test` has no folders in it
        if split in splits:
            raise DataError(
                f"{shown(str(root))} holds both {splits[split]}/ and {name}/.", mend="Keep one of them under one name."
            )
        splits[split] = name
    if "train" not in splits or (len(splits) == 1 and len(top) > 1):
        return {"": ""}
    for name in top:
        if name not in splits.values():
            tree.skip(name, "a folder beside train, val and test, so neither")
    for name in splits.values():
        if not any(path.startswith(f"{name}/") for path in images):
            raise DataError(f"{shown(str(root))}/{name} holds no images.", mend="Fill it, or remove it.")
    if len(splits) == 1:
        notes.append(f"Only {splits['train']}/ is there: it is split into train, tune and test.")
        return {splits["train"]: ""}
    if "test" not in splits:
        notes.append(f"{splits['val']}/ is the test set, because there is no other; tune is taken from train.")
        return {splits["train"]: "train", splits["val"]: "test"}
    roles = {"train": "train", "val": "tune", "test": "test"}
    return {name: roles[split] for split, name in splits.items()}


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
    if empty:
        raise DataError(
            f"{_number(len(empty), 'class folder')} of {shown(str(root))} without a single image: {', '.join(empty)}.",
            mend=f"Add images ({', '.join(sorted(EXTENSIONS))}), or remove the folder.",
        )
    classes = filled[first]
    if len(classes) < min_classes:
        raise DataError(
            f"{shown(str(root))} holds {_number(len(classes), 'class')} ({', '.join(map(path_to_id, classes))}); "
            f"at least {min_classes} are needed.",
            mend="Put the images of each class into a folder of its own.",
        )
    _check_names({name for names in filled.values() for name in names}, notes)
    for role in folders:
        for name in sorted(classes - filled[role]):
            notes.append(f"Class {path_to_id(name)} has no images in {role}: nothing is measured for it there.")
        for name in sorted(filled[role] - classes):
            count = sum(1 for item in placed if item[:2] == (role, name))
            notes.append(f"Class {path_to_id(name)} is in {role} but not in train: {_number(count, 'image')} left out.")
    for role, name, path in placed:
        if name not in classes:
            tree.skip(path, f"class {path_to_id(name)} is in {role} but not in train")
    return [item for item in placed if item[1] in classes]


def _check_names(names: set[str], notes: list[str]) -> None:
    composed: dict[str, str] = {}
    folded: dict[str, str] = {}
    for name in sorted(names):
        twin = composed.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            raise DataError(
                f"Two class folders are both shown as {path_to_id(name)}: their letters are composed differently "
                f"({os.fsencode(twin)!r} and {os.fsencode(name)!r}).",
                mend="Move the images of one into the other.",
            )
        similar = folded.setdefault(name.casefold(), name)
        if similar != name:
            notes.append(f"Classes {path_to_id(similar)} and {path_to_id(name)} differ only in case: are they one?")


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


def _unlabelled(root: Path, images: list[str]) -> DataError:
    mend = f"Make one folder per class in it: {shown(str(root))}/cat/1.jpg, {shown(str(root))}/dog/2.jpg."
    if images:
        return DataError(f"{shown(str(root))} holds {_number(len(images), 'image')} without labels.", mend=mend)
    return DataError(f"{shown(str(root))} holds no images.", mend=mend)


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "es" if thing.endswith("s") else "s")
