"""`predict --sort-into DIR`: pictures copied into one folder for each class; nothing is moved, nothing overwritten."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

LONGEST = 120
"""Bytes of a folder's name; file systems take 255."""
ELSEWHERE = "Free or open that folder, or choose another: --sort-into DIR."


def refuse_target(target: Path, inputs: Iterable[str]) -> None:
    """Raise `UsageError` where copies would land among the pictures that are read, or cannot be made at all."""
    from convsmith.errors import UsageError

    there = next(place for place in (target.absolute(), *target.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UsageError(
            f"--sort-into {target}: {there.name} is a file.", mend="Give a folder; it is made if it is not there."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--sort-into {target}: {there} cannot be written to.", mend=ELSEWHERE)
    inside = target.resolve()
    for path in inputs:
        folder = Path(path).resolve()
        if folder.is_dir() and inside.is_relative_to(folder):
            raise UsageError(
                f"--sort-into {target} lies in {path}, so copies would be read as pictures the next time.",
                mend="Choose a folder beside it.",
            )


def sort_into(target: Path, rows: Iterable[Mapping[str, Any]], files: Iterable[str], classes: Sequence[str]) -> int:
    """Copy each picture that was named into the folder of its class.

    A picture that is there already, byte for byte, is not copied again; another one of the same name gets a number.

    Args:
        target: made if need be.
        rows: the answers, in the order of `files`.
        files: paths as the file system knows them.
        classes: all that may be answered.

    Returns:
        How many are there now, copied or found.

    Raises:
        ResourceError, RunError: the disk is full, or the folder cannot be written.
    """
    from convsmith.run_folder import disk_errors

    names = folder_names(classes)
    count = 0
    for row, file in zip(rows, files, strict=True):
        if row["error"]:
            continue
        folder = target / names[row["class"]]
        with disk_errors(f"copying {row['path']} into {folder}", mend=ELSEWHERE):
            folder.mkdir(parents=True, exist_ok=True)
            _copy(Path(file), folder)
        count += 1
    return count


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """A folder's name for each class, different ones for different classes.

    Separators, control characters, what Windows does not take, and dots at either end are left out; where two classes
    would then share a folder (`a/b` and `a:b`, or `Cat` and `cat` on many disks), the later ones get a number.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for name in classes:
        safe = re.sub(r"[\x00-\x1f\x7f/\\:*?\"<>|\ud800-\udfff]", "_", name).strip(" .")
        safe = safe.encode()[:LONGEST].decode(errors="ignore") or "_"
        folder, number = safe, 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{safe}-{number}"
        taken.add(folder.casefold())
        names[name] = folder
    return names


def _copy(file: Path, folder: Path) -> None:
    """Copy under a temporary name first, so that what stops half-way leaves no part under the picture's own."""
    for number in range(1, 1_000_000):
        place = folder / (file.name if number == 1 else f"{file.stem}-{number}{file.suffix}")
        if not os.path.lexists(place):
            break
        if place.is_file() and filecmp.cmp(file, place, shallow=False):
            return
    else:
        raise FileExistsError(f"{folder} holds a million pictures named {file.name}")
    temporary = folder / f".copying-{os.getpid()}"
    try:
        shutil.copy2(file, temporary)
        temporary.rename(place)
    finally:
        temporary.unlink(missing_ok=True)
